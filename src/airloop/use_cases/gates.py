"""What a use case's candidate must show before it is registered: parts of its spec.

Belongs here: the shape of the gates. Does not belong here: judging (`airloop.verdict`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from airloop.use_cases.part import Identifier, SpecPart


class Slicing(SpecPart):
    """A model input that cuts the test rows into slices, each judged for itself."""

    name: Identifier
    input: Identifier
    """A string input is cut by value, a local time by the hour of the day, a double by its value."""
    edges: tuple[float, ...] = ()
    """Hours or values at which a slice ends and the next one begins; none for a string input."""


class Behaviour(SpecPart):
    """What a model must do when rows are changed in a way whose effect is known beforehand."""

    name: Identifier
    changes: dict[Identifier, float] = Field(min_length=1)
    """What is added to which inputs (hours for instants and local times); rows that lack one are left out."""
    effect: Literal["rises", "falls", "stays"]
    """What the mean probability may do: rise or stay, fall or stay, or stay."""
    only: dict[Identifier, tuple[float, float]] = Field(default_factory=dict)
    """Only rows whose value lies between these (hours of the day for local times)."""
    tolerance: float = Field(0.001, ge=0)
    """By how much the mean may go the other way."""
    why: str = Field(min_length=1)


class FigureGate(SpecPart):
    """What one figure of the candidate must be beside the same of others, on the same rows."""

    min_gain_over_baseline: float = Field(0.0, ge=0)
    """By how much it is to be better; at 0, by anything."""
    beyond_chance: bool = False
    """Whether that gain must be there on nearly every resample of the days."""
    max_loss_to_champion: float = Field(0.0, ge=0)
    """By how much it may be worse."""


class Gates(SpecPart):
    """What a candidate must show before it is registered. Every rule fails closed."""

    baseline: tuple[Identifier, ...] = Field(min_length=1)
    """Columns of the baseline, which answers what was usual by them: model inputs, or
    `<local_time input>_hour`."""
    min_test_rows: int = Field(ge=1)
    min_test_class_rows: int = Field(1, ge=1)
    """Fewest test rows of a class, where the label has classes: of the positive one, if there are two."""
    figures: dict[Identifier, FigureGate] = Field(min_length=1)
    """By the name of a figure of the label's kind (`airloop.use_cases.target`)."""
    slices: tuple[Slicing, ...] = ()
    min_slice_rows: int = Field(100, ge=1)
    """Slices with fewer test rows of a class (or at all, without classes) are measured, but not judged."""
    max_slice_loss_excess_over_baseline: float = Field(0.0, ge=0)
    """By how much a slice may be served worse than by the baseline: in the loss of the label's kind."""
    behaviours: tuple[Behaviour, ...] = ()
    max_single_input: float = Field(0.9, gt=0.5, le=1)
    """An input that alone tells the label better than this knows it: it leaks. ROC AUC where the label has
    classes (of the one that it tells best), else the share of its variance."""
    max_calibration_error: float = Field(0.1, gt=0, le=1)
    """How far probabilities may be from the observed rates (`airloop.training.measures`). The weather of a
    few weeks alone moves a base rate by a few hundredths."""
    max_model_mebibytes: float = Field(500.0, gt=0)
    """Size of the exported model: each replica of the server holds it in memory, twice during a rollout."""
    max_single_row_p99_milliseconds: float = Field(250.0, gt=0)
    """Generous, for it is measured where training runs, beside whatever else runs there."""
