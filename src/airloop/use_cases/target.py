"""What kind of thing a label is, and which figures say how well it is predicted: parts of a spec.

Belongs here: the kinds of targets, and names, directions and words of their figures. Does not belong here:
computing a figure (`airloop.training.measures`, `airloop.row_losses`), or thresholds (`gates`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from airloop.use_cases.part import Identifier, SpecPart

Kind = Literal["binary", "multiclass", "regression", "quantiles"]


class Figure(NamedTuple):
    """A measure of predictions against labels."""

    name: str
    words: str
    """As people read it."""
    higher_is_better: bool
    in_unit: bool = False
    """Whether it has the label's unit."""

    @property
    def gain(self) -> str:
        """What the name of a difference from another model begins with: above 0, the first is better."""
        return f"{self.name}_{'over' if self.higher_is_better else 'under'}"

    @property
    def lack(self) -> str:
        """What a difference is called that should be small."""
        return f"{self.name}_{'loss' if self.higher_is_better else 'excess'}"


LOG_LOSS: Final = Figure("log_loss", "log loss", higher_is_better=False)
CALIBRATION_ERROR: Final = Figure("calibration_error", "calibration error", higher_is_better=False)
MEAN_ABSOLUTE_ERROR: Final = Figure(
    "mean_absolute_error", "mean absolute error", higher_is_better=False, in_unit=True
)
MEAN_SQUARED_ERROR: Final = Figure("mean_squared_error", "mean squared error", higher_is_better=False)
ROOT_MEAN_SQUARED_ERROR: Final = Figure(
    "root_mean_squared_error", "root mean squared error", higher_is_better=False, in_unit=True
)


class Binary(SpecPart):
    """It happens or not: 1 or 0. An answer is its probability."""

    kind: Literal["binary"] = "binary"

    @property
    def output(self) -> str:
        """What the model's signature calls an answer."""
        return "probability"

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures, the one that ranks candidates first."""
        return (
            Figure("roc_auc", "ROC AUC", higher_is_better=True),
            LOG_LOSS,
            Figure("average_precision", "average precision", higher_is_better=True),
            Figure("brier", "Brier score", higher_is_better=False),
            CALIBRATION_ERROR,
        )

    @property
    def loss(self) -> Figure:
        """The mean over rows of what each row's answer costs."""
        return LOG_LOSS

    @property
    def answers(self) -> tuple[str, ...]:
        """What the numbers of an answer are called, in their order."""
        return ("probability",)


class Multiclass(SpecPart):
    """One of several classes. An answer is a probability for each, and they sum to 1."""

    kind: Literal["multiclass"] = "multiclass"
    classes: tuple[Identifier, ...] = Field(min_length=3)
    """As the label's column has them."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must differ, found {list(self.classes)}")
        return self

    @property
    def output(self) -> str:
        """See `Binary`."""
        return "probabilities"

    @property
    def figures(self) -> tuple[Figure, ...]:
        """See `Binary`."""
        return (
            Figure("accuracy", "accuracy", higher_is_better=True),
            LOG_LOSS,
            Figure("macro_f1", "macro F1", higher_is_better=True),
            CALIBRATION_ERROR,
        )

    @property
    def loss(self) -> Figure:
        """See `Binary`."""
        return LOG_LOSS

    @property
    def answers(self) -> tuple[str, ...]:
        """See `Binary`."""
        return self.classes


class Regression(SpecPart):
    """A number. An answer is the number that is expected."""

    kind: Literal["regression"] = "regression"
    unit: str = Field(min_length=1)
    """Such as minutes."""
    estimates: Literal["mean", "median"] = "mean"
    """Which number: the mean is what squared errors are least about, the median absolute ones."""

    @property
    def output(self) -> str:
        """See `Binary`."""
        return "prediction"

    @property
    def figures(self) -> tuple[Figure, ...]:
        """See `Binary`."""
        about_mean = (ROOT_MEAN_SQUARED_ERROR, MEAN_SQUARED_ERROR)
        about_median = (MEAN_ABSOLUTE_ERROR,)
        first = about_mean if self.estimates == "mean" else about_median
        return (
            *first,
            *(about_median if first is about_mean else about_mean),
            Figure("r_squared", "R²", higher_is_better=True),
            Figure("absolute_bias", "absolute bias", higher_is_better=False, in_unit=True),
        )

    @property
    def loss(self) -> Figure:
        """See `Binary`."""
        return MEAN_SQUARED_ERROR if self.estimates == "mean" else MEAN_ABSOLUTE_ERROR

    @property
    def answers(self) -> tuple[str, ...]:
        """See `Binary`."""
        return (self.estimates,)


class Quantiles(SpecPart):
    """A number. An answer says below which values it lies with given probabilities."""

    kind: Literal["quantiles"] = "quantiles"
    unit: str = Field(min_length=1)
    levels: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"levels must rise, found {list(self.levels)}")
        return self

    @property
    def output(self) -> str:
        """See `Binary`."""
        return "quantiles"

    @property
    def figures(self) -> tuple[Figure, ...]:
        """See `Binary`."""
        return (
            Figure("pinball_loss", "pinball loss", higher_is_better=False, in_unit=True),
            Figure("coverage_error", "coverage error", higher_is_better=False),
        )

    @property
    def loss(self) -> Figure:
        """See `Binary`."""
        return self.figures[0]

    @property
    def answers(self) -> tuple[str, ...]:
        """See `Binary`: `q10` is what a tenth lies below."""
        return tuple(f"q{level * 100:g}".replace(".", "_") for level in self.levels)


Target = Annotated[Binary | Multiclass | Regression | Quantiles, Field(discriminator="kind")]


def is_wide(target: Target) -> bool:
    """Whether an answer is a vector, also where it has one number."""
    return target.kind in ("multiclass", "quantiles")


def has_classes(target: Target) -> bool:
    """Whether the label is one of several classes, or happens or not."""
    return target.kind in ("binary", "multiclass")


def figure_names(kind: Kind) -> tuple[str, ...]:
    """The names of the figures of a kind, whatever its target is like."""
    return _FIGURE_NAMES[kind]


_FIGURE_NAMES: Final[Mapping[Kind, tuple[str, ...]]] = {
    target.kind: tuple(figure.name for figure in target.figures)
    for target in (
        Binary(),
        Multiclass(classes=("a", "b", "c")),
        Regression(unit="any"),
        Quantiles(unit="any", levels=(0.5,)),
    )
}
