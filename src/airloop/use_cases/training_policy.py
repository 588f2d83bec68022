"""How a use case's candidates are trained, tuned and cross-validated: parts of its spec.

Belongs here: the shape of these choices. Does not belong here: training (`airloop.training`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, model_validator

from airloop.use_cases.part import DottedPath, Identifier, SpecPart


class Range(SpecPart):
    """The numbers from `low` to `high`, both included, that tuning may give a parameter."""

    low: int | float
    high: int | float
    log: bool = False
    """Whether to look evenly over the orders of magnitude, as for a learning rate."""
    integer: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low} has no logarithm")
        if self.integer and not all(float(end).is_integer() for end in (self.low, self.high)):
            raise ValueError(f"{self.low} and {self.high} are not both integers")
        return self

    def has(self, value: int | float) -> bool:
        """Whether `value` is one of them."""
        return self.low <= value <= self.high and (float(value).is_integer() or not self.integer)


class Choices(SpecPart):
    """The few values that tuning may give a parameter."""

    values: tuple[int | float, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"a value appears twice in {list(self.values)}")
        return self

    def has(self, value: int | float) -> bool:
        """Whether `value` is one of them."""
        return value in self.values


class Tuning(SpecPart):
    """Which parameters a study searches, and what it may cost."""

    space: dict[Identifier, Range | Choices] = Field(min_length=1)
    """By parameter; the spec's own value is among them, for it is the first that is tried."""
    trials: int = Field(ge=2)
    minutes: int = Field(ge=1)
    """From the study's opening on; no trial starts after them, and one that runs may end."""
    warm_up_epochs: int = Field(1, ge=0)
    """Epochs of each trial after which it may be pruned, at the earliest."""
    unpruned_trials: int = Field(4, ge=1)
    """Trials that must have finished before any is pruned."""
    parallel_trials: int = Field(1, ge=1)
    """How many run at once; with more than one their order, and so the study, is not repeatable."""


class CrossValidation(SpecPart):
    """Folds in order of time, over the train and validation windows."""

    folds: int = Field(ge=2)
    fold_days: int = Field(ge=1)
    """Days that each fold is measured on; as many before them say when its training stops."""
    parallel_folds: int = Field(1, ge=1)

    @property
    def held_out_days(self) -> int:
        """Days that the first fold does not learn from."""
        return (self.folds + 1) * self.fold_days


class TrainingPolicy(SpecPart):
    """How a candidate is trained; windows end at the run's as-of instant, the test window last."""

    model_builder: DottedPath
    """`module:function`, called with the spec, the training data's statistics and `parameters`."""
    parameters: dict[str, int | float]
    train_days: int = Field(ge=1)
    validation_days: int = Field(ge=1)
    test_days: int = Field(ge=1)
    seed: int = 2013
    when_stale: Literal["mark", "retrain"] = "mark"
    """What follows when published rows change that the champion was trained on, beside marking it."""
    tuning: Tuning | None = None
    """Without it the parameters cannot be tuned."""
    cross_validation: CrossValidation | None = None
    """Without it there is no cross-validation."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = list(self._contradictions())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _contradictions(self) -> Iterable[str]:
        for name, values in (self.tuning.space if self.tuning else {}).items():
            if name not in self.parameters:
                yield f"tuning.space: {name!r} is not one of the parameters"
            elif not values.has(self.parameters[name]):
                yield f"tuning.space.{name}: the spec's own {self.parameters[name]} is not in it"

    @property
    def total_days(self) -> int:
        """Length of the three windows together."""
        return self.train_days + self.validation_days + self.test_days
