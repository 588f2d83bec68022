"""Reliability: what was predicted, what came of it, and how far apart they are on average."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from airloop.training.measures.binary import CALIBRATION_BINS, calibration_error, measure, reliability

RANDOM = np.random.default_rng(3)
P = RANDOM.beta(2, 6, 30_000)
LABELS = (RANDOM.random(len(P)) < P).astype(np.int8)


def test_bins_hold_equally_many_rows_and_say_what_scikit_learn_says() -> None:
    bins = reliability(LABELS, P)
    observed, predicted = calibration_curve(LABELS, P, n_bins=CALIBRATION_BINS, strategy="quantile")
    assert [part.rows for part in bins] == [len(P) // CALIBRATION_BINS] * CALIBRATION_BINS
    np.testing.assert_allclose([part.mean_prediction for part in bins], predicted, atol=1e-3)
    np.testing.assert_allclose([part.observed_rate for part in bins], observed, atol=2e-3)


def test_intervals_of_a_calibrated_model_hold_its_predictions() -> None:
    bins = reliability(LABELS, P)
    assert sum(part.low <= part.mean_prediction <= part.high for part in bins) >= CALIBRATION_BINS - 2
    assert all(part.low < part.observed_rate < part.high for part in bins)


def test_an_interval_is_wilsons() -> None:
    (part,) = {(b.rows, b.low, b.high) for b in reliability(np.zeros(150, np.int8), np.full(150, 0.2))}
    # (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with p = 0, n = 10, z = 1.959964.
    assert part == (10, pytest.approx(0.0, abs=1e-12), pytest.approx(0.277533, abs=1e-6))


def test_the_calibration_error_is_the_bins_mean_distance() -> None:
    shifted = np.clip(P + 0.07, 0, 1)
    bins = reliability(LABELS, shifted)
    by_hand = sum(abs(b.observed_rate - b.mean_prediction) * b.rows for b in bins) / len(P)
    assert calibration_error(LABELS, shifted) == pytest.approx(by_hand)
    assert calibration_error(LABELS, shifted) == pytest.approx(0.07, abs=0.005)
    assert calibration_error(LABELS, P) < 0.01


def test_what_is_not_defined_has_no_bins() -> None:
    assert reliability(np.zeros(0, np.int8), np.zeros(0)) == ()
    assert reliability(LABELS[:2], np.array([0.5, np.nan])) == ()
    assert measure(LABELS[:2], np.array([0.5, np.nan])).calibration_error is None
    assert len(reliability(np.array([1, 0], np.int8), np.array([0.9, 0.2]))) == 2
