"""Temperature scaling, and when it is used."""

from __future__ import annotations

import numpy as np
import pytest

from airloop.training.calibration import IDENTITY, calibrate
from airloop.training.measures.binary import calibration_error, log_loss, measure

ROWS = 20000


def drawn(logits: np.ndarray, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(np.int8)


def alone(logits: np.ndarray) -> np.ndarray:
    """An ensemble of one."""
    return logits[:, None]


def pooled(members: np.ndarray) -> np.ndarray:
    chance = (1 / (1 + np.exp(-members))).mean(axis=1)
    return np.asarray(np.log(chance / (1 - chance)))


def test_an_overconfident_model_is_brought_back() -> None:
    true = np.random.default_rng(1).normal(-1, 1, ROWS)
    labels = drawn(true, 2)
    found = calibrate(2 * true + 0.5, alone(2 * true + 0.5), labels, centre=-0.5)
    assert found.slope == pytest.approx(0.5, abs=0.05)
    assert found.offset == pytest.approx(-0.25, abs=0.03)
    assert log_loss(labels, found.apply(2 * true + 0.5)) < log_loss(labels, IDENTITY.apply(2 * true + 0.5))


def test_a_model_that_is_right_is_hardly_changed() -> None:
    true = np.random.default_rng(1).normal(-1, 1, ROWS)
    assert calibrate(true, alone(true), drawn(true, 2), centre=-1.0).slope == pytest.approx(1.0, abs=0.04)


def test_a_confidence_that_did_not_last_is_not_learnt() -> None:
    true = np.random.default_rng(1).normal(-1, 1, ROWS)
    early, late = drawn(2 * true + 1, 2)[: ROWS // 2], drawn(0.5 * true - 0.5, 3)[ROWS // 2 :]
    assert calibrate(true, alone(true), np.concatenate([early, late]), centre=-1.0) == IDENTITY


def test_a_confidence_that_only_these_weeks_ask_for_is_not_learnt() -> None:
    true = np.random.default_rng(1).normal(-1, 1, ROWS)
    assert calibrate(true, alone(true), drawn(1.4 * true + 0.4, 2), centre=-1.0) == IDENTITY


def test_what_pooling_costs_in_confidence_is_given_back_whatever_the_weeks_are_like() -> None:
    random = np.random.default_rng(1)
    true = random.normal(-1, 1.5, ROWS)
    # Each member is calibrated for itself: what it takes for the truth is shrunk as far as it errs.
    members = -1 + (true[:, None] + 1 + random.normal(0, 0.7, (ROWS, 8))) * 1.5**2 / (1.5**2 + 0.7**2)
    together = pooled(members)
    usual, stark = drawn(true, 2), drawn(-1 + 1.2 * (true + 1), 2)
    found = calibrate(together, members, usual, centre=-1.0)
    assert 1.05 < found.slope < 1.5
    assert log_loss(usual, found.apply(together)) < log_loss(usual, IDENTITY.apply(together))
    assert calibrate(together, members, stark, centre=-1.0).slope == pytest.approx(found.slope, abs=0.12)


def test_the_level_at_the_centre_stays_whatever_the_validation_window_was_like() -> None:
    true = np.random.default_rng(1).normal(-1, 1, ROWS)
    found = calibrate(true, alone(true), drawn(true - 1, 2), centre=-1.0)
    assert found.slope * -1.0 + found.offset == pytest.approx(-1.0)


@pytest.mark.parametrize("labels", [np.zeros(ROWS, np.int8), np.array([0, 1] * 20, np.int8)])
def test_one_class_or_few_rows_calibrate_nothing(labels: np.ndarray) -> None:
    assert calibrate(np.zeros(len(labels)), np.zeros((len(labels), 1)), labels, centre=0.0) == IDENTITY


def test_calibration_error_is_the_gap_between_said_and_seen() -> None:
    labels = np.array([0, 1] * 500)
    assert calibration_error(labels, np.full(1000, 0.5)) == pytest.approx(0, abs=0.02)
    assert calibration_error(labels, np.full(1000, 0.9)) == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [([0, 0], [0.1, 0.2]), ([1, 1], [0.1, 0.2]), ([0, 1], [0.1, np.nan]), ([], [])],
)
def test_measures_that_are_not_defined_are_none(labels: list[int], probabilities: list[float]) -> None:
    found = measure(np.array(labels), np.array(probabilities))
    assert found.rows == len(labels)
    assert set(found.figures().values()) == {None}


def test_measures_of_a_perfect_and_a_useless_model() -> None:
    labels = np.array([0, 1] * 50)
    perfect, useless = measure(labels, labels.astype(np.float32)), measure(labels, np.full(100, 0.5))
    assert (perfect.roc_auc, perfect.average_precision, perfect.brier) == (1.0, 1.0, 0.0)
    assert useless.roc_auc == 0.5
    assert useless.log_loss == pytest.approx(np.log(2))
