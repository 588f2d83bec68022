"""What the verdict's page and the model card share: their looks, and tables of a verdict's parts.

Belongs here: Jinja macros of parts that both pages show. Does not belong here: a page, or what is measured.
"""

from __future__ import annotations

from typing import Any, Final

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from airloop.training.plots import reliability_plot
from airloop.use_cases.target import Figure, Target
from airloop.verdict import USUAL, Measures, Verdict

_PARTS: Final = """
{% macro head(title) %}
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1c1e21}
h1{margin-bottom:.2rem}h2{margin-top:2.2rem}h3{margin:1.4rem 0 .3rem}
table{border-collapse:collapse;width:100%}
td,th{border-bottom:1px solid #ddd;padding:.3rem .7rem;text-align:left;vertical-align:top}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.name{min-width:9rem;overflow-wrap:break-word}
.passed{color:#116329}.failed{color:#a40e26;font-weight:600}.quiet{color:#667}
.outcome{display:inline-block;padding:.2rem .8rem;border-radius:1rem;color:#fff}
.outcome.accepted{background:#1a7f37}.outcome.rejected{background:#cf222e}.outcome.overridden{background:#9a6700}
.warning{border-left:.3rem solid #9a6700;padding:.3rem 1rem;background:#fff8e6}
svg{display:block;margin:.6rem 0}
code{overflow-wrap:anywhere}
</style>
{% endmacro %}

{% macro badge(verdict) %}
<span class="outcome {{ outcome(verdict) }}">{{ outcome(verdict) }}</span>
{% endmacro %}

{% macro override(verdict) %}
{% if verdict.override %}
<p class="warning"><strong>Accepted by {{ verdict.override.by }} in spite of the rules</strong>, on
{{ verdict.override.at }}: {{ verdict.override.reason }}<br>
<span class="quiet">Overridden: {{ verdict.override.rules|join(", ") }}. Record
{{ verdict.override.audit_record }} of the audit log.</span></p>
{% endif %}
{% endmacro %}

{% macro reasons(verdict) %}
{% if verdict.reasons %}
<h2>{{ "What the rules said" if verdict.override else "Why it was rejected" }}</h2>
<ul>{% for reason in verdict.reasons %}<li class="failed">{{ reason }}</li>{% endfor %}</ul>
{% endif %}
{% endmacro %}

{% macro figures(verdict) %}
<table>
<tr><th>model</th>{% for figure in verdict.target.figures %}
<th class="number">{{ titled(verdict.target, figure) }}</th>{% endfor %}</tr>
{% for name, measures in models(verdict) %}
<tr><td>{{ name }}</td>{% for figure in verdict.target.figures %}
{% set range = verdict.ranges.get(name.split(" ")[0] ~ "." ~ figure.name) %}
<td class="number">{{ shown(measures, figure.name) }}{% if range %}<br>
<span class="quiet">{{ "%.4f to %.4f"|format(range.low, range.high) }}</span>{% endif %}</td>
{% endfor %}</tr>
{% endfor %}
</table>
<p class="quiet">Ranges: the middle 95% over resampled days.
Baseline: the {{ usual(verdict.target) }} of groups of training rows (see the rules).</p>
{% endmacro %}

{% macro differences(verdict) %}
{% if comparisons(verdict) %}
<table>
<tr><th>candidate against</th><th>difference</th><th class="number">95% interval</th>
<th class="number">share of resamples without it</th></tr>
{% for other, title, range in comparisons(verdict) %}
<tr><td>{{ other }}</td><td>{{ title }}</td>
<td class="number">{{ "%+.4f to %+.4f"|format(range.low, range.high) }}</td>
<td class="number">{{ "%.1f"|format(100 * range.share_not_above_zero) }}%</td></tr>
{% endfor %}
</table>
{% endif %}
<p class="quiet">{% if verdict.resampling and verdict.ranges %}
Test: {{ verdict.resampling.method }}, {{ "{:,}".format(verdict.resampling.resamples) }} resamples of
{{ verdict.resampling.blocks }} days, all models on the same rows and the same draws. The share without a gain
reads like a one-sided p value: below 2.5% the gain is hardly chance.
{% else %}
How far differences may be chance is not known: too few days, labels that are all the same, or a prediction
that is no number.
{% endif %}</p>
{% endmacro %}

{% macro rules(verdict) %}
<table>
<tr><th></th><th>rule</th><th class="number">value</th><th></th><th class="number">threshold</th>
<th class="number">gain, 95% interval</th><th>what it says</th></tr>
{% for rule in verdict.rules %}
<tr><td class="{{ 'passed' if rule.passed else 'failed' }}">{{ "passed" if rule.passed else "FAILED" }}</td>
<td class="name">{{ rule.name }}</td>
<td class="number">{{ number(rule.value) }}</td><td>{{ rule.comparison or "" }}</td>
<td class="number">{{ number(rule.threshold) }}</td>
<td class="number quiet">
{% if rule.range %}{{ "%.4f to %.4f"|format(rule.range.low, rule.range.high) }}{% endif %}</td>
<td>{{ rule.detail }}</td></tr>
{% endfor %}
</table>
{% endmacro %}

{% macro slices(verdict) %}
{% set looked_at = headline(verdict.target) %}
<table>
<tr><th>slice</th><th class="number">rows</th>
{% if verdict.candidate.positives is not none %}
<th class="number">{{ rarest(verdict.target) }}</th>{% endif %}
{% for figure in looked_at %}<th class="number">{{ titled(verdict.target, figure) }}</th>
<th class="number">{{ usual(verdict.target) }}'s</th>{% endfor %}</tr>
{% for part in verdict.slices %}
<tr><td class="name">{{ part.name }}</td><td class="number">{{ "{:,}".format(part.candidate.rows) }}</td>
{% if verdict.candidate.positives is not none %}
<td class="number">{{ "{:,}".format(part.candidate.positives) }}</td>{% endif %}
{% for figure in looked_at %}<td class="number">{{ shown(part.candidate, figure.name) }}</td>
<td class="number quiet">{{ shown(part.baseline, figure.name) }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endmacro %}

{% macro calibration(verdict) %}
{% if verdict.reliability %}
{{ reliability_svg(verdict) }}
{% if "calibration_error" in verdict.candidate.figures() %}
<p class="quiet">Expected calibration error {{ shown(verdict.candidate, "calibration_error") }}: the mean
distance of observed rate and mean prediction over {{ verdict.reliability|length }} bins of equally many rows
(Naeini et al. 2015; equal bins as in Nixon et al. 2019). Intervals are Wilson's, of each bin by itself.
{% if verdict.target.kind == "multiclass" %}Of the class chosen in each row.{% endif %}</p>
{% else %}
<p class="quiet">Mean label over mean prediction, in {{ verdict.reliability|length }} bins of equally many
rows, with the 95% interval of each bin's mean by itself.</p>
{% endif %}
<details><summary>The bins</summary>
<table>
<tr><th class="number">rows</th><th class="number">mean prediction</th><th class="number">observed rate</th>
<th class="number">95% interval</th></tr>
{% for part in verdict.reliability %}
<tr><td class="number">{{ "{:,}".format(part.rows) }}</td>
<td class="number">{{ "%.4f"|format(part.mean_prediction) }}</td>
<td class="number">{{ "%.4f"|format(part.observed_rate) }}</td>
<td class="number">{{ "%.4f to %.4f"|format(part.low, part.high) }}</td></tr>
{% endfor %}
</table></details>
{% elif "coverage_error" in verdict.candidate.figures() %}
<p class="quiet">Coverage error {{ shown(verdict.candidate, "coverage_error") }}: how far the share of labels
at or below each quantile is from its level, on average.</p>
{% else %}
<p>Not measured: a prediction is no number, or there are no test rows.</p>
{% endif %}
{% endmacro %}

{% macro serving_cost(cost) %}
{% if cost %}
<table>
<tr><th>asked with</th><th class="number">median, ms</th><th class="number">99%, ms</th></tr>
<tr><td>one row</td><td class="number">{{ "%.2f"|format(cost.single_row_p50_milliseconds) }}</td>
<td class="number">{{ "%.2f"|format(cost.single_row_p99_milliseconds) }}</td></tr>
<tr><td>{{ cost.batch_rows }} rows</td>
<td class="number">{{ "%.2f"|format(cost.batch_p50_milliseconds) }}</td>
<td class="number">{{ "%.2f"|format(cost.batch_p99_milliseconds) }}</td></tr>
</table>
<p class="quiet">{{ "%.1f"|format(cost.mebibytes) }} MiB as a SavedModel. {{ cost.calls }} calls each, one
after another, through the serving signature, on the machine that evaluated it: without network, server and
features.</p>
{% else %}
<p>Not measured.</p>
{% endif %}
{% endmacro %}
"""


