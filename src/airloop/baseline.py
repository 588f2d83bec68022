"""The simplest prediction worth beating: what was usual before, by a few columns.

Belongs here: the baseline of `Gates.baseline`, for each kind of label. Does not belong here: anything that is
fitted by gradient descent, or the rule that it must be beaten (`airloop.verdict`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from airloop.use_cases.target import Target

SMOOTHING_ROWS: Final = 20.0
"""A group counts as if it also had this many rows of the overall kind, so that small groups do not shout."""
_HOUR: Final = "_hour"
_SEPARATOR: Final = "\x1f"


@dataclass(frozen=True)
class Usual:
    """What was usual by group, smoothed: the base rate of a label that is 1 or 0, the base rates of classes,
    the mean or median of a number, or its quantiles. A group that was not seen has the overall one."""

    by: tuple[str, ...]
    overall: np.ndarray
    """[numbers of an answer], or a single number."""
    groups: Mapping[str, np.ndarray]

    def predict(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Answers, float64 [rows], or [rows, numbers of an answer]."""
        keys, inverse = np.unique(_keys(self.by, columns), return_inverse=True)
        found = np.array([self.groups.get(str(key), self.overall) for key in keys], np.float64)
        return found[inverse]


def overall(target: Target, labels: np.ndarray) -> tuple[float, ...]:
    """The answer that costs least where all rows of `labels`, [rows], one at least, get the same."""
    return tuple(np.atleast_1d(_overall(target, labels)).tolist())


def fit(target: Target, by: Sequence[str], columns: Mapping[str, np.ndarray], labels: np.ndarray) -> Usual:
    """What was usual of `labels` [rows] by the columns `by`: names in `columns`, or `<name>_hour`.

    `<name>_hour` is the hour of the day, 0 to 23, of a column in seconds from 1970-01-01 00:00. Raises
    `ValueError` without rows.
    """
    if not len(labels):
        raise ValueError("what is usual needs at least one row")
    keys, inverse = np.unique(_keys(tuple(by), columns), return_inverse=True)
    usual = _overall(target, labels)
    order = np.argsort(inverse, kind="stable")
    parts = np.split(labels[order], np.cumsum(np.bincount(inverse))[:-1])
    groups = {
        str(key): (len(part) * _overall(target, part) + SMOOTHING_ROWS * usual) / (len(part) + SMOOTHING_ROWS)
        for key, part in zip(keys, parts, strict=True)
    }
    return Usual(tuple(by), usual, groups)


def _overall(target: Target, labels: np.ndarray) -> np.ndarray:
    """Of all rows alike: [numbers of an answer], or a single number."""
    if target.kind == "multiclass":
        return np.bincount(labels.astype(np.int64), minlength=len(target.classes)) / len(labels)
    if target.kind == "quantiles":
        return np.asarray(np.quantile(labels, target.levels))
    middle = np.median if target.kind == "regression" and target.estimates == "median" else np.mean
    return np.asarray(middle(labels.astype(np.float64)))


def _keys(by: tuple[str, ...], columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """One text per row that tells the groups apart."""
    keys: np.ndarray | None = None
    for name in by:
        column = _column(name, columns).astype(str)
        keys = column if keys is None else np.char.add(np.char.add(keys, _SEPARATOR), column)
    if keys is None:
        raise ValueError("what is usual needs at least one column")
    return keys


def _column(name: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    if name not in columns and name.endswith(_HOUR):
        seconds: np.ndarray = columns[name.removesuffix(_HOUR)]
        return seconds // 3600 % 24
    return columns[name]
