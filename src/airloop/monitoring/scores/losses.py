"""How good answers were whose label is a number, or one of several classes.

Belongs here: sums and figures of these kinds. Does not belong here: labels that are 1 or 0 (`binary`).

What tells decay is the *skill*: by which share the loss lies below that of one answer for all rows, the one
that was best on the version's test days (Murphy, Skill Scores Based on the Mean Square Error and Their
Relationships to the Correlation Coefficient, Monthly Weather Review 1988, with climatology as reference). The
loss alone is larger on days on which numbers differ more, with any model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydantic import Field

from airloop.monitoring.scores.sums import Figures, Scores, Tested
from airloop.prediction_log.answers import shaped
from airloop.row_losses import row_losses
from airloop.use_cases.target import ACCURACY, LOG_LOSS, Figure, Multiclass, Quantiles, Regression

SKILL: Final = Figure("skill", "skill over one answer for all", higher_is_better=True)


class LossFigures(Figures):
    """What the sums say."""

    figures: dict[str, float] = Field(default_factory=dict)
    """The label's own (`Target.figures`), by name; empty where nothing is known."""
    skill: float | None = None
    """1 for answers that cost nothing, 0 for such as cost what the usual answer does."""
    skill_deviation: float | None = None
    """Such that the skill's variance by chance is its square over the rows."""

    @property
    def named(self) -> dict[str, float | None]:
        """See `Figures`."""
        return {SKILL.name: self.skill, **self.figures}

    @property
    def tested(self) -> tuple[Tested, ...]:
        """The skill."""
        if self.skill is None or self.skill_deviation is None:
            return ()
        return (Tested(SKILL.name, self.skill, self.skill_deviation**2 / self.labelled, 0.0),)


@dataclass(frozen=True)
class LossScoring:
    """See `Scoring`. Other sums than `answers` are of those with a label."""

    target: Multiclass | Regression | Quantiles

    @property
    def cells(self) -> int:
        """One: no figure depends on how high an answer was."""
        return 1

    @property
    def sums(self) -> tuple[str, ...]:
        """See `Scoring`."""
        common = ("answers", "labelled", "loss", "usual_loss", "loss_squared", "usual_squared", "product")
        return (*common, *self._own_sums())

    @property
    def tested(self) -> tuple[Figure, ...]:
        """See `Scoring`."""
        return (SKILL,)

    @property
    def measured(self) -> tuple[Figure, ...]:
        """See `Scoring`."""
        own = (ACCURACY, LOG_LOSS) if isinstance(self.target, Multiclass) else self.target.figures
        return (SKILL, *own)

    def scores_of(self, answers: np.ndarray, labels: np.ndarray, usual: Sequence[float]) -> Scores:
        """See `Scoring`."""
        known = ~np.isnan(labels)
        told, labels = answers[known].astype(np.float64), labels[known]
        same = np.tile(np.asarray(usual, np.float64), (len(labels), 1))
        loss = row_losses(self.target, labels, told)
        base = row_losses(self.target, labels, shaped(self.target, same))
        columns = {
            "loss": loss,
            "usual_loss": base,
            "loss_squared": loss**2,
            "usual_squared": base**2,
            "product": loss * base,
            **self._own_columns(told, labels),
        }
        sums = {"answers": len(answers), "labelled": len(labels)}
        sums |= {name: values.sum() for name, values in columns.items()}
        return Scores({name: np.array([value], np.float64) for name, value in sums.items()})

    def figures(self, scores: Scores) -> LossFigures:
        """See `Scoring`."""
        sums = {name: float(values.sum()) for name, values in scores.sums.items()}
        answers, rows = int(sums["answers"]), int(sums["labelled"])
        if not rows or not sums["usual_loss"]:
            return LossFigures(answers=answers, labelled=rows)
        ratio = sums["loss"] / sums["usual_loss"]
        # Of a ratio of means, by the delta method.
        squares = ratio**2 * sums["usual_squared"] - 2 * ratio * sums["product"] + sums["loss_squared"]
        return LossFigures(
            answers=answers,
            labelled=rows,
            figures=self._own_figures({name: value / rows for name, value in sums.items()}),
            skill=1 - ratio,
            skill_deviation=float(np.sqrt(max(squares * rows, 0.0)) / sums["usual_loss"]),
        )

    def _own_sums(self) -> tuple[str, ...]:
        match self.target:
            case Multiclass():
                return ("right",)
            case Quantiles():
                return tuple(f"below_{name}" for name in self.target.answers)
            case _:
                return ("label", "label_squared", "gap", "gap_squared", "gap_absolute")

    def _own_columns(self, answers: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        match self.target:
            case Multiclass():
                values = [answers.argmax(axis=1) == labels]
            case Quantiles():
                values = list((labels[:, None] <= answers).T)
            case _:
                gaps = answers - labels
                values = [labels, labels**2, gaps, gaps**2, np.abs(gaps)]
        return {name: value.astype(np.float64) for name, value in zip(self._own_sums(), values, strict=True)}

    def _own_figures(self, means: dict[str, float]) -> dict[str, float]:
        """As `airloop.training.measures` has them, from means over the rows."""
        match self.target:
            case Multiclass():
                return {"log_loss": means["loss"], "accuracy": means["right"]}
            case Quantiles(levels=levels):
                gaps = [
                    abs(means[name] - level) for name, level in zip(self._own_sums(), levels, strict=True)
                ]
                return {"pinball_loss": means["loss"], "coverage_error": float(np.mean(gaps))}
            case _:
                squared, variance = means["gap_squared"], means["label_squared"] - means["label"] ** 2
                found = {
                    "root_mean_squared_error": squared**0.5,
                    "mean_squared_error": squared,
                    "mean_absolute_error": means["gap_absolute"],
                    "absolute_bias": abs(means["gap"]),
                }
                return found | ({"r_squared": 1 - squared / variance} if variance > 0 else {})
