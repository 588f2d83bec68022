"""The simplest prediction worth beating: how often it happened before, by a few columns.

Belongs here: the base-rate baseline of `Gates.baseline`. Does not belong here: anything that is fitted by
gradient descent, or the rule that it must be beaten (`airloop.verdict`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

SMOOTHING_ROWS: Final = 20.0
"""A group counts as if it also had this many rows at the overall rate, so that small groups do not shout."""
_HOUR: Final = "_hour"
_SEPARATOR: Final = "\x1f"


@dataclass(frozen=True)
class BaseRates:
    """Smoothed share of positives by group; a group that was not seen has the overall share."""

    by: tuple[str, ...]
    overall: float
    groups: Mapping[str, float]

    def predict(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities, float64 [rows]."""
        keys, inverse = np.unique(_keys(self.by, columns), return_inverse=True)
        rates = np.array([self.groups.get(str(key), self.overall) for key in keys], np.float64)
        return rates[inverse]


def fit(by: Sequence[str], columns: Mapping[str, np.ndarray], labels: np.ndarray) -> BaseRates:
    """The base rates of `labels` (0 and 1) by the columns `by`: names in `columns`, or `<name>_hour`.

    `<name>_hour` is the hour of the day, 0 to 23, of a column in seconds from 1970-01-01 00:00. Raises
    `ValueError` without rows.
    """
    if not len(labels):
        raise ValueError("a base rate needs at least one row")
    overall = float(labels.mean())
    keys, inverse = np.unique(_keys(tuple(by), columns), return_inverse=True)
    rows = np.bincount(inverse)
    positives = np.bincount(inverse, weights=labels)
    rates = (positives + SMOOTHING_ROWS * overall) / (rows + SMOOTHING_ROWS)
    groups = {str(key): float(rate) for key, rate in zip(keys, rates, strict=True)}
    return BaseRates(by=tuple(by), overall=overall, groups=groups)


def _keys(by: tuple[str, ...], columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """One text per row that tells the groups apart."""
    keys: np.ndarray | None = None
    for name in by:
        column = _column(name, columns).astype(str)
        keys = column if keys is None else np.char.add(np.char.add(keys, _SEPARATOR), column)
    if keys is None:
        raise ValueError("a base rate needs at least one column")
    return keys


def _column(name: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    if name not in columns and name.endswith(_HOUR):
        seconds: np.ndarray = columns[name.removesuffix(_HOUR)]
        return seconds // 3600 % 24
    return columns[name]
