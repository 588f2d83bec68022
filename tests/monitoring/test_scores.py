"""Sums over answers say what the answers themselves say, and add up."""

from __future__ import annotations

import numpy as np
import pytest

from airloop.monitoring.scores.binary import BinaryFigures, BinaryScoring
from airloop.monitoring.scores.sums import nothing
from airloop.row_losses import log_losses
from airloop.training.measures.binary import measure

ROWS = 20_000
SCORING = BinaryScoring()


def answers(random: np.random.Generator, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    probabilities = random.beta(2, 6, rows)
    return probabilities, (random.random(rows) < probabilities).astype(float)


def test_figures_of_sums_are_those_of_the_answers() -> None:
    probabilities, labels = answers(np.random.default_rng(0))
    found, exact = (
        SCORING.figures(SCORING.scores_of(probabilities, labels)),
        measure(labels.astype(int), probabilities),
    )
    assert (found.answers, found.labelled, found.positives) == (ROWS, ROWS, int(labels.sum()))
    assert found.log_loss == pytest.approx(exact.log_loss, abs=1e-12)
    assert found.brier == pytest.approx(exact.brier, abs=1e-12)
    rate = labels.mean()
    gains = log_losses(labels, np.full(ROWS, rate)) - log_losses(labels, probabilities)
    assert found.gain == pytest.approx(gains.mean(), abs=1e-9)
    assert found.gain_deviation == pytest.approx(gains.std(), abs=1e-9)
    assert found.roc_auc == pytest.approx(exact.roc_auc, abs=0.001)
    assert found.calibration_error == pytest.approx(exact.calibration_error, abs=0.004)


def test_sums_of_parts_are_the_sums_of_the_whole() -> None:
    probabilities, labels = answers(np.random.default_rng(1))
    whole = SCORING.scores_of(probabilities, labels)
    parts = nothing(SCORING)
    for start in range(0, ROWS, 3000):
        parts = parts.plus(
            SCORING.scores_of(probabilities[start : start + 3000], labels[start : start + 3000])
        )
    for name, sums in whole.sums.items():
        assert np.allclose(sums, parts[name])


def test_answers_without_a_label_are_answers_and_nothing_else() -> None:
    random = np.random.default_rng(2)
    probabilities, labels = answers(random)
    known = random.random(ROWS) < 0.6
    found = SCORING.figures(SCORING.scores_of(probabilities, np.where(known, labels, np.nan)))
    alone = SCORING.figures(SCORING.scores_of(probabilities[known], labels[known]))
    assert found.answers == ROWS
    assert found.label_share == pytest.approx(known.mean())
    assert found.model_copy(update={"answers": alone.answers}) == alone


def test_the_gain_of_a_base_rate_is_none_and_that_of_worse_is_negative() -> None:
    labels = np.repeat([0.0, 1.0], [700, 300])
    assert SCORING.figures(SCORING.scores_of(np.full(1000, 0.3), labels)).gain == pytest.approx(0, abs=1e-12)
    assert (SCORING.figures(SCORING.scores_of(np.full(1000, 0.6), labels)).gain or 0) < -0.1


@pytest.mark.parametrize("labels", [np.zeros(5), np.ones(5), np.full(5, np.nan)])
def test_without_both_labels_there_are_no_figures(labels: np.ndarray) -> None:
    found = SCORING.figures(SCORING.scores_of(np.full(5, 0.2), labels))
    known = int((~np.isnan(labels)).sum())
    assert found == BinaryFigures(answers=5, labelled=known, positives=int(np.nansum(labels)))
    assert SCORING.figures(nothing(SCORING)).label_share == 0


def test_answers_of_0_and_1_have_a_cell_and_a_loss() -> None:
    found = SCORING.figures(SCORING.scores_of(np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0])))
    assert found.log_loss == pytest.approx(-np.log(1e-7) / 3, rel=1e-3)
