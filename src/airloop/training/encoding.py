"""Rows as the network's encoder makes them, in mapped files: computed once, not in every epoch.

Belongs here: running the encoder over a split. Does not belong here: the encoder (the model builder), or the
order in which rows are used (`feeding`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from airloop.training.network import Network
from airloop.training.staging import Staged


@dataclass(frozen=True)
class Encoded:
    """A split's rows, in its order."""

    tensors: Mapping[str, np.ndarray]
    """By the encoder's output name, mapped arrays [rows, ...]."""
    labels: np.ndarray
    """Mapped vector of 0 and 1, numbers of classes, or numbers."""
    outcomes: np.ndarray | None = None
    """Mapped float32 vector of what the label cuts in two, if it is learned beside it."""
    thresholds: tuple[float, ...] = ()
    """Where outcomes are cut; none without outcomes."""

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, rows: slice | np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Tensors and float32 targets [rows, 1 + thresholds] of those rows: the label, then whether the
        outcome is above each threshold."""
        tensors = {name: values[rows] for name, values in self.tensors.items()}
        labels = self.labels[rows].astype(np.float32)[:, None]
        if self.outcomes is None:
            return tensors, labels
        above = self.outcomes[rows][:, None] > np.array(self.thresholds, np.float32)
        return tensors, np.concatenate([labels, above.astype(np.float32)], axis=1)


def encode(network: Network, staged: Staged, folder: Path, thresholds: tuple[float, ...] = ()) -> Encoded:
    """Write what `network.encoder` makes of every row of `staged` to files in `folder`.

    `thresholds` are those of the staged outcomes (`Outcome.thresholds`), to be learned beside the label.
    """
    folder.mkdir(parents=True)
    tensors: dict[str, np.ndarray] = {}
    start = 0
    for chunk in staged.chunks():
        encoded = network.encoder({name: tf.constant(values) for name, values in chunk.columns.items()})
        for name, found in encoded.items():
            values = found.numpy()
            if name not in tensors:
                shape = (len(staged), *values.shape[1:])
                file = folder / f"{name}.npy"
                tensors[name] = np.lib.format.open_memmap(file, mode="w+", dtype=values.dtype, shape=shape)
            tensors[name][start : start + len(values)] = values
        start += len(chunk)
    return Encoded(
        tensors=tensors,
        labels=staged.labels,
        outcomes=staged.outcomes if thresholds else None,
        thresholds=thresholds,
    )
