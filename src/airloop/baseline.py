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
    the mean of a number, or its quantiles. A group that was not seen has the overall one."""

    by: tuple[str, ...]
    overall: np.ndarray
    """[numbers of an answer], or a single number."""
    groups: Mapping[str, np.ndarray]

    def predict(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Answers, float64 [rows], or [rows, numbers of an answer]."""
        keys, inverse = np.unique(_keys(self.by, columns), return_inverse=True)
        found = np.array([self.groups.get(str(key), self.overall) for key in keys], np.float64)
        return found[inverse]


def fit(target: Target, by: Sequence[str], columns: Mapping[str, np.ndarray], labels: np.ndarray) -> Usual:
    """What was usual of `labels` [rows] by the columns `by`: names in `columns`, or `<name>_hour`.

    `<name>_hour` is the hour of the day, 0 to 23, of a column in seconds from 1970-01-01 00:00. Raises
    `ValueError` without rows.
    """
    if not len(labels):
        raise ValueError("what is usual needs at least one row")
    keys, inverse = np.unique(_keys(tuple(by), columns), return_inverse=True)
    values = np.eye(len(target.classes))[labels] if target.kind == "multiclass" else labels
    overall, groups = (
        _quantiles(target.levels, inverse, labels) if target.kind == "quantiles" else _means(inverse, values)
    )
    return Usual(tuple(by), overall, {str(key): group for key, group in zip(keys, groups, strict=True)})


def _means(group: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of `values` [rows, ...], and that of each group, [groups, ...], drawn towards it."""
    overall = np.asarray(values.mean(axis=0, dtype=np.float64))
    rows = np.bincount(group)
    sums = np.zeros((len(rows), *values.shape[1:]))
    np.add.at(sums, group, values)
    weights = (rows + SMOOTHING_ROWS).reshape(-1, *(1,) * (values.ndim - 1))
    return overall, (sums + SMOOTHING_ROWS * overall) / weights


def _quantiles(
    levels: tuple[float, ...], group: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The quantiles of all labels, and those of each group, drawn towards them by its share of rows."""
    overall = np.quantile(labels, levels)
    order = np.argsort(group, kind="stable")
    parts = np.split(labels[order], np.cumsum(np.bincount(group))[:-1])
    found = [
        (len(part) * np.quantile(part, levels) + SMOOTHING_ROWS * overall) / (len(part) + SMOOTHING_ROWS)
        for part in parts
    ]
    return overall, np.array(found)


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
