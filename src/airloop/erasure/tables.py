"""Erasing a subject from one Iceberg table: every branch, every tag, every snapshot, in one commit.

Belongs here: finding the data files that hold the subject, rewriting them without it, and expiring every
snapshot that knew them. Does not belong here: which tables and columns (`plan`), or proving it (`proof`).

How: each branch and tag whose snapshot knows a file with the subject gets a snapshot of its own whose
manifests name the rewritten files instead and no deleted ones, because a deleted entry keeps the bounds of
its columns, and a bound may be the subject. The same commit expires every snapshot that knew such a file. So
a reader sees the table before or after, a killed erasure is before or after, and other rows stay as they are.
What another writer commits meanwhile makes the commit fail and start over, on top of that.

Every data file is decoded once. A file that holds the subject is read whole into memory: one file, not one
table.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, _dataframe_to_data_files
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table import FileScanTask, Table, Transaction
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.table.update import (
    AssertRefSnapshotId,
    AssertTableUUID,
    RemoveSnapshotsUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)
from pyiceberg.table.update.snapshot import _SnapshotProducer

from airloop.airflow_run import run_id
from airloop.erasure import ErasureError
from airloop.erasure.files import Scan, scan_parquet
from airloop.erasure.traces import Traces
from airloop.lakehouse.files import normalised
from airloop.lakehouse.properties import properties_of

ERASED = "airloop.erased"
"""On a snapshot that was rewritten: JSON, by the subject's digest the rows that were taken out, the snapshot
that this one replaces, and the run that did it. Carried on when the snapshot is rewritten again."""


@dataclass(frozen=True)
class Columns:
    """Where a table names subjects."""

    named: tuple[str, ...]
    """Columns that are the subject."""
    texts: tuple[str, ...]
    """Columns that may mention it."""


@dataclass
class Survey:
    """What a table knows of a subject, as of one version of it."""

    snapshots: set[int] = field(default_factory=set)
    """Snapshots that know a file with the subject, or one whose bounds give it away."""
    files: set[str] = field(default_factory=set)
    """Data files that hold the subject and are there."""
    rows: dict[str, int] = field(default_factory=dict)
    """The subject's rows by reference (branch or tag)."""


@dataclass
class Outcome:
    """What erasing did to a table."""

    rows: dict[str, int] = field(default_factory=dict)
    expired: int = 0
    files: int = 0
    """Files removed: data, manifests, manifest lists."""


