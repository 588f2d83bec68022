"""Maps any date to the same weekday of a year of history, so that a recorded year replays for ever.

Belongs here: the arithmetic of the replay. Does not belong here: any data set, file or clock.
"""

from __future__ import annotations

from datetime import date, timedelta

CYCLE_DAYS = 364
"""52 weeks: the longest whole number of weeks in a year, so that weekdays stay as they are."""


def source_date(replayed: date, first: date) -> date:
    """The recorded date that `replayed` shows, among the `CYCLE_DAYS` days from `first`.

    It is whole weeks away from `replayed`; a date within the cycle shows itself.
    """
    return first + timedelta(days=(replayed - first).days % CYCLE_DAYS)
