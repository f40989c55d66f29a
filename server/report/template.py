"""The page. A string in a module, since HTML files do not travel in a Flower bundle."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }} · fedmeta</title>
<style>
:root {
  --paper: #fafaf8; --card: #ffffff; --line: #e5e5e0; --ink: #1a1d21; --muted: #666d77;
  --accent: #2563eb; --tint: #f3f6fe; --second: #b45309; --wrong: #dc2626; color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #101215; --card: #181b20; --line: #2a2f36; --ink: #eceef1; --muted: #9aa2ad;
    --accent: #7aa7ff; --tint: #18202f; --second: #f0a860; --wrong: #ff7b7b;
  }
  /* Drawings in ink turn light on dark; photographs stay as they are. */
  figure image[id*="ink-"] { filter: invert(.9); }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.6 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 62rem; margin: 0 auto; padding: 4.5rem 1.5rem 6rem; }
.over { color: var(--accent); font-size: .8125rem; font-weight: 600; letter-spacing: .02em; margin: 0 0 .5rem; }
h1 { font-size: 2.6rem; line-height: 1.1; letter-spacing: -.03em; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.375rem; letter-spacing: -.015em; margin: 4.5rem 0 1rem; }
h3 { font-size: 1rem; margin: 2.25rem 0 .75rem; } h3 span { color: var(--muted); font-weight: 400; }
h3::first-letter { text-transform: uppercase; }
p { max-width: 44rem; margin: 0 0 1rem; } .lead { color: var(--muted); font-size: 1.0625rem; max-width: 50rem; }
.note { color: var(--muted); font-size: .875rem; max-width: 50rem; }
.facts { color: var(--muted); font-size: .8125rem; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 0; padding: 0; list-style: none; font-variant-numeric: tabular-nums; }
.state { color: var(--second); font-weight: 600; margin: 1.5rem 0 0; }
.cards { display: grid; grid-template-columns: repeat(3, 1fr); gap: 1rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1.1rem 1.25rem 1.2rem; }
.card .label, .card .range { color: var(--muted); font-size: .8125rem; font-variant-numeric: tabular-nums; }
.card .value { font-size: 2.25rem; font-weight: 650; letter-spacing: -.025em; font-variant-numeric: tabular-nums; line-height: 1.35; white-space: nowrap; }
.card.main { border-color: var(--accent); background: var(--tint); } .card.main .value { color: var(--accent); }
.cards + .note { margin-top: .9rem; } .best { font-variant-numeric: tabular-nums; margin: .9rem 0 .25rem; font-size: .9375rem; }
.best + .note { margin-top: 0; } .best b { font-weight: 650; } .best span { color: var(--muted); }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1.5rem 1.5rem 1.1rem; }
figure svg { display: block; width: 100%; height: auto; } figure.narrow svg { max-width: 42rem; }
figcaption { color: var(--muted); font-size: .8125rem; margin-top: 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; } .scroll { overflow-x: auto; }
th { text-align: left; font-weight: 600; color: var(--muted); font-size: .8125rem; }
th, td { padding: .55rem 1.5rem .55rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap; } td.t { overflow-wrap: anywhere; }
details { border: 1px solid var(--line); border-radius: 14px; background: var(--card); padding: .8rem 1.25rem; margin: 0 0 .75rem; }
summary { cursor: pointer; font-weight: 600; } pre { overflow-x: auto; font-size: .8125rem; line-height: 1.55; margin: .8rem 0 .2rem; }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 4px; border-radius: 4px; }
@media (max-width: 40rem) {
  main { padding: 2.5rem 1.1rem 4rem; } h1 { font-size: 2rem; } h2 { margin-top: 3rem; }
  .cards { grid-template-columns: 1fr; gap: .6rem; } .card .value { font-size: 1.875rem; }
  figure { padding: 1rem; overflow-x: auto; } figure svg { min-width: 26rem; }
}
@media print { body { background: none; } figure, .card { break-inside: avoid; } main { padding: 0; } }
</style>
</head>
<body><main>
<header>
<p class="over">Run report</p>
<h1>{{ title }}</h1>
<p class="lead">{{ subtitle }}</p>
{% if facts %}<ul class="facts">{% for fact in facts %}<li>{{ fact }}</li>{% endfor %}</ul>{% endif %}
{% if not finished %}<p class="state">This run is not finished: {{ rounds }} of {{ total_rounds }} rounds are done.</p>{% endif %}
</header>

{% if groups %}<h2 style="margin-top:3rem">On clients never seen in training</h2>{% endif %}
{% for group in groups %}
<section>
  <h3>{{ group.split }} <span>· {{ group.model }}</span></h3>
  <div class="cards">
  {% for row in group.rows %}
    <div class="card{% if row.label.startswith('after') %} main{% endif %}">
      <div class="label">{{ row.label }}</div>
      <div class="value">{{ row.format(row.estimate.mean) }}</div>
      <div class="range">{{ interval(row) }}</div>
      {% if row.beside %}<div class="range">{{ row.beside }}</div>{% endif %}
    </div>
  {% endfor %}
  </div>
  {% if group.best %}<p class="best"><b>{{ group.best.format(group.best.estimate.mean) }}</b> {{ group.best.label }}, {{ group.best.model }} <span>· {{ interval(group.best) }}</span></p>{% endif %}
  <p class="note">{{ group.protocol }}</p>
</section>
{% endfor %}
{% if best %}<p class="note">Best on validation: round {{ best.round }} ({{ best.score }}). The last round is {{ rounds }}. Test clients chose nothing.</p>
{% elif finished %}<p class="note">There are no validation clients, so no model was chosen: the last round, {{ rounds }}, is what is judged.</p>{% endif %}

{% for section in sections %}
<h2>{{ section.title }}</h2>
<figure{% if section.narrow %} class="narrow"{% endif %}>{{ section.svg | safe }}<figcaption>{{ section.caption }}</figcaption></figure>
{% endfor %}
{% if no_episode %}<h2>An episode</h2><p class="note">{{ no_episode }}</p>{% endif %}

{% if secure %}
<h2>Secure aggregation</h2>
<div class="scroll"><table><tbody>
{% for name, value in secure %}<tr><th>{{ name }}</th><td class="t">{{ value }}</td></tr>{% endfor %}
</tbody></table></div>
{% endif %}

{% if deployment[1] %}
<h2>Defences at deployment</h2>
<div class="scroll"><table><thead><tr>{% for column in deployment[0] %}<th>{{ column }}</th>{% endfor %}</tr></thead><tbody>
{% for row in deployment[1] %}<tr>{% for cell in row %}<td class="{{ 't' if loop.first else 'n' }}">{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div>
{% endif %}

{% if detection %}
<h2>Malicious clients found</h2>
<div class="scroll"><table><tbody>
{% for what, figure, beside in detection %}<tr><th>{{ what }}</th><td class="n">{{ figure }}</td><td class="t">{{ beside }}</td></tr>{% endfor %}
</tbody></table></div>
{% endif %}

{% if privacy %}
<h2>{{ privacy.title }}</h2>
{% for warning in privacy.warnings %}<p class="state">{{ warning }}</p>{% endfor %}
<div class="cards">
  <div class="card main"><div class="label">{{ privacy.label }}</div><div class="value">{{ privacy.epsilon }}</div><div class="range">{{ privacy.delta }}</div></div>
  <div class="card"><div class="label">{{ privacy.other.label }}</div><div class="value">{{ privacy.other.epsilon }}</div><div class="range">{{ privacy.other.why }}</div></div>
</div>
<div class="scroll" style="margin-top:1.25rem"><table><tbody>
{% for name, value in privacy.rows %}<tr><th>{{ name }}</th><td class="t">{{ value }}</td></tr>{% endfor %}
</tbody></table></div>
{% endif %}

<h2>Rounds that need a word</h2>
{% if troubles %}
<div class="scroll"><table><thead><tr><th>round</th><th>what</th></tr></thead><tbody>
{% for trouble in troubles %}<tr><td class="n">{{ trouble.rounds }}</td><td class="t">{{ trouble.text }}</td></tr>{% endfor %}
</tbody></table></div>
{% if more_troubles %}<p class="note">and {{ more_troubles }} more in metrics.jsonl</p>{% endif %}
{% else %}<p class="note">{% if rounds %}Every client answered in every round, and every round was aggregated.{% else %}No round was run.{% endif %}</p>{% endif %}

<h2>How it was run</h2>
<details><summary>Configuration</summary><pre>{{ configuration }}</pre></details>
<details><summary>Environment</summary><pre>{{ environment }}</pre></details>
</main></body></html>
"""

STYLE = TEMPLATE.partition("<style>")[2].partition("</style>")[0]
"""The style sheet, which other pages share."""
