"""What a published snapshot says about itself, in the properties of its Iceberg summary.

Belongs here: the properties' names, and reading and writing their values. Does not belong here: who the
present run is (`provenance`), or looking through a table's past (`history`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC
from typing import Final

from pyiceberg.table.snapshots import Snapshot

from airloop.intervals import Interval, parse_instant

USE_CASE: Final = "airloop.use-case"
INTERVAL: Final = "airloop.interval"
"""`<start>/<end>`, ISO 8601 in UTC."""
RUN_ID: Final = "airloop.run-id"
"""Airflow's `<dag_id>/<run_id>`, or `by-hand`."""
COMMIT: Final = "airloop.commit"
"""Git commit of the code that wrote the snapshot."""
SOURCE_OFFSETS: Final = "airloop.source-offsets"
"""JSON: by raw table its snapshot, and by source and partition the records read, first and last offset."""
AUDIT: Final = "airloop.audit"
"""JSON: how many expectations, whether they passed, and where the report is."""
CHANGED_DAYS: Final = "airloop.changed-days"
"""JSON: the days that had been published before with other rows."""
SOURCES: Final = "airloop.sources"
"""JSON, on training sets: the snapshot of each table that the set was made from."""
FEATURE_VIEWS: Final = "airloop.feature-views"
"""JSON, on training sets: by feature view its features and time to live, as Feast's registry had them."""

PUBLISHED_FROM: Final = "airloop.published-from"
"""The audited snapshot of the branch whose rows this one published."""
PUBLICATION: Final = "airloop.publication"
"""The same text on each table of one publication, so that what was published together is found together."""
BASE: Final = "airloop.base-snapshot"
"""On a branch's snapshots: what `main` was when the branch was made."""
EVENT_TIME: Final = "airloop.event-time"
"""On a branch's snapshots: the column that the interval is about; missing for tables replaced whole."""
ROLLED_BACK: Final = "airloop.rolled-back"
"""On a snapshot that restored an interval: the run that it undid."""
RESTORED_FROM: Final = "airloop.restored-from"
"""On a snapshot that restored an interval: the snapshot whose rows it brought back."""


def interval_text(interval: Interval) -> str:
    """`interval` as the property `INTERVAL` has it."""
    return "/".join(moment.astimezone(UTC).isoformat() for moment in interval)


def parse_interval(text: str) -> Interval:
    """The interval that `interval_text` wrote."""
    start, end = text.split("/")
    return Interval(parse_instant(start), parse_instant(end))


def properties_of(snapshot: Snapshot) -> Mapping[str, str]:
    """The snapshot's summary, Iceberg's own counts included; empty where it has none."""
    return snapshot.summary.additional_properties if snapshot.summary is not None else {}


def json_text(value: object) -> str:
    """`value` as the compact, ordered JSON that properties hold: equal values are equal texts."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