def render(page: str, **context: Any) -> str:
    """`page`, a Jinja template that imports the macros as `{% import "parts" as parts %}`, with `context`."""
    environment = Environment(
        loader=DictLoader({"parts": _PARTS}), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals.update(
        headline=headline,
        titled=titled,
        usual=lambda target: USUAL[target.kind],
        rarest=rarest,
        models=models,
        comparisons=_comparisons,
        outcome=outcome,
        shown=shown,
        number=number,
        reliability_svg=_reliability_svg,
    )
    return environment.from_string(page).render(**context).lstrip()


def outcome(verdict: Verdict) -> str:
    """In one word: accepted, rejected, or overridden."""
    if verdict.override is not None:
        return "overridden"
    return "accepted" if verdict.accepted else "rejected"


def models(verdict: Verdict) -> list[tuple[str, Measures | None]]:
    """The measured models by the names that are shown, the candidate first."""
    found: list[tuple[str, Measures | None]] = [
        ("candidate", verdict.candidate),
        ("baseline", verdict.baseline),
    ]
    if verdict.champion is not None:
        found.append((f"champion (version {verdict.champion.version})", verdict.champion.measures))
    return found


def shown(measures: Measures | None, figure: str) -> str:
    """One figure with four digits."""
    value = None if measures is None else measures.figures().get(figure)
    return "n/a" if value is None else f"{value:.4f}"


def number(value: float | None) -> str:
    """A value or threshold of a rule."""
    return "n/a" if value is None else f"{value:,.0f}" if value == round(value) else f"{value:.4f}"


def headline(target: Target) -> tuple[Figure, ...]:
    """The figure that ranks models and the loss, each once."""
    return tuple(dict.fromkeys((target.figures[0], target.loss)))


def titled(target: Target, figure: Figure) -> str:
    """A figure's name, with the label's unit where it has that."""
    unit = getattr(target, "unit", "")
    return f"{figure.words} ({unit})" if figure.in_unit and unit else figure.words


def rarest(target: Target) -> str:
    """What `Measures.positives` counts."""
    return "positive" if target.kind == "binary" else "of the rarest class"


def _comparisons(verdict: Verdict) -> list[tuple[str, str, Any]]:
    return [
        (name, f"{figure.words} {'gained' if figure.higher_is_better else 'saved'}", found)
        for name, _ in models(verdict)[1:]
        for figure in headline(verdict.target)
        if (found := verdict.ranges.get(f"{figure.gain}_{name.split(' ')[0]}")) is not None
    ]


def _reliability_svg(verdict: Verdict) -> Markup:
    return Markup(reliability_plot(verdict.reliability, verdict.target))  # noqa: S704 - a picture of our own, whose texts its maker escapes
