"""Ranges that hold the truth as often as they say, wider where rows depend on each other."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from airloop.row_losses import log_losses
from airloop.training.bootstrap import LEVEL, gain_range, ranges, resampled
from airloop.training.measures.binary import measure, scored
from airloop.use_cases.target import Binary


def rows(count: int, seed: int, strength: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    signal = random.normal(size=count)
    labels = (random.random(count) < 1 / (1 + np.exp(-signal * strength))).astype(np.int8)
    return labels, 1 / (1 + np.exp(-signal * strength))


def test_figures_of_a_resample_are_those_of_its_rows() -> None:
    labels, found = rows(500, 0)
    found = np.round(found, 1)
    weights = next(iter(resampled(np.arange(500) // 20, 3, 1)))
    repeated = np.repeat(np.arange(500), weights.astype(int))
    one = scored(labels, found)
    figures = one.figures(weights)
    drawn_labels, drawn = labels[repeated], found[repeated]
    assert figures["roc_auc"] == pytest.approx(roc_auc_score(drawn_labels, drawn))
    assert figures["average_precision"] == pytest.approx(average_precision_score(drawn_labels, drawn))
    assert figures["log_loss"] == pytest.approx(log_loss(drawn_labels, drawn))
    assert figures["brier"] == pytest.approx(brier_score_loss(drawn_labels, drawn))


def test_on_all_rows_the_figures_are_those_that_are_measured() -> None:
    labels, found = rows(500, 4)
    measured = measure(labels, found).figures()
    assert scored(labels, found).figures(np.ones(500)) == pytest.approx(measured)


def test_the_range_of_a_mean_gain_is_that_of_the_resampled_losses() -> None:
    labels, found = rows(2000, 9)
    blurred = np.clip(found + np.random.default_rng(1).normal(0, 0.15, 2000), 0.01, 0.99)
    days = np.arange(2000) // 100
    gains = log_losses(labels, blurred) - log_losses(labels, found)
    both = ranges(Binary(), {"ours": found, "theirs": blurred}, labels, days, 0)["log_loss_under_theirs"]
    assert gain_range(gains, days, 0).model_dump() == pytest.approx(both.model_dump())
    assert gain_range(gains, days % 4, 0) is None


def test_whole_blocks_are_drawn_and_as_many_as_there_are() -> None:
    blocks = np.arange(90) // 10
    for weights in resampled(blocks, 1, 50):
        by_block = weights.reshape(9, 10)
        assert (by_block == by_block[:, :1]).all()
        assert by_block[:, 0].sum() == 9


def test_a_range_holds_the_truth_about_as_often_as_it_says() -> None:
    labels, found = rows(200_000, 0)
    truth = roc_auc_score(labels, found)
    held = 0
    for seed in range(100):
        few_labels, few = rows(400, seed + 1)
        found_range = ranges(Binary(), {"m": few}, few_labels, np.arange(400) // 10, seed)["m.roc_auc"]
        held += found_range.low <= truth <= found_range.high
    # 95 are to be expected; fewer than 86 would come about once in 3,000 times.
    assert 86 <= held <= 100
    assert LEVEL == 0.95


def test_rows_that_share_a_days_luck_make_the_range_wider() -> None:
    labels, found = rows(40, 5)
    days = 30
    labels, found = np.tile(labels, days), np.tile(found, days)
    random = np.random.default_rng(2)
    luck = np.repeat(random.random(days) < 0.3, 40)
    labels = np.where(luck, 1 - labels, labels)
    by_day = ranges(Binary(), {"m": found}, labels, np.repeat(np.arange(days), 40), 0)["m.roc_auc"]
    by_row = ranges(Binary(), {"m": found}, labels, np.arange(days * 40), 0)["m.roc_auc"]
    assert by_day.high - by_day.low > 1.5 * (by_row.high - by_row.low)


def test_models_are_compared_on_the_same_draws() -> None:
    labels, found = rows(2000, 9)
    blurred = np.clip(found + np.random.default_rng(1).normal(0, 0.15, 2000), 0.01, 0.99)
    figures = ranges(Binary(), {"candidate": found, "champion": blurred}, labels, np.arange(2000) // 100, 0)
    better = figures["roc_auc_over_champion"]
    assert better.low > 0
    assert better.share_not_above_zero == 0
    # Each alone is less sure than their difference.
    assert better.high - better.low < figures["candidate.roc_auc"].high - figures["candidate.roc_auc"].low
    same = ranges(Binary(), {"candidate": found, "champion": found}, labels, np.arange(2000) // 100, 0)
    equal = same["log_loss_under_champion"]
    assert (equal.low, equal.high, equal.share_not_above_zero) == (0, 0, 1)
    again = ranges(Binary(), {"candidate": found, "champion": blurred}, labels, np.arange(2000) // 100, 0)
    assert again == figures


@pytest.mark.parametrize("broken", ["one class", "few blocks", "not finite"])
def test_what_cannot_be_resampled_has_no_range(broken: str) -> None:
    labels, found = rows(100, 0)
    blocks = np.arange(100) // 10
    if broken == "one class":
        labels = np.zeros(100, np.int8)
    elif broken == "few blocks":
        blocks = np.arange(100) // 25
    else:
        found = np.where(np.arange(100) == 3, np.nan, found)
    assert ranges(Binary(), {"m": found}, labels, blocks, 0) == {}