class Eraser:
    """Erases one subject from one table; remembers what it read, so that trying again is quick."""

    def __init__(self, table: Table, columns: Columns, traces: Traces, digest: str) -> None:
        self.table = table
        self.columns = columns
        self._traces = traces
        self._digest = digest
        self._holds: dict[str, bool] = {}
        self._counts: dict[tuple[str, frozenset[str]], int] = {}
        self._rewritten: dict[tuple[str, frozenset[str]], list[DataFile]] = {}
        self._entries: dict[str, list[ManifestEntry]] = {}

    @property
    def name(self) -> str:
        """`namespace.table`."""
        return ".".join(self.table.name())

    def survey(self) -> Survey:
        """What the table, as loaded, knows of the subject."""
        survey = Survey()
        for snapshot in self.table.metadata.snapshots:
            tainted = [self._is_tainted(manifest) for manifest in snapshot.manifests(self.table.io)]
            if any(tainted):
                survey.snapshots.add(snapshot.snapshot_id)
        survey.files = {path for path, holds in self._holds.items() if holds}
        for name, ref in self.table.metadata.refs.items():
            if ref.snapshot_id in survey.snapshots:
                survey.rows[name] = sum(self._count(task) for task in self._tasks(ref.snapshot_id))
        return survey

    def erase(self, before_commit: Callable[[list[str]], None]) -> Outcome:
        """One attempt: rewrite, commit, and remove what no snapshot knows any more.

        `before_commit` gets every file that is about to become garbage, to be remembered by the caller in
        case this process dies after the commit. Raises PyIceberg's conflict errors when another writer got
        there first; nothing changed then.
        """
        survey = self.survey()
        if not survey.snapshots:
            return Outcome()
        garbage = sorted(survey.files | self._metadata_files(survey.snapshots))
        before_commit(garbage)
        transaction = Transaction(self.table)
        refs = self.table.metadata.refs
        for snapshot_id in dict.fromkeys(ref.snapshot_id for ref in refs.values()):
            if snapshot_id not in survey.snapshots:
                continue
            names = [name for name, ref in refs.items() if ref.snapshot_id == snapshot_id]
            new_id = self._stage_rewrite(transaction, snapshot_id, survey.rows[names[0]])
            for name in names:
                ref = refs[name]
                transaction._stage(
                    (
                        SetSnapshotRefUpdate(
                            ref_name=name,
                            snapshot_id=new_id,
                            type=ref.snapshot_ref_type,
                            max_ref_age_ms=ref.max_ref_age_ms,
                            max_snapshot_age_ms=ref.max_snapshot_age_ms,
                            min_snapshots_to_keep=ref.min_snapshots_to_keep,
                        ),
                    )
                )
        transaction._stage((RemoveSnapshotsUpdate(snapshot_ids=sorted(survey.snapshots)),))
        updates: tuple[TableUpdate, ...] = transaction._updates
        requirements: list[TableRequirement] = [AssertTableUUID(uuid=self.table.metadata.table_uuid)]
        requirements += [
            AssertRefSnapshotId(ref=name, snapshot_id=ref.snapshot_id) for name, ref in refs.items()
        ]
        self.table._do_commit(updates, tuple(requirements))
        removed = remove_garbage(self.table, garbage)
        return Outcome(survey.rows, len(survey.snapshots), removed)

    def _stage_rewrite(self, transaction: Transaction, snapshot_id: int, rows: int) -> int:
        snapshot = self.table.metadata.snapshot_by_id(snapshot_id)
        assert snapshot is not None  # a reference points to it
        replaced = {
            task.file: self._rewrite(task)
            for task in self._tasks(snapshot_id)
            if self._holds_subject(task.file.file_path)
        }
        said = {k: v for k, v in properties_of(snapshot).items() if k.startswith("airloop.")}
        earlier = json.loads(said.get(ERASED, "{}"))
        mine = {"rows": rows + earlier.get(self._digest, {}).get("rows", 0), "replaced": snapshot_id}
        said[ERASED] = json.dumps({**earlier, self._digest: {**mine, "run": run_id()}}, sort_keys=True)
        producer = _WithoutTraces(transaction, self.table, snapshot, replaced, said)
        updates, _ = producer._commit()
        transaction._stage(updates)
        return producer.snapshot_id

    def _rewrite(self, task: FileScanTask) -> list[DataFile]:
        """The files that hold the rows of `task` without the subject's; none where no row is left."""
        key = _task_key(task)
        if key not in self._rewritten:
            rows = ArrowScan(self.table.metadata, self.table.io, self.table.schema(), AlwaysTrue()).to_table(
                [task]
            )
            kept = rows.filter(pc.invert(self._mask(rows)))
            self._refuse_remains(kept)
            self._rewritten[key] = (
                list(_dataframe_to_data_files(self.table.metadata, kept, self.table.io))
                if kept.num_rows
                else []
            )
        return self._rewritten[key]

    def _mask(self, rows: pa.Table) -> pa.Array:
        """Which of `rows` are the subject's."""
        mask = np.zeros(rows.num_rows, dtype=bool)
        for name in self.columns.named:
            mask |= self._traces.rows_named(rows[name]).to_numpy().astype(bool)
        for name in self.columns.texts:
            kinds = self._traces.kinds_of(rows[name])
            mask[[place for place, kind in kinds.items() if kind == "exact"]] = True
        return pa.array(mask)

    def _refuse_remains(self, kept: pa.Table) -> None:
        columns = [
            item.name
            for item in kept.schema
            if (pa.types.is_string(item.type) or pa.types.is_large_string(item.type))
            and "exact" in self._traces.kinds_of(kept[item.name]).values()
        ]
        if columns:
            raise ErasureError(
                expected=f"rows of the subject in {self.name} to be those that its "
                f"{', '.join((*self.columns.named, *self.columns.texts)) or '(no known column)'} shows",
                found=f"the subject in {', '.join(columns)} of other rows too; this table is unchanged",
                next_step="name the column under erasure.tables or erasure.texts in the use case's spec",
            )

    def _count(self, task: FileScanTask) -> int:
        """The subject's rows in the live rows of one file."""
        if not self._holds_subject(task.file.file_path):
            return 0
        key = _task_key(task)
        if key not in self._counts:
            wanted = (*self.columns.named, *self.columns.texts)
            schema = self.table.schema().select(*wanted)
            rows = ArrowScan(self.table.metadata, self.table.io, schema, AlwaysTrue()).to_table([task])
            self._counts[key] = int(pc.sum(self._mask(rows)).as_py() or 0) if wanted else 0
        return self._counts[key]

    def _tasks(self, snapshot_id: int) -> Iterator[FileScanTask]:
        for task in self.table.scan(snapshot_id=snapshot_id).plan_files():
            assert isinstance(task, FileScanTask)
            yield task

    def _is_tainted(self, manifest: ManifestFile) -> bool:
        tainted = False
        for entry in self._manifest_entries(manifest):
            found = entry.data_file
            bounds = (*(found.lower_bounds or {}).values(), *(found.upper_bounds or {}).values())
            # Each file is looked at, whatever its bounds say: those that hold the subject are to be removed.
            holds = manifest.content == ManifestContent.DATA and self._holds_subject(found.file_path)
            tainted |= holds or any(self._traces.in_bound(bound) for bound in bounds)
        return tainted

    def _manifest_entries(self, manifest: ManifestFile) -> list[ManifestEntry]:
        if manifest.manifest_path not in self._entries:
            self._entries[manifest.manifest_path] = manifest.fetch_manifest_entry(
                self.table.io, discard_deleted=False
            )
        return self._entries[manifest.manifest_path]

    def _holds_subject(self, path: str) -> bool:
        """Whether the file is there and has the subject in any column."""
        if path not in self._holds:
            scan = Scan()
            try:
                with self.table.io.new_input(path).open() as file:
                    scan_parquet(file, path, self._traces, scan)
            except FileNotFoundError:
                pass  # deleted and expired: only an old manifest still names it
            self._holds[path] = bool(scan.exact)
        return self._holds[path]

    def _metadata_files(self, snapshots: set[int]) -> set[str]:
        found = set()
        for snapshot in self.table.metadata.snapshots:
            if snapshot.snapshot_id in snapshots:
                found.add(snapshot.manifest_list)
                found.update(manifest.manifest_path for manifest in snapshot.manifests(self.table.io))
        return found


