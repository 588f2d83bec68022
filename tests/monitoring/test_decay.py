"""A champion decays when its gain is smaller than days explain, by enough, on enough days."""

from __future__ import annotations

import numpy as np
import pytest

from airloop.monitoring.decay import Quality, decay_alarmed, quality
from airloop.monitoring.scores import Figures
from airloop.monitoring.scores.binary import BinaryFigures, BinaryScoring
from airloop.use_cases.monitoring_policy import DecayRule

RULE = DecayRule()
ROWS = 900
SCORING = BinaryScoring()


def day(random: np.random.Generator, rows: int = ROWS, blur: float = 0.0, storm: float = 0.3) -> Figures:
    """A day of its own level; `blur` is how much of what the model knew is wrong now."""
    logit = random.normal(-1.3, 1.0, rows)
    level = random.normal(0, storm)
    labels = (random.random(rows) < 1 / (1 + np.exp(-(logit + level)))).astype(float)
    told = (1 - blur) * logit + blur * random.normal(-1.3, 1.0, rows)
    return SCORING.figures(SCORING.scores_of(1 / (1 + np.exp(-told)), labels))


@pytest.fixture(scope="module")
def usual() -> list[Figures]:
    random = np.random.default_rng(0)
    return [day(random) for _ in range(28)]


@pytest.mark.parametrize("rows", [ROWS, 250, 20_000])
def test_days_like_the_test_days_are_called_worse_as_rarely_as_is_said(
    usual: list[Figures], rows: int
) -> None:
    random = np.random.default_rng(1)
    found = [quality(day(random, rows), usual, RULE) for _ in range(600)]
    assert all(one.judged for one in found)
    assert np.mean([(one.p_value or 0) <= RULE.significance for one in found]) <= 0.03


def test_a_model_that_knows_less_than_it_knew_is_found_and_a_stormy_day_seldom(
    usual: list[Figures],
) -> None:
    random = np.random.default_rng(2)
    for blur, share in ((0.5, 0.6), (0.7, 0.95)):
        found = [quality(day(random, blur=blur), usual, RULE).decayed for _ in range(100)]
        assert np.mean(found) >= share
    stormy = [quality(day(random, storm=0.6), usual, RULE).decayed for _ in range(100)]
    assert np.mean(stormy) < 0.2


def test_too_few_labels_or_days_are_no_verdict(usual: list[Figures]) -> None:
    one = day(np.random.default_rng(3))
    waits = one.model_copy(update={"answers": int(one.labelled / 0.79)})
    assert not quality(waits, usual, RULE).judged
    assert not quality(one.model_copy(update={"labelled": 199, "answers": 199}), usual, RULE).judged
    few = quality(one, usual[:13], RULE)
    assert (few.judged, few.usual, few.decayed) == (False, {}, False)
    assert not quality(BinaryFigures(answers=900, labelled=900, positives=0), usual, RULE).judged


def test_what_is_certain_and_small_is_no_decay(usual: list[Figures]) -> None:
    random = np.random.default_rng(4)
    tolerant = RULE.model_copy(update={"least_lost_share": 0.9})
    found = quality(day(random, 20_000, blur=0.5, storm=0), usual, tolerant)
    assert (found.p_value or 1) <= RULE.significance
    assert not found.decayed


def test_an_alarm_needs_the_newest_day_and_enough_before() -> None:
    empty = BinaryFigures(answers=0, labelled=0, positives=0)
    yes, no = Quality(empty, {}, 0.001, True), Quality(empty, {}, 0.5, False)
    assert not decay_alarmed([], RULE)
    assert not decay_alarmed([yes], RULE)
    assert decay_alarmed([yes, no, yes], RULE)
    assert not decay_alarmed([yes, yes, no], RULE)
    assert not decay_alarmed([yes, no, no, yes], RULE)
