"""What a model needs to know of its training data beforehand: vocabularies, centres, spreads and quantiles.

Belongs here: statistics of the train split alone; validation and test rows never enter. Does not belong
here: TensorFlow, or what a model makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from airloop.errors import HistoryError
from airloop.training.staging import Staged
from airloop.use_cases.spec import UseCase

SECONDS_PER_HOUR: Final = 3600
SECONDS_PER_DAY: Final = 86400
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
    base_rate: float
    vocabularies: Mapping[str, tuple[str, ...]]
    """By string input: its words, frequent ones first, rare ones left out."""
    numbers: Mapping[str, Number]
    """By double input and by elapsed time in hours."""
    outcome_rates: tuple[float, ...] = ()
    """The share of rows whose outcome is above each of the spec's thresholds, never quite 0 or 1."""

    @property
    def prior_logit(self) -> float:
        """The logit of the base rate."""
        return _logit(self.base_rate)

    @property
    def prior_logits(self) -> tuple[float, ...]:
        """The logits of the base rate and of the outcome rates: one for each target of a network."""
        return (self.prior_logit, *(_logit(rate) for rate in self.outcome_rates))


def compute(use_case: UseCase, staged: Staged, *, bins: int) -> Statistics:
    """The statistics of the staged train split.

    Words are counted over all rows; ranges and quantiles are those of at most `QUANTILE_ROWS` rows, evenly
    spaced in time, which bounds the memory (the standard error of a median is then 0.05% of the rows).
    Raises `HistoryError` when there are no rows, or only one class.
    """
    rows = len(staged)
    base_rate = float(staged.labels.mean()) if rows else float("nan")
    if not 0.0 < base_rate < 1.0:
        raise HistoryError(
            expected="rows of both classes in the train split",
            found=f"{rows} rows, of which {int(staged.labels.sum())} positive",
            next_step="build a training set over a longer window",
        )
    sample = staged.spread(QUANTILE_ROWS)
    columns = {item.name: staged.columns[item.name] for item in use_case.inputs if item.type != "string"}
    quantities = {item.name: columns[item.name][sample] for item in use_case.inputs if item.type == "double"}
    for span in use_case.elapsed:
        quantities[span.name] = elapsed_hours(columns[span.since][sample], columns[span.until][sample])
    return Statistics(
        rows=rows,
        base_rate=base_rate,
        vocabularies={
            name: _vocabulary(words, np.bincount(staged.columns[name], minlength=len(words)))
            for name, words in staged.words.items()
        },
        numbers={name: _number(values, bins) for name, values in quantities.items()},
        outcome_rates=_outcome_rates(use_case, staged),
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
