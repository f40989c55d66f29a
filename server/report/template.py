"""The page. A string in a module, since HTML files do not travel in a Flower bundle."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }} · fedmeta</title>
<style>
:root {
  --paper: #fbfbf9; --card: #ffffff; --line: #e6e6e1; --ink: #1a1d21; --muted: #6d747e;
  --accent: #2563eb; --second: #b45309; --wrong: #dc2626; color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #121417; --card: #1a1d22; --line: #2b3037; --ink: #eceef1; --muted: #98a0ab;
    --accent: #7aa7ff; --second: #f0a860; --wrong: #ff7b7b;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.6 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 62rem; margin: 0 auto; padding: 4rem 1.5rem 6rem; }
h1 { font-size: 2.2rem; line-height: 1.15; letter-spacing: -.02em; margin: 0 0 .4rem; }
h2 { font-size: 1.15rem; letter-spacing: -.01em; margin: 3.5rem 0 1rem; }
p { max-width: 44rem; margin: 0 0 1rem; } .lead, .note { color: var(--muted); } .note { font-size: .875rem; }
.state { color: var(--second); font-weight: 600; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 1rem; margin: .75rem 0 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1.1rem 1.25rem; }
.card .label { color: var(--muted); font-size: .8125rem; }
.card .value { font-size: 2rem; font-weight: 650; letter-spacing: -.02em; font-variant-numeric: tabular-nums; line-height: 1.3; }
.card .range { color: var(--muted); font-size: .8125rem; font-variant-numeric: tabular-nums; }
.card.main { border-color: var(--accent); } .card.main .value { color: var(--accent); }
.group { margin-top: 2rem; } .group > .name { font-weight: 600; } .group > .name span { color: var(--muted); font-weight: 400; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1rem; overflow-x: auto; }
figure svg { display: block; width: 100%; height: auto; max-width: {{ "100%" }}; } figure.narrow svg { max-width: 38rem; margin: 0 auto; }
figcaption { color: var(--muted); font-size: .875rem; margin-top: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; } .scroll { overflow-x: auto; }
th { text-align: left; font-weight: 600; color: var(--muted); font-size: .8125rem; }
th, td { padding: .45rem .9rem .45rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
details { border: 1px solid var(--line); border-radius: 14px; background: var(--card); padding: .8rem 1.1rem; margin: 0 0 .75rem; }
summary { cursor: pointer; font-weight: 600; } pre { overflow-x: auto; font-size: .8125rem; line-height: 1.5; margin: .8rem 0 0; }
</style>
</head>
<body><main>
<h1>{{ title }}</h1>
<p class="lead">{{ subtitle }}</p>
{% if not finished %}<p class="state">This run is not finished: {{ rounds }} of {{ total_rounds }} rounds are done.</p>{% endif %}

{% for group in groups %}
<div class="group">
  <div class="name">{{ group.split }} <span>· {{ group.model }}</span></div>
  <div class="cards">
  {% for row in group.rows %}
    <div class="card{% if row.label.startswith('after') %} main{% endif %}">
      <div class="label">{{ row.label }}</div>
      <div class="value">{{ row.format(row.estimate.mean) }}</div>
      <div class="range">{% if row.estimate.count > 1 %}95 %: {{ row.format(row.estimate.low) }} to {{ row.format(row.estimate.high) }}{% else %}one value, no interval{% endif %}</div>
    </div>
  {% endfor %}
  </div>
  <p class="note" style="margin-top:.75rem">{{ group.protocol }}</p>
</div>
{% endfor %}
{% if best %}<p class="note">Best on validation: round {{ best.round }} ({{ best.score }}). The last round is {{ rounds }}. Test clients chose nothing.</p>
{% elif finished %}<p class="note">There are no validation clients, so no model was chosen: the last round, {{ rounds }}, is what is judged.</p>{% endif %}

{% for section in sections %}
<h2>{{ section.title }}</h2>
<figure{% if section.narrow %} class="narrow"{% endif %}>{{ section.svg | safe }}<figcaption>{{ section.caption }}</figcaption></figure>
{% endfor %}
{% if no_episode %}<h2>An episode</h2><p class="note">{{ no_episode }}</p>{% endif %}

<h2>Rounds that need a word</h2>
{% if troubles %}
<div class="scroll"><table><tr><th>round</th><th>what</th></tr>
{% for trouble in troubles %}<tr><td class="n">{{ trouble.round }}</td><td>{{ trouble.text }}</td></tr>{% endfor %}
</table></div>
{% if more_troubles %}<p class="note">and {{ more_troubles }} more in metrics.jsonl</p>{% endif %}
{% else %}<p class="note">Every client answered in every round, and every round was aggregated.</p>{% endif %}

<h2>How it was run</h2>
<details><summary>Configuration</summary><pre>{{ configuration }}</pre></details>
<details><summary>Environment</summary><pre>{{ environment }}</pre></details>
</main></body></html>
"""
