"""Requests for events that are yet to come, as a client would send them, from the published schedule.

Belongs here: turning rows of a use case's event table into request bodies. Does not belong here: sending
them.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

from pyiceberg.expressions import And, GreaterThanOrEqual, LessThan

from airloop.errors import HistoryError
from airloop.intervals import Interval
from airloop.lakehouse.catalog import load_table, open_catalog, read_snapshot
from airloop.settings import Settings
from airloop.use_cases.spec import LOCAL_SUFFIX, UseCase


def upcoming_requests(settings: Settings, spec: UseCase, interval: Interval, limit: int) -> list[str]:
    """At most `limit` request bodies (JSON) for events whose `event_field` lies in `interval`, by time.

    Raises `HistoryError` when nothing was published yet, or the event table's columns do not fit.
    """
    table = load_table(open_catalog(settings), f"clean.{spec.event_table}")
    snapshot = table.current_snapshot()
    if snapshot is None:
        raise HistoryError(
            expected=f"published rows in clean.{spec.event_table}",
            found="none",
            next_step=f"run {spec.name}_features first",
        )
    datetimes = [field.name for field in spec.request if field.type == "datetime"]
    rows = read_snapshot(
        table,
        snapshot.snapshot_id,
        [*(field.name for field in spec.request), *(f"{name}{LOCAL_SUFFIX}" for name in datetimes)],
        And(
            GreaterThanOrEqual(term=spec.event_field, value=interval.start.isoformat()),
            LessThan(term=spec.event_field, value=interval.end.isoformat()),
        ),
    ).sort_by([(spec.event_field, "ascending"), (spec.request[0].name, "ascending")])
    return [json.dumps(_body(spec, row)) for row in rows.slice(0, limit).to_pylist()]


def _body(spec: UseCase, row: dict[str, Any]) -> dict[str, str | int | float]:
    body: dict[str, str | int | float] = {}
    for field in spec.request:
        value = row[field.name]
        if value is None:
            continue
        body[field.name] = (
            _with_offset(value, row[f"{field.name}{LOCAL_SUFFIX}"]) if field.type == "datetime" else value
        )
    return body


def _with_offset(instant: datetime, local: datetime) -> str:
    """The wall clock with its offset from UTC."""
    # Iceberg's two timestamp types come back with and without a zone; both here count from the same midnight.
    wall = local.replace(tzinfo=None)
    offset: timedelta = wall - instant.replace(tzinfo=None)
    return wall.replace(tzinfo=timezone(offset)).isoformat()
