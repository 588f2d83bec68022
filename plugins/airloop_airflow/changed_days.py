"""Days whose data changed after they were published: how DAGs tell the features DAG to build them again.

Belongs here: which days count as late, and the Asset event that names them. Does not belong here: finding
late records (the stream job says which days it landed), or the days that a features run covers
(`run_times`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import Any

from airflow.sdk import Asset, get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from airloop.intervals import covering_days, day_interval, parse_instant


def announce_late_days(asset: Asset, landed: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Tell that past days received records: the event of `asset` names the range of days to build again.

    `landed` are results with `days` (ISO dates of the event times); None for a stream that is switched off. A
    day that is not over when the run starts is not late: its own run will cover it. Skips the task, and so
    makes no event, when no past day received anything.
    """
    context = get_current_context()
    today = context["dag_run"].run_after.astimezone(UTC).date()
    days = sorted({day for result in landed if result for day in result["days"]})
    late = [day for day in days if parse_instant(day).date() < today]
    if not late:
        raise AirflowSkipException(f"No record for a day before {today}: nothing to build again.")
    span = covering_days([day_interval(parse_instant(day).date()) for day in late])
    extra = {"start": span.start.isoformat(), "end": span.end.isoformat(), "days": late}
    context["outlet_events"][asset].extra = extra
    return extra
