"""Rows of a training set's split in files that are mapped, so that memory does not grow with the data.

Belongs here: streaming a pinned snapshot into columns on disk, in one order. Does not belong here: what a
model makes of them, TensorFlow, or in which order they are fed (`airloop.training.feeding`).

Arrow record batches come from the table in whatever order its files lie. A first pass counts the rows of each
day, a second one puts every batch's rows at their day's place, and each day is then sorted for itself: at no
time is more in memory than a batch or a day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airloop.errors import HistoryError
from airloop.references import TrainingSet
from airloop.settings import Settings
from airloop.training.examples import (
    LABEL_DTYPES,
    NEXT,
    PREDICTION_TIME,
    Examples,
    Split,
    label_vector,
    outcome_vector,
    scan_split,
    vector,
)
from airloop.use_cases.spec import ModelInput, UseCase

CHUNK_ROWS: Final = 1 << 16
"""Rows that are worked on at a time."""
MICROS_PER_DAY: Final = 86_400_000_000
_DTYPES: Final[Mapping[str, type[np.generic]]] = {
    "string": np.int32,
    "double": np.float32,
    "instant": np.int64,
    "local_time": np.int64,
}


@dataclass(frozen=True)
class Staged:
    """One split on disk, in order of prediction time (ties in the order of label, inputs and outcome)."""

    columns: Mapping[str, np.ndarray]
    """By input name, mapped vectors: float32 (NaN = missing), int64 (0 = missing), or for a string the int32
    place of its word in `words`."""
    words: Mapping[str, np.ndarray]
    """By string input, its different words, sorted."""
    labels: np.ndarray
    """Mapped vector as `LABEL_DTYPES` has it: 0 and 1, numbers of classes, or numbers."""
    times: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Mapped int64 vector: each row's prediction time, in microseconds since the epoch."""
    outcomes: np.ndarray | None = field(kw_only=True)
    """Mapped float32 vector of what the label cuts in two, when the spec names it (`Label.outcome`)."""

    def __len__(self) -> int:
        return len(self.labels)

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Examples]:
        """The split in order, at most `rows` rows at a time, with words in place of their numbers."""
        for start in range(0, len(self), rows):
            yield self.at(slice(start, start + rows))

    def at(self, rows: slice | np.ndarray) -> Examples:
        """Those rows, in memory."""
        return Examples(
            columns={
                name: self.words[name][values[rows]] if name in self.words else np.array(values[rows])
                for name, values in self.columns.items()
            },
            labels=np.array(self.labels[rows]),
        )

    def spread(self, most: int) -> np.ndarray:
        """At most `most` row numbers, evenly spread over the split."""
        return np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).round().astype(np.int64))


def stage(
    settings: Settings, use_case: UseCase, training_set: TrainingSet, split: Split, folder: Path
) -> Staged:
    """Write the rows of `split` in the snapshot that `training_set` pins to files in `folder`.

    The files are the same however the table's files lie. Raises `HistoryError` as `read_examples` does, and
    when an outcome is missing.
    """
    folder.mkdir(parents=True)
    label, outcome = use_case.label.name, use_case.label.outcome
    starts = _day_starts(settings, use_case, training_set, split)
    rows = sum(starts.counts)
    expected = getattr(training_set, f"{split}_rows")
    if rows != expected:
        raise HistoryError(
            expected=f"{expected} {split} rows in {training_set.tag}",
            found=f"{rows} in snapshot {training_set.snapshot_id} of {training_set.table}",
            next_step=NEXT,
        )

    def mapped(name: str, dtype: type[np.generic]) -> np.ndarray:
        file = folder / f"{name}.npy"
        if not rows:
            return np.empty(0, dtype)
        return np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=(rows,))

    columns = {item.name: mapped(item.name, _DTYPES[item.type]) for item in use_case.inputs}
    times, labels = (
        mapped(f"_{PREDICTION_TIME}", np.int64),
        mapped("_label", LABEL_DTYPES[use_case.label.target.kind]),
    )
    codes: dict[str, dict[str, int]] = {item.name: {} for item in use_case.inputs if item.type == "string"}
    free = np.array(starts.starts)
    outcomes = mapped("_outcome", np.float32) if outcome else None
    names = (*columns, label, PREDICTION_TIME, *((outcome.name,) if outcome else ()))
    for batch in scan_split(settings, training_set, names, split):
        micros = _micros(batch[PREDICTION_TIME])
        places, free = _places(np.searchsorted(starts.days, micros // MICROS_PER_DAY), free)
        times[places], labels[places] = micros, label_vector(batch[label], use_case.label, split)
        if outcome and outcomes is not None:
            outcomes[places] = outcome_vector(batch[outcome.name], outcome.name, split)
        for item in use_case.inputs:
            columns[item.name][places] = _numbers(batch[item.name], item, codes.get(item.name))
    words = {}
    for name, known in codes.items():
        found = np.array(list(known), object)
        order = np.argsort(found.astype(str), kind="stable")
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        words[name] = found[order]
        for start in range(0, rows, CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            columns[name][part] = rank[columns[name][part]]
    for start, count in zip(starts.starts, starts.counts, strict=True):
        day = slice(start, start + count)
        keys = [times[day], labels[day], *(columns[item.name][day] for item in use_case.inputs)]
        last = [] if outcomes is None else [outcomes]
        order = np.lexsort([*(column[day] for column in last), *keys[::-1]])
        for column in (times, labels, *columns.values(), *last):
            column[day] = column[day][order]
    return Staged(columns=columns, words=words, labels=labels, times=times, outcomes=outcomes)


@dataclass(frozen=True)
class _Days:
    """Which days there are, in order, where each one's rows start, and how many they are."""

    days: np.ndarray
    starts: list[int]
    counts: list[int]


def _day_starts(settings: Settings, use_case: UseCase, training_set: TrainingSet, split: Split) -> _Days:
    counted: dict[int, int] = {}
    names = (*(item.name for item in use_case.inputs), use_case.label.name, PREDICTION_TIME)
    for batch in scan_split(settings, training_set, (PREDICTION_TIME,), split, must_have=names):
        days, counts = np.unique(_micros(batch[PREDICTION_TIME]) // MICROS_PER_DAY, return_counts=True)
        for day, count in zip(days.tolist(), counts.tolist(), strict=True):
            counted[day] = counted.get(day, 0) + count
    ordered = sorted(counted)
    sizes = [counted[day] for day in ordered]
    starts = [0, *np.cumsum(sizes).tolist()][: len(sizes)]
    return _Days(np.array(ordered, np.int64), starts, sizes)


def _places(days: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For rows of `days` (places in `free`) the next free places of their days, and what is free then."""
    order = np.argsort(days, kind="stable")
    counts = np.bincount(days, minlength=len(free))
    within = np.arange(len(days)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = np.empty(len(days), np.int64)
    places[order] = free[days[order]] + within
    return places, free + counts


def _micros(column: pa.Array) -> np.ndarray:
    found: np.ndarray = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    return found


def _numbers(column: pa.Array, item: ModelInput, known: dict[str, int] | None) -> np.ndarray:
    """The batch's column as numbers; new words are added to `known`."""
    if known is None:
        return vector(column, item)
    encoded = pc.fill_null(column.cast(pa.string()), "").dictionary_encode()
    numbers = [known.setdefault(word, len(known)) for word in encoded.dictionary.to_pylist()]
    found: np.ndarray = np.array(numbers, np.int32)[encoded.indices.to_numpy()]
    return found
