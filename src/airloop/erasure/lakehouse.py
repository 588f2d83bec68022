"""Erasing a subject from all tables, with what a killed erasure leaves behind put right by the next one.

Belongs here: which tables and columns are searched, the journal, files that no table knows. Does not belong
here: how one table is rewritten (`tables`), or anything outside the warehouse.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.types import StringType

from airloop.erasure import ErasureError
from airloop.erasure.files import scan_stored
from airloop.erasure.subject import erasure_dir
from airloop.erasure.tables import (
    Columns,
    Eraser,
    erased_from,
    known_files,
    remove_garbage,
    tags_by_snapshot,
)
from airloop.erasure.traces import Traces
from airloop.lakehouse.catalog import open_catalog
from airloop.lakehouse.files import normalised, remove, warehouse_files
from airloop.lakehouse.replace import despite_conflicts
from airloop.prediction_log.record import TABLE as PREDICTIONS
from airloop.references import ErasureTable, ErasureTrainingSet
from airloop.settings import Settings
from airloop.use_cases.spec import Erasure
from airloop.whole_files import write_whole

QUARANTINE: Final = "raw.quarantine"
TRAINING: Final = "training"
SCORING: Final = "scoring"
LABELS: Final = "labels"
PASSES: Final = 5
"""How often a table is erased from again because another writer brought the subject back meanwhile."""


def columns_of(table: Table, erasure: Erasure) -> Columns:
    """Where `table` names the subjects of `erasure`, by its present schema."""
    name = ".".join(table.name())
    strings = {item.name for item in table.schema().fields if isinstance(item.field_type, StringType)}
    texts = [erasure.texts.get(name)]
    if name == QUARANTINE:
        texts += ["payload", "reason"]
    if table.name()[0] in (TRAINING, SCORING, LABELS):
        texts.append("request")
    if name == PREDICTIONS:
        texts += ["entities", "request", "features"]
    named = erasure.tables.get(name, erasure.subject)
    return Columns(
        named=(named,) if named in strings else (),
        texts=tuple(dict.fromkeys(item for item in texts if item in strings)),
    )


def all_tables(catalog: Catalog) -> Iterator[Table]:
    """Every table of every layer, by name."""
    for namespace in sorted(catalog.list_namespaces()):
        for identifier in sorted(catalog.list_tables(namespace)):
            yield catalog.load_table(identifier)


def survey_tables(
    settings: Settings, erasure: Erasure, traces: Traces, digest: str
) -> tuple[tuple[ErasureTable, ...], tuple[ErasureTrainingSet, ...]]:
    """What the tables have of the subject, and which training sets have it or had it. Changes nothing."""
    tables: list[ErasureTable] = []
    training_sets: list[ErasureTrainingSet] = []
    for table in all_tables(open_catalog(settings)):
        survey = Eraser(table, columns_of(table, erasure), traces, digest).survey()
        if survey.snapshots:
            tables.append(
                ErasureTable(
                    table=".".join(table.name()),
                    rows=survey.rows,
                    snapshots=len(survey.snapshots),
                    files=len(survey.files),
                )
            )
        if table.name()[0] == TRAINING:
            training_sets += _training_sets(table, survey.rows, digest)
    return tuple(tables), tuple(training_sets)


def _training_sets(table: Table, rows: dict[str, int], digest: str) -> Iterator[ErasureTrainingSet]:
    for snapshot_id, tags in tags_by_snapshot(table).items():
        snapshot = table.metadata.snapshot_by_id(snapshot_id)
        before = erased_from(snapshot).get(digest, {}) if snapshot is not None else {}
        for tag in tags:
            found = ErasureTrainingSet(
                use_case=table.name()[1],
                tag=tag,
                snapshot_id=snapshot_id,
                rows=rows.get(tag, 0),
                erased_rows=int(str(before.get("rows", 0))),
            )
            if found.rows or found.erased_rows:
                yield found


def erased_training_sets(settings: Settings, digest: str) -> tuple[ErasureTrainingSet, ...]:
    """The training sets that the subject was taken out of; their snapshots say it themselves."""
    tables = (table for table in all_tables(open_catalog(settings)) if table.name()[0] == TRAINING)
    return tuple(found for table in tables for found in _training_sets(table, {}, digest))


def erase_tables(
    settings: Settings, erasure: Erasure, traces: Traces, digest: str
) -> tuple[ErasureTable, ...]:
    """Take the subject out of every table. Killed at any point, it is finished by being run again.

    Raises `ErasureError` for rows that the spec does not know how to find, and `PublishError` when other
    writers leave no turn.
    """
    journal = _Journal(settings, digest)
    done = []
    for table in all_tables(open_catalog(settings)):
        name = ".".join(table.name())
        # Of a run that died after its commit: its files are known to no snapshot any more, and to no writer.
        removed = remove_garbage(table, journal.of(name))
        eraser = Eraser(table, columns_of(table, erasure), traces, digest)
        rows: dict[str, int] = {}
        expired = 0
        for _ in range(PASSES):
            outcome = despite_conflicts(table, partial(eraser.erase, partial(journal.add, name)))
            rows |= {ref: rows.get(ref, 0) + count for ref, count in outcome.rows.items()}
            expired, removed = expired + outcome.expired, removed + outcome.files
            if not outcome.expired:
                break
            table.refresh()
        if expired or removed:
            done.append(ErasureTable(table=name, rows=rows, snapshots=expired, files=removed))
    journal.close()
    return tuple(done)


def remove_strays(settings: Settings, traces: Traces, grace_minutes: int) -> int:
    """Delete warehouse files that hold the subject and that no table knows; returns how many.

    Such files are what dead writers leave. One that is younger than `grace_minutes` may belong to a writer
    that is about to commit it: then `ErasureError` asks to wait, and nothing is deleted.
    """
    known: set[str] = set()
    for table in all_tables(open_catalog(settings)):
        known.update(map(normalised, known_files(table)))
    strays = [
        file
        for file in warehouse_files(settings)
        if not (file.current and file.location in known) and scan_stored(settings, file, traces).exact
    ]
    # A version that is not current was deleted or replaced: no writer is about to commit it.
    refuse_young({file.location: file.modified.timestamp() for file in strays if file.current}, grace_minutes)
    for file in strays:
        remove(settings, file)
    return len(strays)


def refuse_young(modified: Mapping[str, float], grace_minutes: int) -> None:
    """Raise `ErasureError` when one of the files, all with the subject, may still be a writer's.

    `modified` says when each was written, in seconds since 1970.
    """
    oldest_writer = time.time() - 60 * grace_minutes
    young = sorted(place for place, when in modified.items() if when > oldest_writer)
    if young:
        raise ErasureError(
            expected="files with the subject that no table knows to be older than "
            f"{grace_minutes} minutes, so that no job is still writing them",
            found=f"{len(young)} younger ones, such as {young[0]}",
            next_step="wait for the running jobs and run the erasure again; if nothing runs, lower the grace",
        )


class _Journal:
    """Files that an erasure is about to cut off from their table, so that the next one can delete them."""

    def __init__(self, settings: Settings, digest: str) -> None:
        self._path = erasure_dir(settings) / "journal" / f"{digest}.json"
        there = self._path.exists()
        self._files: dict[str, list[str]] = json.loads(self._path.read_text("utf-8")) if there else {}

    def of(self, table: str) -> list[str]:
        return self._files.get(table, [])

    def add(self, table: str, files: list[str]) -> None:
        self._files[table] = sorted({*self.of(table), *files})
        write_whole(self._path, json.dumps(self._files))

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
