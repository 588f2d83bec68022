"""Sums over answers, and what figures of them have in common.

Belongs here: what does not depend on the label's kind. Does not belong here: a formula (`binary`, `losses`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from airloop.use_cases.target import Figure

EVERYTHING: Final = ""
"""The slice of all answers."""


@dataclass(frozen=True)
class Scores:
    """Sums over the answers of each cell, [cells] each, by name."""

    sums: Mapping[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.sums[name]

    def plus(self, other: Scores) -> Scores:
        """The sums of both."""
        return Scores({name: mine + other[name] for name, mine in self.sums.items()})


class Tested(NamedTuple):
    """A figure that tells decay."""

    name: str
    value: float
    variance: float
    """By chance, with the rows that there are."""
    worthless: float
    """What it is for a model that knows nothing."""


class Figures(BaseModel):
    """What `Scores` say."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    answers: int
    labelled: int

    @property
    def label_share(self) -> float:
        """How many of the answers have a label."""
        return self.labelled / self.answers if self.answers else 0.0

    @property
    def named(self) -> dict[str, float | None]:
        """The figures by name, as `Scoring.measured` has them; None where one is not defined."""
        raise NotImplementedError

    @property
    def tested(self) -> tuple[Tested, ...]:
        """What tells decay; empty where that is not defined."""
        raise NotImplementedError


class Scoring(Protocol):
    """From answers and labels of one kind to sums, and from sums to figures."""

    @property
    def cells(self) -> int:
        """Into how many the answers are sorted."""
        ...

    @property
    def sums(self) -> tuple[str, ...]:
        """What is summed."""
        ...

    @property
    def measured(self) -> tuple[Figure, ...]:
        """The figures that sums tell, those first that tell decay."""
        ...

    @property
    def tested(self) -> tuple[Figure, ...]:
        """Of those, the ones that tell decay (`Figures.tested`)."""
        ...

    def scores_of(self, answers: np.ndarray, labels: np.ndarray, usual: Sequence[float]) -> Scores:
        """The sums over answers, [rows] or [rows, numbers of an answer], with `labels`, [rows], as
        `airloop.row_losses.row_losses` takes them, or NaN where none is known.

        `usual` is what would have been answered without knowing anything (`Profile.usual`).
        """
        ...

    def figures(self, scores: Scores) -> Figures:
        """What `scores` say."""
        ...


def nothing(scoring: Scoring) -> Scores:
    """The sums over no answers."""
    return Scores({name: np.zeros(scoring.cells) for name in scoring.sums})
