"""The verdict as one page that a person reads: it needs no script, no other file and no internet.

Belongs here: how a verdict is shown. Does not belong here: what it says (`airloop.verdict`).
"""

from __future__ import annotations

from typing import Final

from airloop.training.page_parts import render
from airloop.verdict import Verdict

_PAGE: Final = """
{% import "parts" as parts with context %}
{{ parts.head(verdict.use_case ~ ": " ~ outcome(verdict)) }}
<h1>{{ verdict.use_case }} {{ parts.badge(verdict) }}</h1>
<p class="quiet">MLflow run {{ verdict.run_id }}, training set {{ verdict.training_set.tag }}
(snapshot {{ verdict.training_set.snapshot_id }} of {{ verdict.training_set.table }}),
{{ "{:,}".format(verdict.training_set.train_rows) }} rows to train,
{{ "{:,}".format(verdict.candidate.rows) }} to test{% if verdict.candidate.positives is not none %}, of which
{{ "{:,}".format(verdict.candidate.positives) }} {{ rarest(verdict.target) }}{% endif %}.
{% if card %}What the model is for, learnt from and pays attention to: its
<a href="{{ card }}">model card</a>.{% endif %}</p>
{{ parts.override(verdict) }}
{{ parts.reasons(verdict) }}
<h2>Figures on the test rows</h2>
{{ parts.figures(verdict) }}
<h3>Differences, and how far they may be chance</h3>
{{ parts.differences(verdict) }}
<h2>Rules</h2>
{{ parts.rules(verdict) }}
{% if verdict.slices %}
<h2>Slices</h2>
{{ parts.slices(verdict) }}
{% endif %}
<h2>Calibration</h2>
{{ parts.calibration(verdict) }}
<h2>Latency and size</h2>
{{ parts.serving_cost(verdict.serving_cost) }}
</html>
"""


def page_of(verdict: Verdict, card: str = "") -> str:
    """`verdict` as HTML, with a link to the model card at `card`, a relative path, if there is one."""
    return render(_PAGE, verdict=verdict, card=card)
