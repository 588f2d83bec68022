"""Figures of labels that are numbers or one of several classes, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from airloop.row_losses import row_losses
from airloop.training.bootstrap import ranges
from airloop.training.measures import measure, reliability, scored
from airloop.use_cases.target import Binary, Multiclass, Quantiles, Regression, Target

ROWS = 3000
CLASSES = Multiclass(classes=("early", "late", "never"))
LEVELS = Quantiles(unit="minutes", levels=(0.1, 0.5, 0.9))
MEAN, MEDIAN = Regression(unit="minutes"), Regression(unit="minutes", estimates="median")
RANDOM = np.random.default_rng(3)
HEAT = RANDOM.normal(size=ROWS)
NUMBERS = 10 + 5 * HEAT + RANDOM.normal(size=ROWS) * 3
SCORES = np.exp(np.stack([HEAT, -HEAT, np.zeros(ROWS)], axis=1))
CLASS_PROBABILITIES = SCORES / SCORES.sum(axis=1, keepdims=True)
CLASS = np.array([RANDOM.choice(3, p=row) for row in CLASS_PROBABILITIES])
QUANTILES = (10 + 5 * HEAT)[:, None] + np.array([-3.84, 0.0, 3.84])
EVENT = (HEAT > 0).astype(np.int8)
KINDS: list[tuple[Target, np.ndarray, np.ndarray, np.ndarray]] = [
    (Binary(), EVENT, 1 / (1 + np.exp(-HEAT)), np.full(ROWS, 0.5)),
    (CLASSES, CLASS, CLASS_PROBABILITIES, np.full((ROWS, 3), 1 / 3)),
    (MEAN, NUMBERS, 10 + 5 * HEAT, np.full(ROWS, 10.0)),
    (MEDIAN, NUMBERS, 10 + 5 * HEAT, np.full(ROWS, 10.0)),
    (LEVELS, NUMBERS, QUANTILES, np.tile([2.0, 10.0, 18.0], (ROWS, 1))),
]
BY_KIND = pytest.mark.parametrize(
    ("target", "labels", "good", "poor"), KINDS, ids=["binary", "multiclass", "mean", "median", "quantiles"]
)


def test_figures_of_a_number_are_scikit_learns():
    found = measure(MEAN, NUMBERS, 10 + 5 * HEAT)
    assert found.root_mean_squared_error == pytest.approx(
        metrics.root_mean_squared_error(NUMBERS, 10 + 5 * HEAT)
    )
    assert found.mean_absolute_error == pytest.approx(metrics.mean_absolute_error(NUMBERS, 10 + 5 * HEAT))
    assert found.r_squared == pytest.approx(metrics.r2_score(NUMBERS, 10 + 5 * HEAT))
    assert found.absolute_bias == pytest.approx(abs(np.mean(10 + 5 * HEAT - NUMBERS)))
    assert found.positives is None


def test_figures_of_classes_are_scikit_learns():
    found, chosen = measure(CLASSES, CLASS, CLASS_PROBABILITIES), CLASS_PROBABILITIES.argmax(axis=1)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(CLASS, chosen))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(CLASS, chosen, average="macro"))
    assert found.log_loss == pytest.approx(metrics.log_loss(CLASS, CLASS_PROBABILITIES))
    assert found.positives == np.bincount(CLASS).min()
    assert found.calibration_error is not None
    assert found.calibration_error < 0.05, "the labels were drawn with these probabilities"


def test_figures_of_quantiles_are_scikit_learns():
    found = measure(LEVELS, NUMBERS, QUANTILES)
    expected = np.mean(
        [
            metrics.mean_pinball_loss(NUMBERS, QUANTILES[:, at], alpha=level)
            for at, level in enumerate(LEVELS.levels)
        ]
    )
    assert found.pinball_loss == pytest.approx(expected)
    assert found.coverage_error is not None
    assert found.coverage_error < 0.02, "they are the true quantiles"
    assert measure(LEVELS, NUMBERS, QUANTILES + 20).coverage_error == pytest.approx(0.5, abs=0.05)


@BY_KIND
def test_the_loss_of_rows_is_the_figure_and_every_figure_is_known_by_its_kind(target, labels, good, poor):
    found = measure(target, labels, good).figures()
    assert set(found) == {figure.name for figure in target.figures}
    assert all(value is not None for value in found.values())
    assert row_losses(target, labels, good).mean() == pytest.approx(found[target.loss.name])


@BY_KIND
def test_weighted_figures_with_equal_weights_are_those_of_the_rows(target, labels, good, poor):
    exact = measure(target, labels, good).figures()
    assert scored(target, labels, good).figures(np.full(ROWS, 2.0)) == pytest.approx(exact)


@BY_KIND
def test_the_better_model_is_better_beyond_chance_whichever_way_a_figure_points(target, labels, good, poor):
    found = ranges(target, {"candidate": good, "baseline": poor}, labels, np.arange(ROWS) // 100, seed=1)
    for figure in {target.figures[0], target.loss}:
        assert found[f"{figure.gain}_baseline"].low > 0
    again = ranges(target, {"candidate": poor, "baseline": good}, labels, np.arange(ROWS) // 100, seed=1)
    for figure in {target.figures[0], target.loss}:
        assert again[f"{figure.gain}_baseline"].high < 0


@BY_KIND
def test_an_answer_that_is_no_number_leaves_every_figure_undefined(target, labels, good, poor):
    broken = good.copy()
    broken[7] = np.nan
    assert set(measure(target, labels, broken).figures().values()) == {None}


def test_bins_of_a_number_hold_its_mean_label():
    bins = reliability(MEAN, NUMBERS, 10 + 5 * HEAT)
    assert sum(part.rows for part in bins) == ROWS
    assert all(part.low < part.observed_rate < part.high for part in bins)
    inside = sum(part.low <= part.mean_prediction <= part.high for part in bins)
    assert inside >= len(bins) - 3, "the predictions are the true means"


def test_a_class_that_no_row_has_is_counted_as_rarest():
    labels = np.zeros(100, int)
    found = measure(CLASSES, labels, np.tile([0.8, 0.1, 0.1], (100, 1)))
    assert found.positives == 0
    assert found.accuracy == 1
