"""The rows of a training set, as vectors by input name.

Belongs here: reading one split of the pinned snapshot, and checking that it is what the reference says.
Does not belong here: TensorFlow, statistics, or building the table (`spark_jobs.training_set`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import EqualTo

from airloop.errors import HistoryError
from airloop.lakehouse.catalog import load_table, open_catalog, read_snapshot, scan_snapshot
from airloop.references import TrainingSet
from airloop.settings import Settings
from airloop.use_cases.spec import Label, ModelInput, UseCase
from airloop.use_cases.target import Kind

SECONDS_PER_DAY: Final = 86_400

Split = Literal["train", "validation", "test"]
Columns = Mapping[str, np.ndarray]
"""By input name, vectors of one length: object (str), float32 (NaN = missing) or int64 (0 = missing)."""

SPLIT: Final = "split"
PREDICTION_TIME: Final = "prediction_time"
NEXT: Final = "build the training set again (spark_jobs.training_set) and train on the new reference"


@dataclass(frozen=True)
class Examples:
    """Rows of one split, in order of prediction time (ties in the order of the label and the inputs)."""

    columns: Columns
    labels: np.ndarray
    """Vector as `LABEL_DTYPES` has it: 0 and 1, numbers of classes, or numbers."""

    def __len__(self) -> int:
        return len(self.labels)


def event_days(spec: UseCase, rows: Examples) -> np.ndarray:
    """The day of each row's event, since the epoch: in UTC, else on the wall clock.

    A number for each hundredth of the rows where no input is the event's time.
    """
    for kind in ("instant", "local_time"):
        for item in spec.inputs:
            if item.type == kind and item.request_field == spec.event_field:
                return rows.columns[item.name] // SECONDS_PER_DAY
    return np.arange(len(rows)) * 100 // max(len(rows), 1)


def read_examples(settings: Settings, use_case: UseCase, training_set: TrainingSet, split: Split) -> Examples:
    """The rows of `split` in the snapshot that `training_set` pins.

    Only the model's inputs and the label are read, a split at a time, so memory is bounded by the window's
    rows times the spec's inputs. The order is the same however the table's files lie.

    Raises `HistoryError` when the table, the snapshot or a column is gone, when the number of rows is not
    the reference's, or when a label is null or none of what its kind has.
    """
    names = [item.name for item in use_case.inputs]
    label = use_case.label.name
    table = load_table(open_catalog(settings), training_set.table)
    rows = read_snapshot(
        table,
        training_set.snapshot_id,
        (*names, label, PREDICTION_TIME, SPLIT),
        EqualTo(term=SPLIT, value=split),
    ).drop_columns([SPLIT])
    expected = getattr(training_set, f"{split}_rows")
    if rows.num_rows != expected:
        raise HistoryError(
            expected=f"{expected} {split} rows in {training_set.tag}",
            found=f"{rows.num_rows} in snapshot {training_set.snapshot_id} of {training_set.table}",
            next_step=NEXT,
        )
    rows = rows.sort_by([(name, "ascending") for name in (PREDICTION_TIME, label, *names)])
    return Examples(
        columns={item.name: vector(rows[item.name], item) for item in use_case.inputs},
        labels=label_vector(rows[label], use_case.label, split),
    )


def take(columns: Columns, indices: np.ndarray) -> dict[str, np.ndarray]:
    """The rows at `indices` of every column."""
    return {name: values[indices] for name, values in columns.items()}


def scan_split(
    settings: Settings,
    training_set: TrainingSet,
    columns: Sequence[str],
    split: Split,
    *,
    must_have: Sequence[str] = (),
) -> Iterator[pa.RecordBatch]:
    """Batches of `columns` of `split`, in the order in which the table's files lie.

    Raises `HistoryError` when the table, the snapshot, or one of `columns` or `must_have` is gone.
    """
    table = load_table(open_catalog(settings), training_set.table)
    yield from scan_snapshot(
        table, training_set.snapshot_id, columns, EqualTo(term=SPLIT, value=split), must_have=must_have
    )


def vector(column: pa.Array | pa.ChunkedArray, item: ModelInput) -> np.ndarray:
    """The values of one input as `Columns` has them."""
    vector: np.ndarray
    if item.type == "string":
        vector = pc.fill_null(column.cast(pa.string()), "").to_numpy()
    elif item.type == "double":
        vector = pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy().astype(np.float32)
    else:
        vector = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
    return vector


LABEL_DTYPES: Final[Mapping[Kind, type[np.generic]]] = {
    "binary": np.int8,
    "multiclass": np.int16,
    "regression": np.float32,
    "quantiles": np.float32,
}


def label_vector(column: pa.Array | pa.ChunkedArray, label: Label, split: Split) -> np.ndarray:
    """The labels as `LABEL_DTYPES` has them: 0 and 1, numbers of classes, or numbers.

    Raises `HistoryError` when one is null, or none of what the label's kind has.
    """
    target = label.target
    if target.kind == "binary" or target.kind == "multiclass":
        classes: tuple[object, ...] = (0, 1) if target.kind == "binary" else target.classes
        others = pc.unique(column).to_pylist()
        if not set(others) <= set(classes):
            raise HistoryError(
                expected=f"every {label.name} in the {split} split to be {_either(classes)}",
                found=", ".join(repr(value) for value in others[:5]),
                next_step=NEXT,
            )
        if target.kind == "multiclass":
            column = pc.index_in(column, pa.array(target.classes))
        found: np.ndarray = column.to_numpy().astype(LABEL_DTYPES[target.kind])
        return found
    return outcome_vector(column, label.name, split)


def _either(classes: tuple[object, ...]) -> str:
    return f"{', '.join(map(str, classes[:-1]))} or {classes[-1]}"


def outcome_vector(column: pa.Array, name: str, split: Split) -> np.ndarray:
    """The outcomes, float32; raises `HistoryError` when one is missing or not finite."""
    found: np.ndarray = pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy().astype(np.float32)
    if strange := int(np.count_nonzero(~np.isfinite(found))):
        raise HistoryError(
            expected=f"a finite {name} for every row of the {split} split",
            found=f"{strange} without one",
            next_step=NEXT,
        )
    return found
