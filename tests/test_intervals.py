"""How a run finds its data interval, from every way that Airflow starts one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airloop.errors import IntervalError
from airloop.intervals import (
    ONE_HOUR,
    Interval,
    resolve_as_of,
    resolve_day_so_far,
    resolve_features_interval,
    resolve_hours,
    whole_hours_past,
)

NOW = datetime(2026, 11, 23, 17, 44, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC)


def test_the_trigger_form_comes_before_the_schedule() -> None:
    scheduled = (MIDNIGHT - timedelta(days=1), MIDNIGHT)
    found = resolve_features_interval(
        start_date="2026-03-01", end_date="2026-04-01", data_interval=scheduled, run_after=NOW
    )
    assert found.key == "20260301_20260401"


def test_a_start_alone_is_one_day() -> None:
    found = resolve_features_interval(
        start_date="2026-03-01", end_date=None, data_interval=None, run_after=NOW
    )
    assert found.days == 1


def test_a_scheduled_run_covers_its_data_interval() -> None:
    scheduled = (MIDNIGHT - timedelta(days=1), MIDNIGHT)
    found = resolve_features_interval(start_date=None, end_date=None, data_interval=scheduled, run_after=NOW)
    assert found == scheduled


def test_a_run_that_is_scheduled_at_another_hour_covers_the_days_that_are_over() -> None:
    at_three = MIDNIGHT + timedelta(hours=3)
    found = resolve_features_interval(
        start_date=None, end_date=None, data_interval=(at_three - timedelta(days=1), at_three), run_after=NOW
    )
    assert found == (MIDNIGHT - timedelta(days=1), MIDNIGHT)
    with pytest.raises(IntervalError, match="a start before the end"):
        resolve_features_interval(
            start_date=None, end_date=None, data_interval=(MIDNIGHT, at_three), run_after=NOW
        )


def test_a_run_that_late_records_started_covers_their_days_whole() -> None:
    changed = [
        Interval(datetime(2026, 11, 18, 5, tzinfo=UTC), datetime(2026, 11, 18, 6, tzinfo=UTC)),
        Interval(datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC)),
    ]
    found = resolve_features_interval(
        start_date=None, end_date=None, data_interval=None, run_after=NOW, changed=changed
    )
    assert found.key == "20261118_20261121"
    by_hand = resolve_features_interval(
        start_date="2026-03-01", end_date=None, data_interval=None, run_after=NOW, changed=changed
    )
    assert by_hand.key == "20260301_20260302"


@pytest.mark.parametrize("data_interval", [None, (NOW, NOW)])
def test_a_manual_run_covers_the_last_whole_day(data_interval: tuple[datetime, datetime] | None) -> None:
    found = resolve_features_interval(
        start_date=None, end_date=None, data_interval=data_interval, run_after=NOW
    )
    assert found == (MIDNIGHT - timedelta(days=1), MIDNIGHT)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("2026-03-02", "2026-03-02", "a start before the end"),
        ("2026-03-02", "2026-03-01", "a start before the end"),
        (None, "2026-03-01", "a start_date with the end_date"),
        ("March", None, "ISO 8601"),
        ("2026-03-01T06:00", "2026-03-02T06:00", "whole UTC days"),
    ],
)
def test_a_range_that_cannot_be_is_refused(start: str | None, end: str | None, message: str) -> None:
    with pytest.raises(IntervalError, match=message):
        resolve_features_interval(start_date=start, end_date=end, data_interval=None, run_after=NOW)


def test_as_of_is_cut_to_its_midnight() -> None:
    assert resolve_as_of(as_of=None, data_interval=None, run_after=NOW) == MIDNIGHT
    assert resolve_as_of(as_of="2026-11-20T12:00:00-05:00", data_interval=None, run_after=NOW) == datetime(
        2026, 11, 20, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("until", "hour"),
    [
        (None, "2026-11-23T15:00"),
        ("2026-11-20T14:59:59Z", "2026-11-20T14:00"),
        ("2026-11-20T00:00:00Z", "2026-11-20T00:00"),
        ("2026-11-20T23:30:00-05:00", "2026-11-21T04:00"),
    ],
)
def test_an_hourly_run_covers_the_day_up_to_its_hour(until: str | None, hour: str) -> None:
    now = datetime(2026, 11, 23, 15, 4, tzinfo=UTC)
    found = resolve_day_so_far(until=until, data_interval=None, run_after=now)
    end = datetime.fromisoformat(hour).replace(tzinfo=UTC)
    assert found.end == end
    assert timedelta(0) < found.end - found.start <= timedelta(days=1)
    assert found.start.time() == datetime.min.time()


def test_an_hourly_run_covers_the_last_full_hour() -> None:
    hour = datetime(2026, 11, 23, 17, tzinfo=UTC)
    scheduled = (hour - timedelta(minutes=40), hour + timedelta(minutes=20))
    for data_interval in (None, scheduled):
        found = resolve_hours(start=None, end=None, data_interval=data_interval, run_after=NOW)
        assert found == Interval(hour - ONE_HOUR, hour)


def test_hours_of_the_past_come_from_the_form() -> None:
    found = resolve_hours(start="2026-11-20T03:00Z", end="2026-11-21", data_interval=None, run_after=NOW)
    assert (found.end - found.start) // ONE_HOUR == 21
    last = resolve_hours(start=None, end="2026-11-20T04:00Z", data_interval=None, run_after=NOW)
    assert last.start == datetime(2026, 11, 20, 3, tzinfo=UTC)
    with pytest.raises(IntervalError, match="an end with the start"):
        resolve_hours(start="2026-11-20", end=None, data_interval=None, run_after=NOW)


def test_hours_that_are_not_whole_or_not_over_are_refused() -> None:
    hour = datetime(2026, 11, 23, 17, tzinfo=UTC)
    over = Interval(hour - ONE_HOUR, hour)
    assert whole_hours_past(over, NOW) == over
    with pytest.raises(IntervalError, match="hours that are over"):
        whole_hours_past(Interval(hour, hour + ONE_HOUR), NOW)
    with pytest.raises(IntervalError, match="whole hours"):
        whole_hours_past(Interval(hour - ONE_HOUR, NOW), NOW + ONE_HOUR)