class _WithoutTraces(_SnapshotProducer["_WithoutTraces"]):
    """A snapshot like another one, with some files replaced and no entry of a deleted file."""

    def __init__(
        self,
        transaction: Transaction,
        table: Table,
        like: Snapshot,
        replaced: Mapping[DataFile, list[DataFile]],
        properties: dict[str, str],
    ) -> None:
        super().__init__(
            Operation.OVERWRITE, transaction, table.io, snapshot_properties=properties, branch=None
        )
        self._like = like
        self._parent_snapshot_id = like.snapshot_id
        self._deleted_data_files = set(replaced)
        for files in replaced.values():
            for file in files:
                self.append_data_file(file)

    def _existing_manifests(self) -> list[ManifestFile]:
        gone = {file.file_path for file in self._deleted_data_files}
        manifests = []
        for manifest in self._like.manifests(self._io):
            entries = self.fetch_manifest_entry(manifest, discard_deleted=False)
            kept = [
                entry
                for entry in entries
                if entry.status != ManifestEntryStatus.DELETED and entry.data_file.file_path not in gone
            ]
            if len(kept) == len(entries) or manifest.content != ManifestContent.DATA:
                manifests.append(manifest)
            elif kept:
                with self.new_manifest_writer(self.spec(manifest.partition_spec_id)) as writer:
                    for entry in kept:
                        writer.existing(entry)
                manifests.append(writer.to_manifest_file())
        return manifests

    def _deleted_entries(self) -> list[ManifestEntry]:
        return []


def remove_garbage(table: Table, candidates: list[str]) -> int:
    """Delete those of the files `candidates` that `table` does not know; returns how many there were."""
    known = known_files(table)
    removed = 0
    for path in candidates:
        if path in known:
            continue
        try:
            table.io.delete(path)
            removed += 1
        except FileNotFoundError:
            pass
        place = normalised(path)
        if not place.startswith("s3:"):
            # Hadoop's local file system keeps a checksum file beside each file.
            local = Path(place)
            local.with_name(f".{local.name}.crc").unlink(missing_ok=True)
    return removed


def _task_key(task: FileScanTask) -> tuple[str, frozenset[str]]:
    return task.file.file_path, frozenset(item.file_path for item in task.delete_files)


def known_files(table: Table) -> set[str]:
    """Every file that the table's present metadata needs."""
    metadata = table.metadata
    found = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    found.update(statistics.statistics_path for statistics in metadata.statistics)
    manifests: dict[str, ManifestFile] = {}
    for snapshot in metadata.snapshots:
        found.add(snapshot.manifest_list)
        manifests |= {item.manifest_path: item for item in snapshot.manifests(table.io)}
    for path, manifest in manifests.items():
        found.add(path)
        found.update(entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io))
    return found


def erased_from(snapshot: Snapshot) -> dict[str, dict[str, object]]:
    """What was erased from `snapshot`, by the subject's digest."""
    found: dict[str, dict[str, object]] = json.loads(properties_of(snapshot).get(ERASED, "{}"))
    return found


def tags_by_snapshot(table: Table) -> dict[int, list[str]]:
    """The tags of `table` by the snapshot that they pin."""
    found: dict[int, list[str]] = defaultdict(list)
    for name, ref in table.metadata.refs.items():
        if ref.snapshot_ref_type == "tag":
            found[ref.snapshot_id].append(name)
    return found
