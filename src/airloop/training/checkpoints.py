"""How far a training is, on disk: what it takes to go on as if nothing had happened.

Belongs here: writing and reading that state. Does not belong here: when to (`fitting`), or the model.

A checkpoint is one file of plain arrays that appears whole or not at all, and is loaded without unpickling.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where a training is, and the best that it had."""

    step: int = 0
    """Steps of the present epoch that are done."""
    seen_loss: float = 0.0
    """Sum of the present epoch's losses over those steps."""
    history: list[tuple[float, float]] = field(default_factory=list)
    """The training and the validation loss of each epoch that is done."""
    best_weights: list[np.ndarray] = field(default_factory=list)
    """The weights after the best epoch; none before the first is done."""

    @property
    def epoch(self) -> int:
        """The number of the present epoch, from 0."""
        return len(self.history)

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest finite validation loss, the first of them; -1 without any."""
        losses = [loss if math.isfinite(loss) else math.inf for _, loss in self.history]
        lowest = min(losses, default=math.inf)
        return losses.index(lowest) if math.isfinite(lowest) else -1

    def position(self) -> np.ndarray:
        """All but the weights, float64 [2 + 2 * epoch]."""
        return np.array([self.step, self.seen_loss, *np.ravel(self.history)], np.float64)

    @classmethod
    def at(cls, position: np.ndarray, best_weights: list[np.ndarray]) -> Progress:
        """The opposite of `position`."""
        step, seen_loss, *losses = position.tolist()
        history = list(zip(losses[::2], losses[1::2], strict=True))
        return cls(int(step), seen_loss, history, best_weights)


class Checkpoints:
    """The last checkpoint of one training."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "checkpoint.npz"

    def save(self, progress: Progress, variables: Sequence[np.ndarray]) -> None:
        """Write the state in place of the former one."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {f"variable_{n}": value for n, value in enumerate(variables)}
        arrays |= {f"best_{n}": value for n, value in enumerate(progress.best_weights)}
        aside = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        with aside.open("wb") as stream:
            np.savez(stream, position=progress.position(), **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(self._file)

    def load(self, shapes: Sequence[tuple[int, ...]]) -> tuple[Progress, list[np.ndarray]] | None:
        """The state, if one for variables of these `shapes` is there; an unreadable one counts as none."""
        for left_behind in self._file.parent.glob(f".{self._file.name}.*"):
            left_behind.unlink(missing_ok=True)
        try:
            with np.load(self._file, allow_pickle=False) as arrays:
                variables = [arrays[f"variable_{n}"] for n in range(len(shapes))]
                best = [arrays[name] for name in _numbered(arrays.files, "best_")]
                progress = Progress.at(arrays["position"], best)
        except FileNotFoundError:
            return None
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            log.warning("starting anew: checkpoint %s is of no use: %s", self._file, error)
            return None
        if [value.shape for value in variables] != list(shapes):
            log.warning("starting anew: checkpoint %s is of another network", self._file)
            return None
        return progress, variables

    def remove(self) -> None:
        """Forget the training: it is done, or another one."""
        shutil.rmtree(self._file.parent, ignore_errors=True)


def _numbered(names: Sequence[str], prefix: str) -> list[str]:
    return sorted((n for n in names if n.startswith(prefix)), key=lambda n: int(n.removeprefix(prefix)))
