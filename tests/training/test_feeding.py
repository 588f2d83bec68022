"""What a step gets is a function of seed, epoch and step, and of nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from airloop.errors import SpecError
from airloop.training.devices import Devices
from airloop.training.encoding import Encoded
from airloop.training.feeding import (
    BLOCK_ROWS,
    SHUFFLED_ROWS,
    batch_order,
    epoch_order,
    in_order,
    training_batches,
)

BATCH = 64


@dataclass(frozen=True)
class Replicas(Devices):
    """Devices of which only the numbers are asked."""

    strategy: object = None
    count: int = 1

    @property
    def replicas(self) -> int:
        return self.count


def encoded(rows: int) -> Encoded:
    numbers = np.arange(rows, dtype=np.float32)
    return Encoded(tensors={"numbers": np.stack([numbers, -numbers], axis=1)}, labels=np.arange(rows) % 2)


def test_a_target_for_the_label_and_for_each_threshold() -> None:
    rows = Encoded(
        tensors={"numbers": np.zeros((3, 1), np.float32)},
        labels=np.array([0, 1, 1], np.int8),
        outcomes=np.array([-5, 15, 200], np.float32),
        thresholds=(-10, 15, 30),
    )
    ((_, targets),) = in_order(rows, 3).as_numpy_iterator()
    assert targets.tolist() == [[0, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]


def fed(
    rows: int, *, epoch: int = 0, first_step: int = 0, worker: int = 0, workers: int = 1
) -> list[np.ndarray]:
    devices = Replicas(worker=worker, workers=workers, count=workers)
    data = training_batches(encoded(rows), BATCH, 7, epoch, first_step=first_step, devices=devices)
    elements = list(data.as_numpy_iterator())
    for inputs, labels in elements:
        np.testing.assert_array_equal(inputs["numbers"][:, 0] % 2, labels[:, 0])
    return [inputs["numbers"][:, 0].astype(int) for inputs, _ in elements]


@pytest.mark.parametrize("rows", [1, 255, 256, 1000, SHUFFLED_ROWS + 5 * BLOCK_ROWS + 3])
def test_an_epoch_has_every_row_once_in_another_order_each_time(rows: int) -> None:
    first, again, next_one = (np.concatenate(list(epoch_order(rows, 7, epoch))) for epoch in (0, 0, 1))
    np.testing.assert_array_equal(np.sort(first), np.arange(rows))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(np.sort(next_one), np.arange(rows))
    if rows > 1:
        assert (first != next_one).any()
        assert (first != np.arange(rows)).any()


def test_rows_come_from_all_over_a_split_that_is_larger_than_what_is_shuffled() -> None:
    rows = 8 * SHUFFLED_ROWS
    piece = next(epoch_order(rows, 7, 0))
    assert len(piece) == SHUFFLED_ROWS
    shares, _ = np.histogram(piece, bins=8, range=(0, rows))
    assert (np.abs(shares / SHUFFLED_ROWS - 1 / 8) < 0.05).all()
    # Neighbours of one block are not neighbours in the order.
    assert np.mean(np.diff(piece) == 1) < 0.01


def test_batches_are_whole_and_go_over_the_edges_of_pieces() -> None:
    rows = 2 * SHUFFLED_ROWS + 100
    batches = list(batch_order(rows, 1000, 7, 0))
    assert {len(batch) for batch in batches} == {1000}
    assert len(batches) == rows // 1000
    assert len(np.unique(np.concatenate(batches))) == len(batches) * 1000


def test_a_training_that_continues_gets_the_steps_it_had_not_done() -> None:
    everything = fed(1000, epoch=2)
    assert len(everything) == 1000 // BATCH
    for one, other in zip(everything[5:], fed(1000, epoch=2, first_step=5), strict=True):
        np.testing.assert_array_equal(one, other)


def test_workers_share_each_batch() -> None:
    alone = fed(1000)
    shares = [fed(1000, worker=worker, workers=4) for worker in range(4)]
    for step, batch in enumerate(alone):
        parts = [share[step] for share in shares]
        assert [len(part) for part in parts] == [BATCH // 4] * 4
        np.testing.assert_array_equal(np.concatenate(parts), batch)


def test_one_workers_replicas_get_their_shares_one_after_the_other() -> None:
    devices = Replicas(worker=1, workers=2, count=4)
    data = list(training_batches(encoded(256), BATCH, 7, 0, devices=devices).as_numpy_iterator())
    assert list(devices.own_replicas) == [2, 3]
    assert len(data) == 2 * 4
    batch = next(batch_order(256, BATCH, 7, 0))
    for replica, (inputs, _) in zip(devices.own_replicas, data, strict=False):
        wanted = batch[replica * 16 : (replica + 1) * 16]
        np.testing.assert_array_equal(inputs["numbers"][:, 0], wanted)


def test_a_batch_that_cannot_be_shared_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="multiple of the 3 replicas"):
        Replicas(workers=3, count=3).share_of(64)


def test_in_order_nothing_is_left_out() -> None:
    found = [inputs["numbers"][:, 0] for inputs, _ in in_order(encoded(130), 64).as_numpy_iterator()]
    assert [len(part) for part in found] == [64, 64, 2]
    np.testing.assert_array_equal(np.concatenate(found), np.arange(130))
