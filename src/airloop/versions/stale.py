"""Training sets and models that were made of rows which are not published any more: found, and marked.

    python -m airloop.versions.stale --use-case flight_delay [--dry-run]

Belongs here: comparing what a training set was made of with what is published now. Does not belong here:
features, which a run that changes rows computes again itself, or training anew (an Asset asks for that).
Importing this module imports MLflow.

Everything is read from the snapshots' properties, so that the answer is the same at any time and for any run.
A set is stale when, within the days that it looks at, a publication that it saw was rolled back, or a later
one changed rows that it saw and was not rolled back since. New days change nothing, nor does a day that is
published again with the same rows. Reference data has no days and is not judged.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, NamedTuple

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Snapshot

from airloop import registry
from airloop.intervals import Interval
from airloop.jobs import run_job
from airloop.lakehouse.catalog import open_catalog
from airloop.lakehouse.history import Publication, publications
from airloop.lakehouse.properties import INTERVAL, SOURCES, parse_interval, properties_of
from airloop.lakehouse.replace import despite_conflicts
from airloop.references import MarkedStale, StaleModel, StaleTrainingSet
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase

CLEAN, TRAINING = "clean", "training"
STALE_SET: Final = "airloop.stale."
"""Prefix of the training table's properties that mark a tag as stale; the value says why."""
DAYS_SHOWN = 5


def stale_training_sets(spec: UseCase, catalog: Catalog) -> tuple[StaleTrainingSet, ...]:
    """The pinned training sets of `spec` that are stale, each with the first reason found, by tag."""
    name = f"{TRAINING}.{spec.name}"
    if not catalog.table_exists(name):
        return ()
    clean = {
        f"{CLEAN}.{table.name}": catalog.load_table(f"{CLEAN}.{table.name}")
        for table in spec.clean_tables
        if table.event_time is not None and catalog.table_exists(f"{CLEAN}.{table.name}")
    }
    table, found = catalog.load_table(name), []
    for tag, ref in sorted(table.refs().items()):
        snapshot = table.snapshot_by_id(ref.snapshot_id)
        if ref.snapshot_ref_type != SnapshotRefType.TAG or snapshot is None:
            continue
        reason = next(_reasons(spec, snapshot, clean.values()), None)
        if reason is not None:
            found.append(StaleTrainingSet(tag=tag, reason=reason))
    return tuple(found)


def _reasons(spec: UseCase, training_set: Snapshot, tables: Iterable[Table]) -> Iterator[str]:
    """Why the set is not what its source tables say now; nothing for a set without a record of its making."""
    said = properties_of(training_set)
    sources: dict[str, int] = json.loads(said.get(SOURCES, "{}"))
    if not sources or INTERVAL not in said:
        return
    examples = parse_interval(said[INTERVAL])
    seen_days = Interval(examples.start - spec.lookback, examples.end + spec.label.matures_after)
    made_at = datetime.fromtimestamp(training_set.timestamp_ms / 1000, UTC)
    for table in tables:
        name = ".".join(table.name())
        if name not in sources:
            continue  # the use case got this table after the set was made
        source = table.snapshot_by_id(sources[name])
        now = publications(table)
        # Of an expired source, what was published after the set was made is what it cannot have seen.
        before = [item for item in now if item.at <= made_at]
        seen = publications(table, source) if source is not None else before
        known, live = {item.snapshot_id for item in seen}, {item.snapshot_id for item in now}
        undone = [item for item in map(partial(_undone_by, table), now) if item and item.by not in known]
        taken = [back for back in undone if _overlap(back.interval, seen_days)]
        for item in seen:
            gone = item.snapshot_id not in live or any(back.voids(item) for back in taken)
            if gone and item.interval is not None and _overlap(item.interval, seen_days):
                yield f"{name}: what {item.run_id} published was rolled back"
        restoring = {back.by for back in undone}
        for item in now:
            if item.snapshot_id in known or item.snapshot_id in restoring:
                continue
            days = [
                day
                for day in sorted(item.changed_days)
                if _holds(seen_days, day) and not any(back.voids(item, day) for back in undone)
            ]
            if days:
                shown = ", ".join(days[:DAYS_SHOWN]) + (" and more" if len(days) > DAYS_SHOWN else "")
                yield f"{name}: {item.run_id} published other rows of {shown}"


