"""The model card: one page that says what a model is for, what it learnt from, how good it is, and where not.

Belongs here: the card's facts that no verdict has, and how a card is shown. Does not belong here: measuring.
The sections follow Mitchell et al., Model Cards for Model Reporting (FAT* 2019). The page needs no script, no
other file and no internet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final, Literal, NamedTuple

import pyarrow.compute as pc
from markupsafe import Markup

from airloop.errors import HistoryError
from airloop.references import TrainingSet
from airloop.settings import Settings
from airloop.training.examples import PREDICTION_TIME, Split, scan_split
from airloop.training.importance import Importance
from airloop.training.page_parts import render
from airloop.training.plots import importance_plot, slice_importance_plot
from airloop.use_cases.spec import UseCase
from airloop.verdict import Part, Rule, SliceMeasures, Verdict

CARD: Final = "model_card.html"
FACTS: Final = "model_card.json"
"""Artifact of a run: what a card is made from, beside the verdict."""
WEAKEST: Final = 5
"""Slices that a card names as the weakest ones."""
_SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")
_SHOWN_TAGS: Final = "airloop."
_VERDICT_TAGS: Final = ("airloop.verdict", "airloop.rejected_for", "airloop.override")


class Window(Part):
    """One split of the training set."""

    split: Literal["train", "validation", "test"]
    first: str
    """The first prediction time in it, ISO 8601."""
    last: str
    rows: int
    positives: int | None = None
    """Of a label that is 1 or 0."""
    label_mean: float | None = None
    """Of a label that is a number."""

    @property
    def usual(self) -> str:
        """The share of positive rows, or the mean label; nothing of a label with several classes."""
        if self.positives is not None:
            return f"{self.positives / self.rows:.1%}"
        return "" if self.label_mean is None else f"{self.label_mean:.4g}"


class CardFacts(Part):
    """What a card says beyond the spec and the verdict. A card can be made again from the three."""

    windows: tuple[Window, ...]
    importance: Importance | None
    tags: Mapping[str, str]
    """Of the run: what leads to its data and code."""
    params: Mapping[str, str]


class WeakSlice(NamedTuple):
    """A slice that was judged."""

    part: SliceMeasures
    gain: float
    """Loss saved, against the baseline."""


def windows(settings: Settings, spec: UseCase, training_set: TrainingSet) -> Iterator[Window]:
    """The splits as the pinned snapshot has them; one that cannot be read or is empty is left out."""
    kind = spec.label.target.kind
    named = kind == "multiclass"
    for split in _SPLITS:
        rows, total = 0, 0.0
        ends = []
        try:
            for batch in scan_split(settings, training_set, (PREDICTION_TIME, spec.label.name), split):
                if batch.num_rows:
                    rows += batch.num_rows
                    total += 0.0 if named else float(pc.sum(batch[spec.label.name]).as_py() or 0)
                    ends += list(pc.min_max(batch[PREDICTION_TIME]).as_py().values())
        except HistoryError:
            continue
        if rows:
            first, last = (end.isoformat(timespec="minutes") for end in (min(ends), max(ends)))
            known = {"positives": round(total)} if kind == "binary" else {"label_mean": total / rows}
            yield Window(split=split, first=first, last=last, rows=rows, **({} if named else known))


def lineage_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Of a run's tags those that lead to its data and code."""
    return {
        name: value
        for name, value in sorted(tags.items())
        if name.startswith(_SHOWN_TAGS) and not name.startswith(_VERDICT_TAGS)
    }


def card_of(spec: UseCase, verdict: Verdict, facts: CardFacts) -> str:
    """The card as HTML."""
    found, scale = facts.importance, spec.label.target.scale
    return render(
        _PAGE,
        spec=spec,
        verdict=verdict,
        facts=facts,
        duration=_duration,
        scale=scale,
        weakest=weakest_slices(verdict),
        not_judged=_not_judged(verdict),
        behaviours=_behaviours(spec, verdict),
        leak=next((rule for rule in verdict.rules if rule.name.startswith("single_input_")), None),
        importance_svg=Markup(importance_plot(found.importance, scale)) if found else "",  # noqa: S704 - a picture of our own, whose texts its maker escapes
        slices_svg=Markup(slice_importance_plot(found.importance, found.slices))  # noqa: S704 - a picture of our own, whose texts its maker escapes
        if found and found.slices
        else "",
    )


