"""flight_delay's features that are computed at the moment of the request, offline and online alike.

Belongs here: pure functions of equally long lists, as `OnDemandView` of the spec describes them. Does not
belong here: stored features (`spark_jobs.transforms.flight_delay`), or Feast's objects.

Feast's registry names these functions by module: the module must be importable where features are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
from pandas import Timestamp
from pandas.tseries.holiday import USFederalHolidayCalendar

SECONDS_PER_MINUTE: Final = 60
SECONDS_PER_HOUR: Final = 3600
SECONDS_PER_DAY: Final = 86400
MOST_DAYS: Final = 5
"""Further from a holiday than this, every day is alike."""

Values = Mapping[str, Sequence[Any]]


def tail_rotation(values: Values) -> dict[str, list[float]]:
    """Whether the plane can be back in time from the flights that it flies before this one.

    After a flight a plane needs as long back as it needed out. A flight that left lands when it left plus its
    scheduled time. One that is due by now and has not left leaves now, or when the plane is back from the
    one before, if that is later. `tail_turn_hours` is what is then left until this departure, negative
    where the plane cannot be back; `tail_overdue_minutes` how long it should have left by now (0 where it
    has); `tail_is_waiting` 1 or 0. Missing (NaN) where neither schedule nor movements tell.
    """
    departure, now = _numbers(values, "scheduled_departure_seconds", "prediction_time_seconds")
    moved, landed, left_from, minutes = _numbers(
        values,
        "tail_last_event_at",
        "tail_last_was_landing",
        "tail_last_scheduled_departure_at",
        "tail_last_scheduled_minutes",
    )
    due, due_minutes = _numbers(values, "tail_due_departure_at", "tail_due_minutes")
    # Comparisons with a missing value are false. A movement whose flight is not known is taken for one of
    # the flight that is due, if it came after.
    waiting = (due <= now) & ~(left_from >= due) & ~(np.isnan(left_from) & (moved > due))
    out = minutes * SECONDS_PER_MINUTE
    back_at = np.where(landed == 1, moved, moved + out) + out
    leaves_at = np.fmax(now, back_at)
    back_at = np.where(waiting, leaves_at + 2 * due_minutes * SECONDS_PER_MINUTE, back_at)
    return {
        "tail_turn_hours": ((departure - back_at) / SECONDS_PER_HOUR).tolist(),
        "tail_overdue_minutes": np.where(waiting, (now - due) / SECONDS_PER_MINUTE, 0.0).tolist(),
        "tail_is_waiting": waiting.astype(float).tolist(),
    }


def calendar(values: Values) -> dict[str, list[float]]:
    """`days_from_holiday`: days from the nearest US federal holiday to the local day of departure.

    Negative before it, positive after it, at most `MOST_DAYS` either way; of two equally near, the earlier.
    """
    (seconds,) = _numbers(values, "scheduled_departure_local_seconds")
    days = np.floor(seconds / SECONDS_PER_DAY)
    known = np.isfinite(days)
    distance = np.full(len(days), np.nan)
    if known.any():
        first, last = (int(days[known].min()), int(days[known].max()))
        holidays = _holidays(_year(first) - 1, _year(last) + 1)
        found = days[known, None] - holidays[None, :]
        nearest = np.take_along_axis(found, np.abs(found).argmin(axis=1)[:, None], axis=1)[:, 0]
        distance[known] = np.clip(nearest, -MOST_DAYS, MOST_DAYS)
    return {"days_from_holiday": distance.tolist()}


def _numbers(values: Values, *names: str) -> list[np.ndarray]:
    """Columns as float64, NaN where a value is missing; exact for whole seconds."""
    return [np.array(values[name], dtype=np.float64) for name in names]


def _year(day: int) -> int:
    # Far years, which a library's check of the function may ask for, have no calendar.
    return int(np.clip(1970 + day / 365.2425, 1971, 2199))


@cache
def _holidays(first_year: int, last_year: int) -> np.ndarray:
    """Days since the epoch of the holidays of these years."""
    found = USFederalHolidayCalendar().holidays(Timestamp(first_year, 1, 1), Timestamp(last_year, 12, 31))
    return found.to_numpy().astype("datetime64[D]").astype(np.float64)