class _Undone(NamedTuple):
    """What a restored interval took back: publications of its days, after a moment and before another."""

    by: int
    """Snapshot that restored the interval."""
    interval: Interval
    after: datetime
    before: datetime

    def voids(self, item: Publication, day: str | None = None) -> bool:
        """Whether `item` does not count any more, for `day` or for any day that it published."""
        if not self.after < item.at < self.before or item.interval is None:
            return False
        return _overlap(self.interval, item.interval) if day is None else _holds(self.interval, day)


def _undone_by(table: Table, item: Publication) -> _Undone | None:
    """What `item` took back; None unless it restored an interval to a snapshot that is still known."""
    target = table.snapshot_by_id(item.restored_from) if item.restored_from is not None else None
    if target is None or item.interval is None:
        return None
    after = datetime.fromtimestamp(target.timestamp_ms / 1000, UTC)
    return _Undone(item.snapshot_id, item.interval, after, item.at)


def _overlap(one: Interval, other: Interval) -> bool:
    return one.start < other.end and other.start < one.end


def _holds(span: Interval, day: str) -> bool:
    return f"{span.start:%Y-%m-%d}" <= day < f"{span.end:%Y-%m-%d}"


def mark_stale(spec: UseCase, settings: Settings, *, dry_run: bool = False) -> MarkedStale:
    """Mark the stale training sets and the model versions trained on them; safe to repeat.

    A set that was made anew loses its mark. A version never does: what it was trained on does not come back.
    """
    catalog = open_catalog(settings)
    sets = stale_training_sets(spec, catalog)
    reasons = {item.tag: item.reason for item in sets}
    client = registry.open_registry(settings)
    models = []
    for version in client.search_model_versions(f"name='{spec.model_name}'"):
        tag = version.tags.get("training_set", "")
        if tag not in reasons:
            continue
        number = int(version.version)
        # A search leaves the aliases out.
        aliases = tuple(sorted(client.get_model_version(spec.model_name, version.version).aliases))
        models.append(StaleModel(name=spec.model_name, version=number, training_set=tag, aliases=aliases))
        if not dry_run:
            registry.tag_version(settings, spec.model_name, number, registry.STALE, reasons[tag])
    name = f"{TRAINING}.{spec.name}"
    if not dry_run and catalog.table_exists(name):
        table = catalog.load_table(name)
        despite_conflicts(table, lambda: _mark_sets(table, reasons))
    return MarkedStale(
        use_case=spec.name,
        training_sets=sets,
        models=tuple(sorted(models, key=lambda model: model.version)),
        retrain=spec.training.when_stale == "retrain"
        and any(registry.CHAMPION in model.aliases for model in models),
    )


def _mark_sets(table: Table, reasons: dict[str, str]) -> None:
    wanted = {f"{STALE_SET}{tag}": reason for tag, reason in reasons.items()}
    there = {name: text for name, text in table.properties.items() if name.startswith(STALE_SET)}
    if wanted == there:
        return
    with table.transaction() as transaction:
        if outdated := there.keys() - wanted.keys():
            transaction.remove_properties(*outdated)
        if wanted:
            transaction.set_properties(wanted)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = argparse.ArgumentParser(description="Mark training sets and models whose data changed since.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--dry-run", action="store_true", help="only say which")

    def work(arguments: argparse.Namespace, settings: Settings) -> MarkedStale:
        return mark_stale(use_case(arguments.use_case), settings, dry_run=arguments.dry_run)

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