def weakest_slices(verdict: Verdict) -> list[WeakSlice]:
    """The `WEAKEST` judged slices in which the candidate gains least over the baseline, the worst first."""
    loss = verdict.target.loss.name
    judged = {rule.slice for rule in verdict.rules if rule.slice is not None}
    found = []
    for part in verdict.slices:
        if part.name not in judged or part.baseline is None:
            continue
        theirs, ours = (m.figures()[loss] for m in (part.baseline, part.candidate))
        if theirs is not None and ours is not None:
            found.append(WeakSlice(part, theirs - ours))
    return sorted(found, key=lambda weak: weak.gain)[:WEAKEST]


def _duration(span: timedelta) -> str:
    """In hours, or in days from two days on."""
    days, hours = span / timedelta(days=1), span / timedelta(hours=1)
    return f"{days:g} days" if days >= 2 else "1 hour" if hours == 1 else f"{hours:g} hours"


def _not_judged(verdict: Verdict) -> list[str]:
    judged = {rule.slice for rule in verdict.rules}
    return [part.name for part in verdict.slices if part.name not in judged]


def _behaviours(spec: UseCase, verdict: Verdict) -> list[tuple[str, str, str, Rule]]:
    """Each behaviour of the spec that has a rule: its name, what is changed, what must follow, the rule."""
    rules = {rule.name: rule for rule in verdict.rules}
    return [
        (
            wanted.name,
            ", ".join(f"{name} {change:+g}" for name, change in wanted.changes.items()),
            wanted.effect,
            rules[f"behaviour_{wanted.name}"],
        )
        for wanted in spec.gates.behaviours
        if f"behaviour_{wanted.name}" in rules
    ]


