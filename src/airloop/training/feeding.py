"""Which rows a training step gets, and how they reach TensorFlow.

Belongs here: the order of an epoch, each replica's share of a batch, the dataset. Does not belong here:
where rows come from (`staging`), or what is done with a batch (`fitting`).

Everything is a function of seed, epoch and step alone: however many workers there are, together they get the
same rows in the same step, and a training that continues from a checkpoint goes on with the rows that it had
not seen. No Python runs per row: a batch is gathered from the mapped files at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import tensorflow as tf

from airloop.training.devices import Devices
from airloop.training.encoding import Encoded

BLOCK_ROWS: Final = 256
"""Neighbouring rows that are read together: a page or more of each file."""
SHUFFLED_ROWS: Final = 1 << 18
"""Rows that are shuffled together, from blocks all over the split; fewer are shuffled fully."""


def epoch_order(rows: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """The numbers of all `rows`, each once, shuffled by `seed` and `epoch`, in pieces.

    A split that does not fit in memory is read in blocks: `SHUFFLED_ROWS` of them from all over it at a time.
    """
    random = np.random.default_rng([seed, epoch])
    blocks = random.permutation(-(-rows // BLOCK_ROWS))
    together = SHUFFLED_ROWS // BLOCK_ROWS
    for first in range(0, len(blocks), together):
        starts = blocks[first : first + together].astype(np.int64) * BLOCK_ROWS
        piece = (starts[:, None] + np.arange(BLOCK_ROWS)).ravel()
        piece = piece[piece < rows]
        random.shuffle(piece)
        yield piece


def batch_order(rows: int, batch: int, seed: int, epoch: int, first_step: int = 0) -> Iterator[np.ndarray]:
    """The row numbers of each whole batch of the epoch, from step `first_step` on; a rest is left out."""
    rest = np.empty(0, np.int64)
    step = 0
    for piece in epoch_order(rows, seed, epoch):
        rest = np.concatenate([rest, piece])
        whole = len(rest) // batch * batch
        for start in range(0, whole, batch):
            if step >= first_step:
                yield rest[start : start + batch]
            step += 1
        rest = rest[whole:]


def training_batches(
    encoded: Encoded, batch: int, seed: int, epoch: int, *, first_step: int = 0, devices: Devices
) -> tf.data.Dataset:
    """This worker's shares of each batch of an epoch: ({tensor: [share, ...]}, targets [share, targets]).

    `batch` is the global one; a step's shares, one for each of the worker's replicas, follow each other.
    """
    share = devices.share_of(batch)

    def made() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        for numbers in batch_order(len(encoded), batch, seed, epoch, first_step):
            for replica in devices.own_replicas:
                # In the batch's order: dropout's masks are of a row's place in it.
                yield encoded.at(numbers[replica * share : (replica + 1) * share])

    return _dataset(encoded, made, share)


def in_order(encoded: Encoded, batch: int) -> tf.data.Dataset:
    """All rows in order, `batch` at a time; the last may be shorter."""

    def made() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        for start in range(0, len(encoded), batch):
            yield encoded.at(slice(start, start + batch))

    return _dataset(encoded, made, None)


def _dataset(encoded: Encoded, made: object, rows: int | None) -> tf.data.Dataset:
    tensors = {
        name: tf.TensorSpec([rows, *values.shape[1:]], values.dtype)
        for name, values in encoded.tensors.items()
    }
    signature = (tensors, tf.TensorSpec([rows, 1 + len(encoded.thresholds)], tf.float32))
    return tf.data.Dataset.from_generator(made, output_signature=signature).prefetch(4)
