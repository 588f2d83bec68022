"""The result of an A/B test: how the units were split, and what the two versions' difference is.

Belongs here: the statistics, pure functions of the prediction log. Does not belong here: running the
experiment (`serving.experiment`).

The unit of analysis is what was drawn (`Rollout.sticky_by`), not the request: requests of one unit are not
independent, so each unit counts once, with its mean. The horizon is fixed before, so a fixed-sample interval
is right at its end, and only there.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from airloop.prediction_log import variants
from airloop.references import ExperimentMeasure, ExperimentResult
from airloop.row_losses import log_losses

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


class _Arm(NamedTuple):
    """One value for each unit, by measure; NaN where it is not known."""

    log_loss: np.ndarray
    brier: np.ndarray
    prediction: np.ndarray
    label: np.ndarray


def result_of(rows: pa.Table, *, name: str, version: int, champion: int, share: float) -> ExperimentResult:
    """The result of the experiment `name` from its attempts (`serving.observations`), units and labels.

    A treatment that failed and was answered by the champion counts as treated, with the answer that the
    client got: what is compared is what clients were given.
    """
    arms = {arm: _arm(rows, arm) for arm in (variants.CONTROL, variants.TREATMENT)}
    control, treatment = arms[variants.CONTROL], arms[variants.TREATMENT]
    units = (len(control.prediction), len(treatment.prediction))
    p_value = sample_ratio_p_value(units[0], units[1], share)
    measures = tuple(
        difference(measure, getattr(control, measure), getattr(treatment, measure))
        for measure in _Arm._fields
    )
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


def _arm(rows: pa.Table, arm: str) -> _Arm:
    """Each unit of the arm once, with the means of what its clients were answered."""
    given = pc.and_(pc.is_in(rows["variant"], _ARMS[arm]), pc.is_null(rows["error"]))
    answered = rows.filter(given)
    predictions = answered["probability"].to_numpy().astype(np.float64)
    labels = answered["label"].to_numpy().astype(np.float64)
    known = np.isfinite(labels)
    losses = np.full(len(labels), math.nan)
    losses[known] = log_losses(labels[known], predictions[known])
    values = pa.table(
        {
            "unit": answered["unit"].combine_chunks(),
            "log_loss": pa.array(losses, from_pandas=True),
            "brier": pa.array((predictions - labels) ** 2, from_pandas=True),
            "prediction": predictions,
            "label": pa.array(labels, from_pandas=True),
        }
    )
    means = values.group_by("unit").aggregate([(name, "mean") for name in _Arm._fields])
    return _Arm(*(means[f"{name}_mean"].to_numpy().astype(np.float64) for name in _Arm._fields))