_PAGE: Final = """
{% import "parts" as parts with context %}
{{ parts.head("Model card: " ~ spec.name) }}
<h1>Model card: {{ spec.name }} {{ parts.badge(verdict) }}</h1>
<p class="quiet">MLflow run {{ verdict.run_id }}, owner {{ spec.owner }}, as of
{{ verdict.training_set.as_of }}</p>
{{ parts.override(verdict) }}

<h2>Purpose</h2>
<p>{{ spec.description }}</p>
<p>{{ spec.intended_use or "The spec does not say who decides what with it (intended_use)." }}</p>
<p>Predicted: <strong>{{ spec.label.name }}</strong>, {{ spec.label.description }}. A prediction is asked
{{ duration(spec.prediction_lead) }} before <code>{{ spec.event_field }}</code>, and its label is known
{{ duration(spec.label.matures_after) }} after it was asked.
{% if spec.label.outcome %}
Learned beside it, and not served: on which side of
{{ spec.label.outcome.thresholds | map("string") | join(", ") }} {{ spec.label.outcome.name }} lies
({{ spec.label.outcome.description }}).
{% endif %}</p>
<h3>Not for</h3>
{% if spec.not_for %}
<ul>{% for item in spec.not_for %}<li>{{ item }}</li>{% endfor %}</ul>
{% else %}
<p>The spec names nothing (not_for). That does not make every use a good one.</p>
{% endif %}

<h2>How good it is</h2>
{{ parts.figures(verdict) }}
<h3>Differences, and how far they may be chance</h3>
{{ parts.differences(verdict) }}
{% if not verdict.champion %}
<p class="quiet">There was no champion to compare with.</p>
{% endif %}
<h3>Calibration</h3>
{{ parts.calibration(verdict) }}

<h2>Limits</h2>
{% if spec.limits %}
<ul>{% for item in spec.limits %}<li>{{ item }}</li>{% endfor %}</ul>
{% else %}
<p>The spec names none (limits). Nobody wrote them down yet; there are always some.</p>
{% endif %}
{% if weakest %}
<h3>Where it is weakest</h3>
<p>The slices of the test rows in which it gains least over the baseline, of those with enough rows to
judge:</p>
{% set loss = verdict.target.loss %}
{% set ranks = verdict.target.figures[0] %}
<table>
<tr><th>slice</th><th class="number">rows</th><th class="number">{{ titled(verdict.target, loss) }}</th>
<th class="number">{{ usual(verdict.target) }}'s</th><th class="number">saved</th>
{% if ranks.name != loss.name %}<th class="number">{{ titled(verdict.target, ranks) }}</th>{% endif %}</tr>
{% for weak in weakest %}
<tr><td class="name">{{ weak.part.name }}</td>
<td class="number">{{ "{:,}".format(weak.part.candidate.rows) }}</td>
<td class="number">{{ shown(weak.part.candidate, loss.name) }}</td>
<td class="number quiet">{{ shown(weak.part.baseline, loss.name) }}</td>
<td class="number {{ 'failed' if weak.gain <= 0 }}">{{ "%+.4f"|format(weak.gain) }}</td>
{% if ranks.name != loss.name %}
<td class="number">{{ shown(weak.part.candidate, ranks.name) }}</td>{% endif %}</tr>
{% endfor %}
</table>
{% endif %}
{% if not_judged %}
<p>Nothing is known of how good it is for these, which had too few rows
{{- " of one class" if verdict.candidate.positives is not none }}:
{{ not_judged|join(", ") }}.</p>
{% endif %}

<h2>What it learnt from</h2>
<table>
<tr><th>split</th><th>first prediction</th><th>last prediction</th><th class="number">rows</th>
{% set kind = verdict.target.kind %}
{% if kind == "binary" %}<th class="number">positive</th><th class="number">base rate</th>
{% elif kind != "multiclass" %}<th class="number">mean, {{ verdict.target.unit }}</th>{% endif %}</tr>
{% for window in facts.windows %}
<tr><td>{{ window.split }}</td><td>{{ window.first }}</td><td>{{ window.last }}</td>
<td class="number">{{ "{:,}".format(window.rows) }}</td>
{% if window.positives is not none %}<td class="number">{{ "{:,}".format(window.positives) }}</td>{% endif %}
{% if window.usual %}<td class="number">{{ window.usual }}</td>{% endif %}</tr>
{% else %}
<tr><td colspan="6">The training set could not be read when the card was made.</td></tr>
{% endfor %}
</table>
<p>Training set <code>{{ verdict.training_set.tag }}</code>, snapshot
<code>{{ verdict.training_set.snapshot_id }}</code> of <code>{{ verdict.training_set.table }}</code>;
features by the feature service
<code>{{ spec.feature_service or "none" }}</code>; {{ spec.inputs|length }} inputs.</p>

<h2>What it pays attention to</h2>
{% if facts.importance %}
{{ importance_svg }}
<p class="quiet">SHAP: the mean size of each input's contribution to the {{ scale }} of
{{ facts.importance.rows }} test rows, against {{ facts.importance.background_rows }} others as what is usual
(permutations of the inputs, each way: {{ facts.importance.permutations }}; the usual {{ scale }}:
{{ "%.3f"|format(facts.importance.base) }}). {% if scale == "log-odds" %}A contribution of 0.7 doubles
the odds. {% endif %}Importance is no cause: inputs that go together share it.</p>
{% if slices_svg %}
<h3>By slice</h3>
{{ slices_svg }}
<p class="quiet">The same by slice, with the number of explained rows; slices with very few are left out.</p>
{% endif %}
{% else %}
<p>Not explained.</p>
{% endif %}

<h2>How it behaves</h2>
{% if behaviours %}
<table>
<tr><th></th><th>behaviour</th><th>when this is changed</th><th>the
{{ "probability" if verdict.target.kind == "binary" else "answer" }}</th><th>found</th></tr>
{% for name, changes, effect, rule in behaviours %}
<tr><td class="{{ 'passed' if rule.passed else 'failed' }}">{{ "passed" if rule.passed else "FAILED" }}</td>
<td class="name">{{ name }}</td><td>{{ changes }}</td><td>{{ effect }}</td><td>{{ rule.detail }}</td></tr>
{% endfor %}
</table>
<p class="quiet">Times are changed in hours.</p>
{% else %}
<p>The spec names no behaviour that is known beforehand.</p>
{% endif %}
{% if leak %}<p>Leakage probe: {{ leak.detail }}; allowed {{ number(leak.threshold) }}.</p>{% endif %}

<h2>Slices</h2>
{% if verdict.slices %}{{ parts.slices(verdict) }}{% else %}<p>The spec names no slices.</p>{% endif %}

<h2>Latency and size</h2>
{{ parts.serving_cost(verdict.serving_cost) }}

<h2>Lineage</h2>
<table>
<tr><td>MLflow run</td><td><code>{{ verdict.run_id }}</code></td></tr>
<tr><td>training set</td><td><code>{{ verdict.training_set.tag }}</code></td></tr>
<tr><td>feature service</td><td><code>{{ spec.feature_service or "none" }}</code></td></tr>
{% for source in verdict.training_set.sources %}
<tr><td>source {{ source.table }}</td><td>snapshot <code>{{ source.snapshot_id }}</code></td></tr>
{% endfor %}
{% for name, value in facts.tags.items() if not name.startswith("airloop.source.") %}
<tr><td>{{ name }}</td><td class="name"><code>{{ value }}</code></td></tr>
{% endfor %}
</table>
<details><summary>Parameters</summary>
<table>
{% for name, value in facts.params.items() %}
<tr><td>{{ name }}</td><td><code>{{ value }}</code></td></tr>
{% endfor %}
</table></details>

<h2>Verdict</h2>
{{ parts.reasons(verdict) }}
{{ parts.rules(verdict) }}
</html>
"""
