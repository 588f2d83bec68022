"""Rows on disk: the same rows in the same order as in memory, however files and batches lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from airloop.errors import HistoryError
from airloop.lakehouse.catalog import open_catalog
from airloop.training.examples import read_examples
from airloop.training.staging import Staged, stage
from tests.training.conftest import Trained, settings_in
from tests.training.planted import planted_rows, planted_use_case, write_training_set


def whole(staged: Staged) -> dict[str, np.ndarray]:
    parts = list(staged.chunks(1000))
    found = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    assert staged.outcomes is not None
    return {
        **found,
        "label": np.concatenate([part.labels for part in parts]),
        "outcome": np.array(staged.outcomes),
    }


def test_a_split_is_the_same_on_disk_as_in_memory(trained: Trained, tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        staged = stage(trained.settings, trained.spec, trained.training_set, split, tmp_path / split)
        expected = read_examples(trained.settings, trained.spec, trained.training_set, split)
        found = whole(staged)
        assert len(staged) == len(expected)
        np.testing.assert_array_equal(found["label"], expected.labels)
        # The planted label is whether the outcome is above 0, so each row has its own.
        np.testing.assert_array_equal(found["outcome"] > 0, expected.labels)
        for name, values in expected.columns.items():
            np.testing.assert_array_equal(found[name], values)
            assert found[name].dtype == values.dtype


def test_the_files_are_the_same_however_the_tables_files_lie(trained: Trained, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    shuffled = trained.rows.take(np.random.default_rng(3).permutation(trained.rows.num_rows))
    reference = write_training_set(settings, shuffled.slice(0, 100))
    table = open_catalog(settings).load_table(reference.table)
    for start in range(100, shuffled.num_rows, 2500):
        table.append(shuffled.slice(start, 2500))
    snapshot = table.current_snapshot()
    assert snapshot is not None
    counts = {f"{name}_rows": getattr(trained.training_set, f"{name}_rows") for name in ("train", "test")}
    moved = reference.model_copy(update={"snapshot_id": snapshot.snapshot_id, **counts})
    stage(settings, trained.spec, moved, "train", tmp_path / "a")
    stage(trained.settings, trained.spec, trained.training_set, "train", tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert "colour.npy" in names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_rows_of_one_moment_have_an_order_of_their_own(tmp_path: Path) -> None:
    settings, spec = settings_in(tmp_path), planted_use_case()
    rows = planted_rows()
    at = rows["prediction_time"].combine_chunks()
    same = rows.set_column(
        rows.schema.get_field_index("prediction_time"),
        "prediction_time",
        pa.array([at[0].as_py()] * rows.num_rows, at.type),
    )
    reference = write_training_set(settings, same)
    one = whole(stage(settings, spec, reference, "train", tmp_path / "one"))
    reverse = write_training_set(settings, same.take(np.arange(rows.num_rows)[::-1]), "reverse")
    other = whole(stage(settings, spec, reverse, "train", tmp_path / "other"))
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name])


def test_a_row_without_its_outcome_is_refused(tmp_path: Path) -> None:
    settings, spec = settings_in(tmp_path), planted_use_case()
    rows = planted_rows()
    values = rows["intensity"].to_pylist()
    values[17], values[18] = None, float("inf")
    place = rows.schema.get_field_index("intensity")
    reference = write_training_set(settings, rows.set_column(place, "intensity", pa.array(values)))
    with pytest.raises(HistoryError, match=r"a finite intensity for every row.*2 without one"):
        stage(settings, spec, reference, "train", tmp_path / "refused")


def test_a_training_set_from_before_the_outcome_is_refused(tmp_path: Path) -> None:
    settings, spec = settings_in(tmp_path), planted_use_case()
    reference = write_training_set(settings, planted_rows().drop_columns(["intensity"]))
    with pytest.raises(HistoryError, match="intensity"):
        stage(settings, spec, reference, "train", tmp_path / "refused")


def test_a_corrupted_reference_is_refused_and_an_empty_split_is_empty(
    trained: Trained, tmp_path: Path
) -> None:
    wrong = trained.training_set.model_copy(update={"train_rows": 1})
    with pytest.raises(HistoryError, match="6000 in snapshot"):
        stage(trained.settings, trained.spec, wrong, "train", tmp_path / "wrong")
    settings = settings_in(tmp_path)
    reference = write_training_set(settings, trained.rows.slice(0, 6000))
    assert len(stage(settings, trained.spec, reference, "test", tmp_path / "empty")) == 0
