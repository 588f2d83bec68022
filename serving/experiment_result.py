"""The result of an A/B test: how the units were split, and what the two versions' difference is.

Belongs here: the statistics, pure functions of the prediction log. Does not belong here: running the
experiment (`serving.experiment`).

The unit of analysis is what was drawn (`Rollout.sticky_by`), not the request: requests of one unit are not
independent, so each unit counts once, with its mean. The horizon is fixed before, so a fixed-sample interval
is right at its end, and only there.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from airloop.prediction_log import variants
from airloop.prediction_log.answers import one_number
from airloop.references import ExperimentMeasure, ExperimentResult
from airloop.row_losses import row_losses
from airloop.use_cases.target import Target
from serving.observations import Observed, answers_in

CONFIDENCE: Final = 0.95
MISMATCH: Final = 0.001
"""Below this the split is not as it was drawn, something lost units of one version, and no result is to be
trusted (Fabijan et al., Diagnosing Sample Ratio Mismatch in Online Controlled Experiments, KDD 2019)."""
_NONE: Final = ExperimentMeasure(
    name="",
    control=None,
    treatment=None,
    effect=None,
    low=None,
    high=None,
    control_units=0,
    treatment_units=0,
)
_ARMS: Final = {
    variants.CONTROL: pa.array([variants.CONTROL]),
    # Only a treatment falls back, and one that keeps failing is not even tried.
    variants.TREATMENT: pa.array([variants.TREATMENT, variants.FALLBACK]),
}


_Arm = dict[str, np.ndarray]
"""By measure, one value for each unit; NaN where it is not known."""


def result_of(
    observed: Observed, *, name: str, version: int, champion: int, share: float
) -> ExperimentResult:
    """The result of the experiment `name` from its attempts, units and labels.

    A treatment that failed and was answered by the champion counts as treated, with the answer that the
    client got: what is compared is what clients were given.
    """
    arms = {arm: _arm(observed, arm) for arm in (variants.CONTROL, variants.TREATMENT)}
    control, treatment = arms[variants.CONTROL], arms[variants.TREATMENT]
    units = tuple(len(next(iter(arm.values()))) for arm in (control, treatment))
    p_value = sample_ratio_p_value(units[0], units[1], share)
    measures = tuple(difference(measure, control[measure], treatment[measure]) for measure in control)
    return ExperimentResult(
        name=name,
        champion=champion,
        version=version,
        share=share,
        control_units=units[0],
        treatment_units=units[1],
        sample_ratio_p_value=p_value,
        sample_ratio_mismatch=p_value is not None and p_value < MISMATCH,
        measures=measures,
    )


def sample_ratio_p_value(control: int, treatment: int, share: float) -> float | None:
    """How likely so uneven a split is by chance: the chi-squared test against `share` of the treatment."""
    total = control + treatment
    if not total:
        return None
    return float(stats.chisquare([control, treatment], [total * (1 - share), total * share]).pvalue)


def difference(name: str, control: np.ndarray, treatment: np.ndarray) -> ExperimentMeasure:
    """Treatment's mean less control's, with Welch's interval; without one below two units of either."""
    a, b = control[np.isfinite(control)], treatment[np.isfinite(treatment)]
    counts = {"name": name, "control_units": len(a), "treatment_units": len(b)}
    if min(len(a), len(b)) < 2:
        return _NONE.model_copy(update=counts)
    means = {"control": float(a.mean()), "treatment": float(b.mean()), "effect": float(b.mean() - a.mean())}
    if a.var() + b.var() == 0:
        return _NONE.model_copy(update={**counts, **means, "low": means["effect"], "high": means["effect"]})
    found = stats.ttest_ind(b, a, equal_var=False).confidence_interval(CONFIDENCE)
    return _NONE.model_copy(update={**counts, **means, "low": float(found.low), "high": float(found.high)})


def _arm(observed: Observed, arm: str) -> _Arm:
    """Each unit of the arm once, with the means of what its clients were answered."""
    rows, target = observed.rows, observed.target
    answered = rows.filter(pc.and_(pc.is_in(rows["variant"], _ARMS[arm]), pc.is_null(rows["error"])))
    labels = answered["label"].to_numpy().astype(np.float64)
    measures = _measures(target, labels, answers_in(target, answered))
    values = pa.table(
        {
            "unit": answered["unit"].combine_chunks(),
            **{name: pa.array(values, from_pandas=True) for name, values in measures.items()},
        }
    )
    means = values.group_by("unit").aggregate([(name, "mean") for name in measures])
    return {name: means[f"{name}_mean"].to_numpy().astype(np.float64) for name in measures}


def _measures(target: Target, labels: np.ndarray, answers: np.ndarray) -> dict[str, np.ndarray]:
    """What is compared, the loss first, by answer, [answers]; NaN where the label is not known."""
    known = np.isfinite(labels)
    losses = np.full(len(labels), math.nan)
    losses[known] = row_losses(target, labels[known], answers[known])
    found = {target.loss.name: losses}
    if target.kind == "binary":
        found["brier"] = (answers - labels) ** 2
    if target.kind != "multiclass":
        found |= {"prediction": one_number(target, answers), "label": labels}
    return found
