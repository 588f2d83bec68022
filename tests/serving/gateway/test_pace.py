"""A shadow gets all copies while it keeps up, and few once it would take the processors from the champion."""

from __future__ import annotations

import pytest

from serving.gateway import pace as paces
from serving.gateway.pace import MOST_COPIES, RESTS, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(paces, "time", made)
    return made


def test_one_that_keeps_up_gets_all_copies_up_to_so_many_at_once(clock: Clock) -> None:
    pace = Pace()
    pace.champion_took(0.004)
    assert pace.begin()
    pace.end(0.006)
    assert [pace.begin() for _ in range(MOST_COPIES + 1)] == [True] * MOST_COPIES + [False]
    pace.end(0.006)
    assert pace.begin()


def test_a_slow_one_is_asked_one_at_a_time_and_rests(clock: Clock) -> None:
    pace = Pace()
    pace.champion_took(0.004)
    assert pace.begin()
    pace.end(0.04)
    assert not pace.begin()
    clock.now += RESTS * 0.04 + 0.001
    assert [pace.begin() for _ in range(2)] == [True, False]


def test_its_share_of_a_processor_is_a_quarter(clock: Clock) -> None:
    pace = Pace()
    pace.champion_took(0.004)
    busy, begun, ends = 0.0, clock.now, None
    while clock.now < begun + 60:
        clock.now += 0.01
        if ends is not None and clock.now >= ends:
            pace.end(0.05)
            ends = None
        if ends is None and pace.begin():
            ends, busy = clock.now + 0.05, busy + 0.05
    assert busy / 60 == pytest.approx(1 / (1 + RESTS), abs=0.05)


def test_one_that_becomes_quick_again_gets_all_copies_again(clock: Clock) -> None:
    pace = Pace()
    pace.champion_took(0.004)
    assert pace.begin()
    pace.end(0.04)
    for _ in range(100):
        clock.now += 1
        assert pace.begin()
        pace.end(0.004)
    assert [pace.begin() for _ in range(MOST_COPIES + 1)] == [True] * MOST_COPIES + [False]


def test_without_a_champion_to_compare_with_only_the_number_counts(clock: Clock) -> None:
    pace = Pace()
    assert pace.begin()
    pace.end(5.0)
    assert [pace.begin() for _ in range(MOST_COPIES + 1)] == [True] * MOST_COPIES + [False]
