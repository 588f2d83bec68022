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


ROC_AUC: Final = Figure("roc_auc", "ROC AUC", higher_is_better=True)
BRIER: Final = Figure("brier", "Brier score", higher_is_better=False)
ACCURACY: Final = Figure("accuracy", "accuracy", higher_is_better=True)
LOG_LOSS: Final = Figure("log_loss", "log loss", higher_is_better=False)
CALIBRATION_ERROR: Final = Figure("calibration_error", "calibration error", higher_is_better=False)
MEAN_ABSOLUTE_ERROR: Final = Figure(
    "mean_absolute_error", "mean absolute error", higher_is_better=False, in_unit=True
)
MEAN_SQUARED_ERROR: Final = Figure("mean_squared_error", "mean squared error", higher_is_better=False)
ROOT_MEAN_SQUARED_ERROR: Final = Figure(
    "root_mean_squared_error", "root mean squared error", higher_is_better=False, in_unit=True
)


class _Kind(SpecPart):
    """What the kinds of labels have in common."""

    kind: Kind

    @property
    def is_wide(self) -> bool:
        """Whether an answer is a vector, also where it has one number."""
        return self.kind in ("multiclass", "quantiles")

    @property
    def has_classes(self) -> bool:
        """Whether the label is one of several classes, or happens or not."""
        return self.kind in ("binary", "multiclass")

    @property
    def loss(self) -> Figure:
        """The mean over rows of what each row's answer costs."""
        return LOG_LOSS

    def number_of(self, label: str | float) -> float:
        """A label as a number: of several classes its place among them."""
        return float(label)


class Binary(_Kind):
    """It happens or not: 1 or 0. An answer is its probability."""

    kind: Literal["binary"] = "binary"

    @property
    def output(self) -> str:
        """What the model's signature calls an answer."""
        return "probability"

    @property
    def scale(self) -> str:
        """What it is counted in how much an input adds to an answer."""
        return "log-odds"

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures, the one that ranks candidates first."""
        return (
            ROC_AUC,
            LOG_LOSS,
            Figure("average_precision", "average precision", higher_is_better=True),
            BRIER,
            CALIBRATION_ERROR,
        )

    @property
    def answers(self) -> tuple[str, ...]:
        """What the numbers of an answer are called, in their order."""
        return ("probability",)


class Multiclass(_Kind):
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
    def scale(self) -> str:
        """See `Binary`."""
        return "log-odds of the class given"

    @property
    def figures(self) -> tuple[Figure, ...]:
        """See `Binary`."""
        return (
            ACCURACY,
            LOG_LOSS,
            Figure("macro_f1", "macro F1", higher_is_better=True),
            CALIBRATION_ERROR,
        )

    @property
    def answers(self) -> tuple[str, ...]:
        """See `Binary`."""
        return self.classes

    def number_of(self, label: str | float) -> float:
        """See `_Kind`; raises `ValueError` for what is no class."""
        return float(self.classes.index(str(label)))


class Regression(_Kind):
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
    def scale(self) -> str:
        """See `Binary`."""
        return self.unit

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
        """See `_Kind`."""
        return MEAN_SQUARED_ERROR if self.estimates == "mean" else MEAN_ABSOLUTE_ERROR

    @property
    def answers(self) -> tuple[str, ...]:
        """See `Binary`."""
        return (self.estimates,)


class Quantiles(_Kind):
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
    def scale(self) -> str:
        """See `Binary`."""
        return self.unit

    @property
    def figures(self) -> tuple[Figure, ...]:
        """See `Binary`."""
        return (
            Figure("pinball_loss", "pinball loss", higher_is_better=False, in_unit=True),
            Figure("coverage_error", "coverage error", higher_is_better=False),
        )

    @property
    def loss(self) -> Figure:
        """See `_Kind`."""
        return self.figures[0]

    @property
    def answers(self) -> tuple[str, ...]:
        """See `Binary`: `q10` is what a tenth lies below."""
        return tuple(f"q{level * 100:g}".replace(".", "_") for level in self.levels)


Target = Annotated[Binary | Multiclass | Regression | Quantiles, Field(discriminator="kind")]


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
