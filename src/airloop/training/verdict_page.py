"""The verdict as one page that a person reads: it needs no script, no other file and no internet.

Belongs here: how a verdict is shown. Does not belong here: what it says (`airloop.verdict`).
"""

from __future__ import annotations

from typing import Final

from jinja2 import Environment, StrictUndefined

from airloop.verdict import Measures, Verdict

_FIGURES: Final = {
    "roc_auc": "ROC AUC",
    "log_loss": "log loss",
    "average_precision": "average precision",
    "brier": "Brier score",
    "calibration_error": "calibration error",
}
_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{{ verdict.use_case }}: {{ outcome }}</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1c1e21}
h1{margin-bottom:.2rem}h2{margin-top:2rem}
table{border-collapse:collapse;width:100%}
td,th{border-bottom:1px solid #ddd;padding:.3rem .7rem;text-align:left;vertical-align:top}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.passed{color:#116329}.failed{color:#a40e26;font-weight:600}.quiet{color:#667}
.outcome{display:inline-block;padding:.2rem .8rem;border-radius:1rem;color:#fff}
.outcome.accepted{background:#1a7f37}.outcome.rejected{background:#cf222e}
</style>
<h1>{{ verdict.use_case }} <span class="outcome {{ outcome }}">{{ outcome }}</span></h1>
<p class="quiet">MLflow run {{ verdict.run_id }}, training set {{ verdict.training_set.tag }}
(snapshot {{ verdict.training_set.snapshot_id }} of {{ verdict.training_set.table }}),
{{ "{:,}".format(verdict.training_set.train_rows) }} rows to train,
{{ "{:,}".format(verdict.candidate.rows) }} to test, of which
{{ "{:,}".format(verdict.candidate.positives) }} positive.
{% if verdict.overridden_by %}
<strong>Accepted by {{ verdict.overridden_by }} in spite of the rules.</strong>
{% endif %}</p>
{% if verdict.reasons %}
<h2>Why it was rejected</h2>
<ul>{% for reason in verdict.reasons %}<li class="failed">{{ reason }}</li>{% endfor %}</ul>
{% endif %}
<h2>Figures on the test rows</h2>
<table>
<tr><th>model</th>{% for title in figures.values() %}<th class="number">{{ title }}</th>{% endfor %}</tr>
{% for name, measures in models %}
<tr><td>{{ name }}</td>{% for figure in figures %}
{% set range = verdict.ranges.get(name.split(" ")[0] ~ "." ~ figure) %}
<td class="number">{{ shown(measures, figure) }}{% if range %}<br>
<span class="quiet">{{ "%.4f to %.4f"|format(range.low, range.high) }}</span>{% endif %}</td>
{% endfor %}</tr>
{% endfor %}
</table>
<p class="quiet">Ranges: the middle 95% over resampled days.</p>
<h2>Rules</h2>
<table>
<tr><th></th><th>rule</th><th class="number">value</th><th></th><th class="number">threshold</th>
<th>what it says</th></tr>
{% for rule in verdict.rules %}
<tr><td class="{{ 'passed' if rule.passed else 'failed' }}">{{ "passed" if rule.passed else "FAILED" }}</td>
<td>{{ rule.name }}</td>
<td class="number">{{ number(rule.value) }}</td><td>{{ rule.comparison or "" }}</td>
<td class="number">{{ number(rule.threshold) }}</td><td>{{ rule.detail }}</td></tr>
{% endfor %}
</table>
{% if verdict.slices %}
<h2>Slices</h2>
<table>
<tr><th>slice</th><th class="number">rows</th><th class="number">positive</th><th class="number">ROC AUC</th>
<th class="number">base rate's</th><th class="number">log loss</th><th class="number">base rate's</th></tr>
{% for part in verdict.slices %}
<tr><td>{{ part.name }}</td><td class="number">{{ "{:,}".format(part.candidate.rows) }}</td>
<td class="number">{{ "{:,}".format(part.candidate.positives) }}</td>
{% for figure in ("roc_auc", "log_loss") %}<td class="number">{{ shown(part.candidate, figure) }}</td>
<td class="number quiet">{{ shown(part.baseline, figure) }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endif %}
</html>
"""


def page_of(verdict: Verdict) -> str:
    """`verdict` as HTML."""
    models: list[tuple[str, Measures | None]] = [
        ("candidate", verdict.candidate),
        ("baseline", verdict.baseline),
    ]
    if verdict.champion is not None:
        models.append((f"champion (version {verdict.champion.version})", verdict.champion.measures))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(_PAGE).render(
        verdict=verdict,
        outcome="accepted" if verdict.accepted else "rejected",
        figures=_FIGURES,
        models=models,
        shown=_shown,
        number=_number,
    )


def _shown(measures: Measures | None, figure: str) -> str:
    value = None if measures is None else measures.figures()[figure]
    return "n/a" if value is None else f"{value:.4f}"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:,.0f}" if value == round(value) else f"{value:.4f}"
