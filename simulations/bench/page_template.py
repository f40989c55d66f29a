"""The benchmark page. A string in a module, as the run report's, whose style sheet it shares."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }} · fedmeta bench</title>
<style>{{ style }}
main { max-width: 76rem; }
ul.said { padding-left: 1.1rem; max-width: 60rem; } ul.said li { margin: .35rem 0; } ul.said li.no { color: var(--wrong); font-weight: 600; }
table.map { border-collapse: separate; border-spacing: 3px; width: auto; } table.map th { border: 0; padding: .3rem .6rem; white-space: nowrap; }
table.map td { border: 0; border-radius: 8px; padding: .45rem .7rem; text-align: right; font-variant-numeric: tabular-nums; min-width: 6.2rem; background: color-mix(in srgb, var(--wrong) var(--bad, 0%), var(--card)); }
table.map td small { display: block; opacity: .75; font-size: .72rem; } table.map td.no { text-align: left; color: var(--muted); font-size: .78rem; }
.panels { display: flex; flex-wrap: wrap; gap: .5rem 1rem; } .panels div { width: 12rem; } .panels p { font-size: .78rem; color: var(--muted); margin: .2rem 0 0; }
svg.panel { width: 100%; height: auto; display: block; } .key { font-size: .8125rem; color: var(--muted); } .key b { font-weight: 600; }
</style>
</head>
<body><main>
<header>
<p class="over">Benchmark</p>
<h1>{{ title }}</h1>
<p class="lead">{{ lead }}</p>
<ul class="facts">{% for fact in facts %}<li>{{ fact }}</li>{% endfor %}</ul>
{% if unfinished %}<p class="state">This grid is not finished: {{ unfinished }} still to run. The same command goes on.</p>{% endif %}
</header>

<h2>How the cells were made comparable</h2>
<ul class="said">{% for line in statements %}<li{% if line.startswith('NOT EQUAL') %} class="no"{% endif %}>{{ line }}</li>{% endfor %}</ul>

{% if verdicts is not none %}<h2>What breaks, and what restores</h2>
<p class="note">{{ bounds }}</p>
{% if verdicts %}<div class="scroll"><table><thead><tr><th>set-up</th><th>attack</th><th>drop</th><th>lift</th><th>restored by</th><th>broken too</th></tr></thead><tbody>
{% for found in verdicts %}<tr><td>{{ found.setup }}</td><td>{{ found.attack }}</td><td class="n">{{ found.drop }}</td><td class="n">{{ found.lift }}</td><td class="t">{{ found.restored }}</td><td class="t">{{ found.broken }}</td></tr>{% endfor %}
</tbody></table></div>{% else %}<p>No attack of this grid breaks the plain mean.</p>{% endif %}{% endif %}

{% if answers %}<h2>Questions of the grid</h2>
<p class="note">Asked in the file, before the runs. First minus second, seed by seed.</p>
{{ comparison_table(answers) }}{% endif %}

{% for setup in setups %}
<h2>{{ setup.title }}</h2>
{% for map in setup.maps %}
<h3>{{ map.title }} <span>· {{ map.what }}</span></h3>
<div class="scroll"><table class="map"><thead><tr><th></th>{% for d in map.defences %}<th>{{ d }}</th>{% endfor %}</tr></thead><tbody>
{% for line in map.lines %}<tr><th>{{ line.attack }}</th>{% for cell in line.cells %}<td{% if cell.no %} class="no" title="{{ cell.why }}">{{ cell.no }}{% else %} style="--bad:{{ cell.bad }}%">{{ cell.mean }}<small>{{ cell.range }}</small>{% endif %}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div>
{% endfor %}
{% if setup.worst %}<h3>The worst attack of each defence</h3>
<div class="scroll"><table><thead><tr><th>defence</th><th>worst for the main task</th><th></th><th>largest lift</th><th></th></tr></thead><tbody>
{% for row in setup.worst %}<tr><td>{{ row.defence }}</td><td>{{ row.by_score }}</td><td class="n">{{ row.score }}</td><td>{{ row.by_lift }}</td><td class="n">{{ row.lift }}</td></tr>{% endfor %}
</tbody></table></div>{% endif %}
{% for table in setup.tables %}
<h3>{{ table.title }}</h3>{% if table.note %}<p class="note">{{ table.note }}</p>{% endif %}
<div class="scroll"><table><thead><tr>{% for head in table.heads %}<th>{{ head }}</th>{% endfor %}</tr></thead><tbody>
{% for line in table.lines %}<tr>{% for cell in line %}<td class="n">{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div>
{% endfor %}
{% if setup.adaptation %}<h3>Attack success over adaptation steps <span>· means over seeds</span></h3>
<p class="key"><b style="color:var(--wrong)">attacked</b> and <b style="color:var(--muted)">clean twin</b>, after so many steps on the support</p>
{% for figure in setup.adaptation %}<details{% if loop.first %} open{% endif %}><summary>{{ figure.attack }}</summary><div class="panels">{% for p in figure.panels %}<div>{{ p.svg }}<p>{{ p.words }}</p></div>{% endfor %}</div></details>{% endfor %}{% endif %}
{% if setup.rounds %}<h3>Over the rounds <span>· on validation clients; faint: single seeds</span></h3>
<p class="key"><b style="color:var(--accent)">{{ score_name }}</b> and <b style="color:var(--wrong)">attack success after {{ step }} steps</b></p>
{% for figure in setup.rounds %}<details><summary>{{ figure.attack }}</summary><div class="panels">{% for p in figure.panels %}<div>{{ p.svg }}<p>{{ p.words }}</p></div>{% endfor %}</div></details>{% endfor %}{% endif %}
{% endfor %}

<h2>Each defence against the plain mean</h2>
<p class="note">Defence minus mean, under each attack, seed by seed; Holm's correction among the defences of one attack and column.</p>
<details><summary>{{ comparisons|length }} comparison{{ "" if comparisons|length == 1 else "s" }}</summary>{{ comparison_table(comparisons) }}</details>

<h2>What did not run, and what was warned of</h2>
{% if missing %}<div class="scroll"><table><tbody>{% for line in missing %}<tr><td class="t">{{ line }}</td></tr>{% endfor %}</tbody></table></div>{% else %}<p class="note">Every cell ran.</p>{% endif %}
{% for text, where in notes %}<p class="note">{{ text }} ({{ where }})</p>{% endfor %}

<h2>How it was run</h2>
<details><summary>Columns</summary><table><tbody>{% for column in columns %}<tr><th>{{ column.name }}</th><td class="t">{{ column.what }}</td></tr>{% endfor %}</tbody></table></details>
<details><summary>Cells and their resolved configurations</summary><table><tbody>
{% for cell in cells %}<tr><td class="t">{{ cell.words }}</td><td>{{ cell.state }}</td><td class="n">{% if cell.state == 'done' %}<a href="cells/{{ cell.key }}/config.json">{{ cell.key }}</a>{% else %}{{ cell.key }}{% endif %}</td></tr>{% endfor %}
</tbody></table></details>
<details><summary>The grid, resolved</summary><pre>{{ grid }}</pre></details>
<details><summary>The base experiment, without attack under the plain mean</summary><pre>{{ base }}</pre></details>
</main></body></html>
"""

COMPARISONS = """{% macro comparison_table(rows) %}<div class="scroll"><table><thead><tr><th>family</th><th>set-up</th><th>first</th><th>second</th><th>difference</th><th>seeds</th><th>p</th><th>p (Holm)</th></tr></thead><tbody>
{% for row in rows %}<tr><td>{{ row.family }}</td><td>{{ row.setup }}</td><td>{{ row.first }}</td><td>{{ row.second }}</td><td class="n">{{ row.difference }}</td><td class="n">{{ row.seeds }}</td><td class="n">{{ row.p }}</td><td class="n">{{ row.adjusted }}</td></tr>{% endfor %}
</tbody></table></div>{% endmacro %}"""
"""A macro that the page uses twice."""
