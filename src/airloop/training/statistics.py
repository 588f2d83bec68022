"""What a model needs to know of its training data beforehand: vocabularies, centres, spreads and quantiles.

Belongs here: statistics of the train split alone; validation and test rows never enter. Does not belong
here: TensorFlow, or what a model makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from airloop.errors import HistoryError
from airloop.training.staging import Staged
from airloop.use_cases.spec import UseCase
from airloop.use_cases.target import Target

SECONDS_PER_HOUR: Final = 3600
RARE_BELOW: Final = 20
"""Words seen less often share the embedding of unknown words, which is trained on them."""
CLIPPED_SHARE: Final = 0.001
"""Share of the values at either end that counts as out of range (one wind speed is 1048 mph)."""
QUANTILE_ROWS: Final = 1 << 20


@dataclass(frozen=True)
class Number:
    """One numeric quantity over the rows in which it is present; all zeros and ones where it never is."""

    low: float
    """Values below are taken as this."""
    high: float
    """Values above are taken as this."""
    mean: float
    deviation: float
    """Standard deviation after clipping; 1 for a constant."""
    edges: tuple[float, ...]
    """Strictly increasing quantiles from `low` to `high`, at least two."""


@dataclass(frozen=True)
class Statistics:
    """Statistics of the train split."""

    rows: int
    label_mean: float
    """Of a label that is 1 or 0 its base rate."""
    priors: tuple[float, ...]
    """What a network's numbers about the label begin at: logits of the base rates, or in `label_scale` from
    `label_centre`."""
    vocabularies: Mapping[str, tuple[str, ...]]
    """By string input: its words, frequent ones first, rare ones left out."""
    numbers: Mapping[str, Number]
    """By double input and by elapsed time in hours."""
    outcome_rates: tuple[float, ...] = ()
    """The share of rows whose outcome is above each of the spec's thresholds, never quite 0 or 1."""

    label_centre: float = 0.0
    """The mean of a label that is a number."""
    label_scale: float = 1.0
    """Its standard deviation."""

    @property
    def every_prior(self) -> tuple[float, ...]:
        """What a network's numbers begin at: those about the label, and logits of the outcome rates."""
        return (*self.priors, *(_logit(rate) for rate in self.outcome_rates))


def compute(use_case: UseCase, staged: Staged, *, bins: int) -> Statistics:
    """The statistics of the staged train split.

    Words are counted over all rows; ranges and quantiles are those of at most `QUANTILE_ROWS` rows, evenly
    spaced in time, which bounds the memory (the standard error of a median is then 0.05% of the rows).
    Raises `HistoryError` when there are no rows, a class has none, or all labels are one number.
    """
    rows = len(staged)
    label = _label(use_case.label.target, staged.labels)
    sample = staged.spread(QUANTILE_ROWS)
    columns = {item.name: staged.columns[item.name] for item in use_case.inputs if item.type != "string"}
    quantities = {item.name: columns[item.name][sample] for item in use_case.inputs if item.type == "double"}
    for span in use_case.elapsed:
        quantities[span.name] = elapsed_hours(columns[span.since][sample], columns[span.until][sample])
    return Statistics(
        rows=rows,
        label_mean=label.mean,
        priors=label.priors,
        label_centre=label.centre,
        label_scale=label.scale,
        vocabularies={
            name: _vocabulary(words, np.bincount(staged.columns[name], minlength=len(words)))
            for name, words in staged.words.items()
        },
        numbers={name: _number(values, bins) for name, values in quantities.items()},
        outcome_rates=_outcome_rates(use_case, staged),
    )


class _Label(NamedTuple):
    mean: float
    priors: tuple[float, ...]
    centre: float = 0.0
    scale: float = 1.0


def _label(target: Target, labels: np.ndarray) -> _Label:
    """Raises `HistoryError` where there is nothing to tell apart."""
    rows, mean = len(labels), float(labels.mean()) if len(labels) else float("nan")
    if target.kind == "binary":
        if 0.0 < mean < 1.0:
            return _Label(mean, (_logit(mean),))
        expected, found = "rows of both classes", f"{rows} rows, of which {int(labels.sum())} positive"
    elif target.kind == "multiclass":
        counts = np.bincount(labels, minlength=len(target.classes))
        if counts.all():
            return _Label(mean, tuple(float(found) for found in np.log(counts / rows)))
        absent = [name for name, count in zip(target.classes, counts, strict=True) if not count]
        expected, found = "rows of every class", f"none of {', '.join(absent)} among {rows}"
    else:
        scale = float(labels.astype(np.float64).std()) if rows else 0.0
        if scale > 0:
            levels = target.levels if target.kind == "quantiles" else ()
            standard = (np.quantile(labels, levels) - mean) / scale if levels else [0.0]
            return _Label(mean, tuple(float(found) for found in standard), mean, scale)
        expected, found = "labels that differ", f"{rows} rows with one value"
    raise HistoryError(
        expected=f"{expected} in the train split",
        found=found,
        next_step="build a training set over a longer window",
    )


def elapsed_hours(since: np.ndarray, until: np.ndarray) -> np.ndarray:
    """Hours between two vectors of epoch seconds; NaN where either is 0, which means missing."""
    hours = (until - since) / SECONDS_PER_HOUR
    return np.where((since == 0) | (until == 0), np.nan, hours)


def _logit(rate: float) -> float:
    return math.log(rate / (1 - rate))


def _outcome_rates(use_case: UseCase, staged: Staged) -> tuple[float, ...]:
    if staged.outcomes is None:
        return ()
    above = (int(np.count_nonzero(staged.outcomes > cut)) for cut in use_case.label.thresholds)
    # Laplace's rule: few rows may all lie on one side.
    return tuple((count + 1) / (len(staged) + 2) for count in above)


def _vocabulary(found: np.ndarray, counts: np.ndarray) -> tuple[str, ...]:
    order = np.argsort(-counts, kind="stable")
    frequent = [str(found[i]) for i in order if counts[i] >= RARE_BELOW]
    return tuple(frequent or [str(found[order[0]])])


def _number(values: np.ndarray, bins: int) -> Number:
    present = values[np.isfinite(values)].astype(np.float64)
    if not len(present):
        return Number(low=0.0, high=1.0, mean=0.0, deviation=1.0, edges=(0.0, 1.0))
    low, high = (float(q) for q in np.quantile(present, [CLIPPED_SHARE, 1 - CLIPPED_SHARE], method="nearest"))
    clipped = np.clip(present, low, high)
    deviation = float(clipped.std())
    edges = np.unique(np.quantile(clipped, np.linspace(0, 1, bins + 1)))
    if len(edges) < 2 or deviation == 0:
        return Number(low=low, high=high, mean=low, deviation=1.0, edges=(low, low + 1.0))
    return Number(
        low=low,
        high=high,
        mean=float(clipped.mean()),
        deviation=deviation,
        edges=tuple(float(edge) for edge in edges),
    )
