"""What time a DAG run is about: the adapter from Airflow's run to `airloop.intervals`.

Belongs here: reading a run's parameters, data interval and moment. Does not belong here: the rule itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import get_current_context

from airloop.intervals import (
    Interval,
    make_interval,
    parse_instant,
    resolve_as_of,
    resolve_day_so_far,
    resolve_features_interval,
    resolve_hours,
)

HAND_STARTED = ("manual", "operator_triggered", "asset_triggered", "asset_materialization")
"""Runs whose data interval, if any, Airflow made up from the moment of the trigger."""


def features_interval() -> dict[str, str]:
    """The whole days that this run covers, as `{"start": ..., "end": ...}`, ISO 8601 in UTC."""
    context = get_current_context()
    interval = resolve_features_interval(
        start_date=context["params"].get("start_date"),
        end_date=context["params"].get("end_date"),
        data_interval=_data_interval(context["dag_run"]),
        run_after=context["dag_run"].run_after,
        changed=_changed_days(context.get("triggering_asset_events") or {}),
    )
    return _as_texts(interval)


def day_so_far() -> dict[str, str]:
    """From the UTC midnight before the full hour that this run is about, to that hour."""
    context = get_current_context()
    interval = resolve_day_so_far(
        until=context["params"].get("until"),
        data_interval=_data_interval(context["dag_run"]),
        run_after=context["dag_run"].run_after,
    )
    return _as_texts(interval)


def hours() -> dict[str, str]:
    """The whole hours that this run covers, as `{"start": ..., "end": ...}`, ISO 8601 in UTC."""
    context = get_current_context()
    interval = resolve_hours(
        start=context["params"].get("start"),
        end=context["params"].get("end"),
        data_interval=_data_interval(context["dag_run"]),
        run_after=context["dag_run"].run_after,
    )
    return _as_texts(interval)


def as_of() -> str:
    """The midnight that this run looks back from, ISO 8601 in UTC."""
    context = get_current_context()
    return resolve_as_of(
        as_of=context["params"].get("as_of"),
        data_interval=_data_interval(context["dag_run"]),
        run_after=context["dag_run"].run_after,
    ).isoformat()


def is_no_dry_run() -> bool:
    """Whether the present run is to change anything; only an explicit `false` for `dry_run` says so."""
    return get_current_context()["params"]["dry_run"] is False


def _as_texts(interval: Interval) -> dict[str, str]:
    return {"start": interval.start.isoformat(), "end": interval.end.isoformat()}


def _changed_days(events: Mapping[Any, Sequence[Any]]) -> list[Interval]:
    """The days that the events which started this run are about; others (by hand, in the UI) name none."""
    extras = [event.extra or {} for of_asset in events.values() for event in of_asset]
    return [
        make_interval(parse_instant(extra["start"]), parse_instant(extra["end"]))
        for extra in extras
        if "start" in extra and "end" in extra
    ]


def _data_interval(dag_run: Any) -> tuple[Any, Any] | None:
    start, end = dag_run.data_interval_start, dag_run.data_interval_end
    return (start, end) if start and end and str(dag_run.run_type.value) not in HAND_STARTED else None
