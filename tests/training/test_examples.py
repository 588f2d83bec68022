"""Reading a pinned training set, and refusing one that is not what its reference says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airloop.errors import HistoryError
from airloop.training.examples import read_examples
from tests.training.conftest import Trained, settings_in
from tests.training.planted import planted_rows, planted_use_case, write_training_set


def test_a_split_is_read_by_column_with_the_dtypes_of_the_signature(trained: Trained) -> None:
    test = read_examples(trained.settings, trained.spec, trained.training_set, "test")
    assert {name: values.dtype.kind for name, values in test.columns.items()} == {
        "colour": "O",
        "due_local": "i",
        "due": "i",
        "heat": "f",
        "noise": "f",
        "seen_at": "i",
    }
    assert {len(values) for values in test.columns.values()} == {len(test)} == {2000}
    assert np.isnan(test.columns["heat"]).any()


def test_the_rows_come_in_one_order_however_the_files_lie(trained: Trained, tmp_path: Any) -> None:
    settings = settings_in(tmp_path)
    shuffled = trained.rows.take(np.random.default_rng(3).permutation(trained.rows.num_rows))
    again = read_examples(settings, trained.spec, write_training_set(settings, shuffled), "validation")
    first = read_examples(trained.settings, trained.spec, trained.training_set, "validation")
    assert np.array_equal(first.labels, again.labels)
    for name, values in first.columns.items():
        np.testing.assert_array_equal(values, again.columns[name])


def test_later_writes_do_not_move_a_pinned_training_set(tmp_path: Any) -> None:
    settings, spec = settings_in(tmp_path), planted_use_case()
    pinned = write_training_set(settings, planted_rows(seed=7))
    before = read_examples(settings, spec, pinned, "test")
    write_training_set(settings, planted_rows(seed=8), tag="as_of_20130119")
    after = read_examples(settings, spec, pinned, "test")
    np.testing.assert_array_equal(before.columns["noise"], after.columns["noise"])


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"snapshot_id": 42}, "no such snapshot"),
        ({"table": "training.absent"}, "none in the catalog"),
        ({"test_rows": 1999}, "2000 in snapshot"),
        ({"test_rows": 0}, "2000 in snapshot"),
    ],
)
def test_a_corrupted_reference_is_refused(trained: Trained, changes: dict[str, Any], found: str) -> None:
    reference = trained.training_set.model_copy(update=changes)
    with pytest.raises(HistoryError, match=found):
        read_examples(trained.settings, trained.spec, reference, "test")


def test_a_column_that_the_spec_lost_or_gained_is_named(trained: Trained, tmp_path: Any) -> None:
    settings = settings_in(tmp_path)
    reference = write_training_set(settings, trained.rows.drop_columns(["heat"]))
    with pytest.raises(HistoryError, match="no heat"):
        read_examples(settings, trained.spec, reference, "test")


@pytest.mark.parametrize("wrong", [None, 2])
def test_a_label_that_is_null_or_not_binary_is_refused(
    trained: Trained, tmp_path: Any, wrong: int | None
) -> None:
    settings = settings_in(tmp_path)
    labels = trained.rows["happened"].to_pylist()
    labels[-1] = wrong
    index = trained.rows.schema.get_field_index("happened")
    rows = trained.rows.set_column(index, "happened", pa.array(labels, pa.int32()))
    reference = write_training_set(settings, rows)
    with pytest.raises(HistoryError, match="to be 0 or 1"):
        read_examples(settings, trained.spec, reference, "test")
