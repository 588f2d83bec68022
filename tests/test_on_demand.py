"""flight_delay's on-demand functions: a plane's rotation and the calendar, case by case."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from feature_repo.flight_delay_on_demand import MOST_DAYS, calendar, tail_rotation

NOON = 1_383_652_800
HOUR = 3600


def rotation(**given: Any) -> tuple[float, float, float]:
    """Turn in hours, overdue minutes and waiting of one plane, asked at noon about a departure at two."""
    values = dict.fromkeys(
        (
            "tail_last_event_at",
            "tail_last_was_landing",
            "tail_last_scheduled_departure_at",
            "tail_last_scheduled_minutes",
            "tail_due_departure_at",
            "tail_due_minutes",
        )
    )
    values |= {"scheduled_departure_seconds": NOON + 2 * HOUR, "prediction_time_seconds": NOON, **given}
    found = tail_rotation({name: [value] for name, value in values.items()})
    return tuple(found[name][0] for name in ("tail_turn_hours", "tail_overdue_minutes", "tail_is_waiting"))  # type: ignore[return-value]


LANDED = {
    "tail_last_event_at": NOON - 2 * HOUR,
    "tail_last_was_landing": 1.0,
    "tail_last_scheduled_departure_at": NOON - 5 * HOUR,
    "tail_last_scheduled_minutes": 180.0,
}
LEFT = {
    "tail_last_event_at": NOON - HOUR,
    "tail_last_was_landing": 0.0,
    "tail_last_scheduled_departure_at": NOON - 2 * HOUR,
    "tail_last_scheduled_minutes": 90.0,
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # Landed at ten, three hours back: there at one, an hour to spare.
        (LANDED, (1.0, 0.0, 0.0)),
        # Left at eleven, lands half past twelve, back at two: nothing to spare.
        (LEFT, (0.0, 0.0, 0.0)),
        # The flight that it is due for is the one that left: not waiting.
        ({**LEFT, "tail_due_departure_at": NOON - 2 * HOUR, "tail_due_minutes": 90.0}, (0.0, 0.0, 0.0)),
        # Due at eleven and still here: leaves now at the earliest, back at four.
        ({"tail_due_departure_at": NOON - HOUR, "tail_due_minutes": 120.0}, (-2.0, 60.0, 1.0)),
        # Due at eleven, but back from the flight before only at one: back at five.
        (
            {**LANDED, "tail_due_departure_at": NOON - HOUR, "tail_due_minutes": 120.0},
            (-3.0, 60.0, 1.0),
        ),
    ],
)
def test_a_planes_rotation(given: dict[str, float], expected: tuple[float, float, float]) -> None:
    assert rotation(**given) == pytest.approx(expected)


def test_an_unknown_plane_has_no_turn() -> None:
    turn, overdue, waiting = rotation()
    assert math.isnan(turn)
    assert (overdue, waiting) == (0.0, 0.0)


def test_a_movement_of_an_unknown_flight_is_taken_for_the_one_that_was_due() -> None:
    moved = {**LEFT, "tail_last_scheduled_departure_at": None}
    due = {"tail_due_departure_at": NOON - 2 * HOUR, "tail_due_minutes": 90.0}
    assert rotation(**moved, **due) == pytest.approx((0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("day", "days"),
    [
        (datetime(2013, 11, 28), 0),
        (datetime(2013, 11, 27, 23, 59), -1),
        (datetime(2013, 12, 1), 3),
        (datetime(2013, 8, 1), MOST_DAYS),
        (datetime(2013, 12, 31, 12), -1),
        (datetime(2026, 11, 26), 0),
    ],
)
def test_days_from_the_nearest_holiday(day: datetime, days: int) -> None:
    seconds = int(day.replace(tzinfo=UTC).timestamp())
    assert calendar({"scheduled_departure_local_seconds": [seconds]}) == {"days_from_holiday": [days]}


def test_lists_of_any_length_and_missing_values_are_answered() -> None:
    assert calendar({"scheduled_departure_local_seconds": []}) == {"days_from_holiday": []}
    (missing,) = calendar({"scheduled_departure_local_seconds": [None]})["days_from_holiday"]
    assert math.isnan(missing)
