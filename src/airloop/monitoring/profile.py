"""What a model's inputs and answers were like in the window that it comes from, day by day.

Belongs here: the document that a version carries for its whole life, and making it. Does not belong here:
comparing a window with it (`homogeneity`), or counting a window (`spark_jobs.count_predictions`).

It is made once, with the verdict, and kept with the version's run: whatever becomes of the tables since, a
window can be compared with what the model learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from airloop.baseline import overall
from airloop.errors import MonitoringError
from airloop.monitoring.cells import Cells, category_cells, number_cells
from airloop.monitoring.monitored import PREDICTION, watched, watched_answer, watched_values
from airloop.monitoring.scores import scoring_of
from airloop.monitoring.scores.binary import BinaryFigures
from airloop.monitoring.scores.losses import LossFigures
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase

ARTIFACT: Final = "monitoring_profile.json"
"""The run's artifact that holds the profile."""


class Profiled(BaseModel):
    """One feature in the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    cells: Cells
    days: tuple[int, ...]
    """Days since the epoch, UTC, that have rows."""
    counts: tuple[tuple[int, ...], ...]
    """Of each day, how many rows each cell has."""

    def array(self) -> np.ndarray:
        """`counts` as int64 [days, cells]."""
        return np.array(self.counts, np.int64).reshape(len(self.days), len(self.cells.names))


class MeasuredDay(BaseModel):
    """How good the version was on one day of its test window."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    day: int
    """Since the epoch, UTC."""
    figures: BinaryFigures | LossFigures


class Profile(BaseModel):
    """The reference of one version."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    use_case: str
    run_id: str
    features: tuple[Profiled, ...]
    """Of the training window: what the model knows of the world."""
    prediction: Profiled
    """Of the test window: on rows that it learnt from, a model is surer than it will be again."""
    test_days: tuple[MeasuredDay, ...] = ()
    """None of versions that were evaluated before these were kept: their decay cannot be judged."""
    usual: tuple[float, ...] = ()
    """The answer that would have been best for all rows of the test window alike."""


def profile_file(settings: Settings, use_case: str, run_id: str) -> Path:
    """Where the profile of `run_id` lies for jobs without a registry (`airloop.monitoring.reference`)."""
    return settings.monitoring_dir / use_case / f"{run_id}.json"


def kept_profile(settings: Settings, use_case: str, run_id: str) -> Profile:
    """The profile of `run_id`; raises `MonitoringError` where it was not brought there."""
    path = profile_file(settings, use_case, run_id)
    try:
        return Profile.model_validate_json(path.read_text("utf-8"))
    except FileNotFoundError:
        raise MonitoringError(
            expected=f"the profile of run {run_id} in {path}",
            found="no such file",
            next_step=f"run `python -m airloop.monitoring.reference --use-case {use_case} --end <end>` "
            "first, as the monitoring DAG does",
        ) from None


def profile_of(
    use_case: UseCase,
    run_id: str,
    *,
    train: Mapping[str, np.ndarray],
    train_days: np.ndarray,
    predictions: np.ndarray,
    labels: np.ndarray,
    test_days: np.ndarray,
) -> Profile:
    """The profile of run `run_id` from its training inputs [rows], its answers in the test window [rows],
    or [rows, numbers of an answer], their labels [rows], and the day of each row, in days since the epoch."""
    values, target = watched_values(use_case, train), use_case.label.target
    answers = watched_answer(target, predictions)
    kind = "category" if target.kind == "multiclass" else "number"
    scoring, usual = scoring_of(target), overall(target, labels)
    return Profile(
        use_case=use_case.name,
        run_id=run_id,
        features=tuple(
            _profiled(_cells(name, kind, values[name]), values[name], train_days)
            for name, kind in watched(use_case).items()
        ),
        prediction=_profiled(_cells(PREDICTION, kind, answers), answers, test_days),
        test_days=tuple(
            MeasuredDay(
                day=int(day),
                figures=scoring.figures(
                    scoring.scores_of(predictions[rows], labels[rows].astype(float), usual)
                ),
            )
            for day in np.unique(test_days)
            if len(rows := np.flatnonzero(test_days == day))
        ),
        usual=usual,
    )


def _cells(name: str, kind: str, values: np.ndarray) -> Cells:
    if kind == "number":
        return number_cells(name, values)
    words, counts = np.unique(values.astype(str), return_counts=True)
    return category_cells(name, dict(zip(words.tolist(), counts.tolist(), strict=True)))


def _profiled(cells: Cells, values: np.ndarray, days: np.ndarray) -> Profiled:
    found, counts = cells.count_by(days, values)
    return Profiled(
        cells=cells, days=tuple(map(int, found)), counts=tuple(tuple(map(int, row)) for row in counts)
    )
