"""Data intervals: half-open spans of time that key every run and every write.

Belongs here: the type, its text forms, and the one rule by which a run finds its interval. Does not
belong here: deciding by a clock what a run is about; its time is always an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from airloop.errors import IntervalError

ONE_DAY = timedelta(days=1)
ONE_HOUR = timedelta(hours=1)


class Interval(NamedTuple):
    """The instants from `start`, included, to `end`, excluded; both in UTC."""

    start: datetime
    end: datetime

    @property
    def key(self) -> str:
        """A short text that is unique to the interval and safe in file, branch and tag names."""
        form = "%Y%m%d" if self.is_whole_days else "%Y%m%dT%H%M%S"
        return f"{self.start:{form}}_{self.end:{form}}"

    @property
    def is_whole_days(self) -> bool:
        """Whether both ends are UTC midnights."""
        return all(moment.time() == time(0) for moment in self)

    @property
    def days(self) -> int:
        """Length in whole days, rounded down."""
        return (self.end - self.start).days

    @property
    def hours(self) -> int:
        """Length in whole hours, rounded down."""
        return (self.end - self.start) // ONE_HOUR

    def pieces(self, length: timedelta) -> list[Interval]:
        """The consecutive intervals of `length` from the start on; a shorter rest is left out."""
        count = (self.end - self.start) // length
        return [Interval(self.start + n * length, self.start + (n + 1) * length) for n in range(count)]


def parse_instant(text: str) -> datetime:
    """An ISO 8601 date or time as an instant in UTC; a text without an offset is taken as UTC.

    Raises `IntervalError` for anything else.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise IntervalError(
            expected="an ISO 8601 date or time, such as 2026-03-01 or 2026-03-01T00:00:00Z",
            found=repr(text),
            next_step="correct the date in the run's parameters and trigger it again",
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def make_interval(start: datetime, end: datetime) -> Interval:
    """The interval from `start` to `end`; raises `IntervalError` where it would be empty or reversed."""
    if start >= end:
        raise IntervalError(
            expected="a start before the end",
            found=f"start {start.isoformat()} and end {end.isoformat()}",
            next_step="give a range whose end is later than its start (the end is excluded)",
        )
    return Interval(start, end)


def day_interval(day: date) -> Interval:
    """The UTC day `day`."""
    start = datetime.combine(day, time(0), UTC)
    return Interval(start, start + ONE_DAY)


def require_whole_days(interval: Interval) -> Interval:
    """`interval` itself; raises `IntervalError` unless it starts and ends at UTC midnights.

    Tables are partitioned by UTC day and a run replaces whole partitions, so that it can be repeated.
    """
    if not interval.is_whole_days:
        raise IntervalError(
            expected="an interval of whole UTC days",
            found=f"{interval.start.isoformat()} to {interval.end.isoformat()}",
            next_step="give dates without a time of day",
        )
    return interval


def covering_days(intervals: Sequence[Interval]) -> Interval:
    """The fewest whole UTC days, without a gap, that hold all `intervals`; there must be one at least."""
    start = min(interval.start for interval in intervals)
    last = max(interval.end for interval in intervals) - timedelta(microseconds=1)
    return Interval(day_interval(start.date()).start, day_interval(last.date()).end)


def resolve_features_interval(
    *,
    start_date: str | None,
    end_date: str | None,
    data_interval: tuple[datetime, datetime] | None,
    run_after: datetime,
    changed: Sequence[Interval] = (),
) -> Interval:
    """The whole UTC days that a features run covers.

    The trigger form's (or `--conf`'s) `start_date` and `end_date` come first (the end is excluded; without
    an end, one day); then the days that changed (late records, a rollback), for a run that these started;
    then the days that are over by the end of the run's data interval (scheduled and backfill runs), which may
    begin and end at another hour; then, for a manual run without any, the last whole day before `run_after`.

    Raises `IntervalError` for an end without a start, and for a range that is empty or not of whole days.
    """
    if start_date:
        start = parse_instant(start_date)
        end = parse_instant(end_date) if end_date else start + ONE_DAY
        return require_whole_days(make_interval(start, end))
    if end_date:
        raise IntervalError(
            expected="a start_date with the end_date",
            found=f"end_date {end_date!r} alone",
            next_step="give both, or neither for the last whole day",
        )
    if changed:
        return covering_days(changed)
    if data_interval is not None and data_interval[0] < data_interval[1]:
        return make_interval(_midnight(data_interval[0]), _midnight(data_interval[1]))
    midnight = _midnight(run_after)
    return Interval(midnight - ONE_DAY, midnight)


def _midnight(moment: datetime) -> datetime:
    return datetime.combine(moment.astimezone(UTC).date(), time(0), UTC)


def resolve_day_so_far(
    *, until: str | None, data_interval: tuple[datetime, datetime] | None, run_after: datetime
) -> Interval:
    """From the UTC midnight before it, the full hour that an hourly run is about.

    The trigger form's `until` comes first, then the end of the run's data interval, then `run_after`; each is
    cut down to its hour. At midnight it is the whole day before.
    """
    if until:
        moment = parse_instant(until)
    elif data_interval is not None:
        moment = data_interval[1].astimezone(UTC)
    else:
        moment = run_after.astimezone(UTC)
    hour = moment.replace(minute=0, second=0, microsecond=0)
    return Interval(day_interval((hour - timedelta(microseconds=1)).date()).start, hour)


def whole_hours_past(interval: Interval, now: datetime | None = None) -> Interval:
    """`interval` itself; raises `IntervalError` unless it is of whole hours that are over by `now`.

    `now` is the present moment by default. An hour that is not over would be counted, and then be full.
    """
    if any(moment != moment.replace(minute=0, second=0, microsecond=0) for moment in interval):
        raise IntervalError(
            expected="an interval of whole hours",
            found=f"{interval.start.isoformat()} to {interval.end.isoformat()}",
            next_step="give times without minutes, such as 2026-11-20T13:00",
        )
    now = now or datetime.now(UTC)
    if interval.end > now:
        raise IntervalError(
            expected="hours that are over",
            found=f"an end of {interval.end.isoformat()} at {now.isoformat(timespec='seconds')}",
            next_step="give an end in the past",
        )
    return interval


def resolve_hours(
    *,
    start: str | None,
    end: str | None,
    data_interval: tuple[datetime, datetime] | None,
    run_after: datetime,
) -> Interval:
    """The whole hours that an hourly run covers.

    The trigger form's `start` and `end` come first (without a start, the hour before the end); then the last
    full hour of the run's data interval, then that before `run_after`. Raises `IntervalError` for a start
    without an end, and for a range that is empty.
    """
    if start and not end:
        raise IntervalError(
            expected="an end with the start",
            found=f"start {start!r} alone",
            next_step="give both, or neither for the last full hour",
        )
    if end:
        last = parse_instant(end)
        return make_interval(parse_instant(start) if start else last - ONE_HOUR, last)
    moment = (data_interval[1] if data_interval is not None else run_after).astimezone(UTC)
    hour = moment.replace(minute=0, second=0, microsecond=0)
    return Interval(hour - ONE_HOUR, hour)


def resolve_as_of(
    *, as_of: str | None, data_interval: tuple[datetime, datetime] | None, run_after: datetime
) -> datetime:
    """The UTC midnight that a training run looks back from; nothing later is used.

    The trigger form's `as_of` comes first, then the end of the run's data interval, then `run_after`;
    each is cut down to its midnight.
    """
    if as_of:
        moment = parse_instant(as_of)
    elif data_interval is not None:
        moment = data_interval[1].astimezone(UTC)
    else:
        moment = run_after.astimezone(UTC)
    return datetime.combine(moment.date(), time(0), UTC)
