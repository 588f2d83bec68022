"""How fresh the tables are, and what the audits said.

Belongs here: reading it from the tables' snapshots and the audits' reports. Does not belong here: auditing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from airloop.lakehouse.properties import INTERVAL, RUN_ID, parse_interval, properties_of
from airloop.monitoring.tables import existing
from airloop.overview.document import Audit, PublishedTable
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase

log = logging.getLogger(__name__)

MOST_AUDITS: Final = 30
PREFIX: Final = "audit_"


def tables_of(catalog: Catalog, spec: UseCase) -> tuple[PublishedTable, ...]:
    """The clean and the feature tables of `spec`, the labels and serving's logs, as far as there are any."""
    names = [f"clean.{table.name}" for table in spec.clean_tables]
    names += [f"features.{table.name}" for table in spec.feature_tables]
    names += [f"labels.{spec.name}", "serving.predictions", "serving.outcomes"]
    found = []
    for name in names:
        table = existing(catalog, name)
        if table is not None and table.current_snapshot() is not None:
            found.append(_published(name, table))
    return tuple(found)


def audits_of(settings: Settings, spec: UseCase) -> tuple[Audit, ...]:
    """The newest audits, the newest first."""
    return tuple(sorted(_audits(settings, spec), key=lambda audit: audit.at, reverse=True)[:MOST_AUDITS])


def _published(name: str, table: Table) -> PublishedTable:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    summary = snapshot.summary.additional_properties if snapshot.summary is not None else {}
    rows = summary.get("total-records")
    # A past day that is published again does not make the newest one older.
    texts = (properties_of(each).get(INTERVAL) for each in table.snapshots())
    intervals = [parse_interval(text) for text in texts if text]
    return PublishedTable(
        table=name,
        rows=int(rows) if rows is not None else None,
        until=max((interval.end for interval in intervals), default=None),
        at=datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC),
        run=properties_of(snapshot).get(RUN_ID),
    )


def _audits(settings: Settings, spec: UseCase) -> Iterator[Audit]:
    folder = settings.reports_dir / spec.name
    for path in (folder / "audits").glob("*.json"):
        try:
            said = json.loads(path.read_text("utf-8"))
            failures, not_judged = said["failures"], said["not_judged"]
        except (OSError, ValueError, KeyError):
            log.warning("%s is no audit's report", path)
            continue
        page = folder / "data_docs" / path.stem / "index.html"
        yield Audit(
            interval=path.stem.replace("_", " to "),
            at=datetime.fromtimestamp(path.stat().st_mtime, UTC),
            passed=not failures,
            failures=tuple(str(failure) for failure in failures),
            not_judged=len(not_judged),
            report_uri=page.as_uri() if page.exists() else None,
        )
