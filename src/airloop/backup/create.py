"""Job: one backup of the deployment, which may be running.

    python -m airloop.backup create [--to PLACE] [--tables all|kept|none]

Belongs here: what is copied, in the order that the package says. Does not belong here: how each kind of thing
is copied.

Of the warehouse `kept` copies the tables that nothing makes again as they were (`tables.NOT_REBUILT`), `all`
every table, `none` only which version each had, for a bucket whose own versioning and replication keep the
files. Contents that an earlier backup has are not written again, and files of tables not even read.
"""

from __future__ import annotations

import argparse
import io
import logging
import secrets
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pyiceberg.exceptions import NoSuchTableError

from airloop.audit_log import audit_log_file
from airloop.backup import BackupError, artifacts, databases, state_files, tables
from airloop.backup.manifest import (
    FORMAT,
    Database,
    Manifest,
    Part,
    TablePointer,
    backup_names,
    read_manifest,
    write_manifest,
)
from airloop.backup.place import Kept, Place, open_place
from airloop.backup.retention import retire
from airloop.backup.tables import Pointed
from airloop.jobs import run_job
from airloop.lakehouse.catalog import open_catalog
from airloop.references import Reference
from airloop.settings import REPOSITORY, Settings
from airloop.training.provenance import code_commit
from airloop.work_folders import work_folder

log = logging.getLogger(__name__)

TABLES: Final = ("all", "kept", "none")
_AT_ONCE: Final = 8
_ATTEMPTS: Final = 5


class BackupMade(Reference):
    """A backup that is there whole."""

    name: str
    place: str
    seconds: float
    parts: int
    size_bytes: int
    new_bytes: int
    """What had to be written: the rest was in the place already."""
    tables: int
    tables_copied: int
    secrets: str
    removed: tuple[str, ...]
    """Backups that retention took away."""
    remarks: tuple[str, ...]


class Skipped(Reference):
    """Nothing was to be done."""

    skipped: str


def create(settings: Settings, place: Place, *, copied: str) -> BackupMade:
    """Make a backup in `place`; `copied` is one of `TABLES`. Raises `BackupError`."""
    started, begun_at = time.monotonic(), datetime.now(UTC)
    making = _Making(settings, place)
    with work_folder(settings, "backup") as folder:
        making.copies = folder
        first, *others = databases.databases_of(settings)
        making.database(first)
        making.state(state_files.MOVED_INTO_TABLES)
        making.state(state_files.WRITTEN_DOWN)
        for database in others:
            making.database(database)
        namespaces, pointers = making.tables(copied)
        making.artifacts()
        # After the tables: see the package.
        for name, path in state_files.present(settings, (state_files.ERASED, state_files.PUBLIC_KEY)).items():
            making.file(f"state/{name}", path)
        kept_secrets = making.secrets()
        manifest = Manifest(
            format=FORMAT,
            name=f"{begun_at:%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(3)}",
            begun_at=begun_at,
            ended_at=datetime.now(UTC),
            commit=code_commit(REPOSITORY),
            state_dir=str(settings.state_dir),
            warehouse=settings.warehouse_location,
            databases=making.databases,
            namespaces=namespaces,
            tables=tuple(pointers),
            secrets=kept_secrets,
            left_out=tuple(making.left_out),
            parts=tuple(making.parts),
        )
        write_manifest(place, manifest)
    keep_erasures(settings, place)
    removed = retire(place, days=settings.backup_days, now=datetime.now(UTC))
    return BackupMade(
        name=manifest.name,
        place=place.uri,
        seconds=round(time.monotonic() - started, 3),
        parts=len(manifest.parts),
        size_bytes=manifest.size,
        new_bytes=making.new_bytes,
        tables=len(manifest.tables),
        tables_copied=sum(table.is_copied for table in manifest.tables),
        secrets=manifest.secrets,
        removed=removed,
        remarks=tuple(making.remarks),
    )


def keep_erasures(settings: Settings, place: Place) -> int:
    """Keep the list of the erased, and the audit log, as they are now, beside the backups.

    A restore reads them: what was erased after a backup must not come back with it. Returns the files kept.
    """
    there = {
        "suppressed.jsonl": settings.state_dir / state_files.ERASED,
        "audit.jsonl": audit_log_file(settings),
    }
    found = [(name, path) for name, path in there.items() if path.is_file()]
    for name, path in found:
        place.write(f"erasures/{name}", path.read_bytes())
    return len(found)


class _Making:
    """A backup while it is made."""

    def __init__(self, settings: Settings, place: Place) -> None:
        self.settings, self.place = settings, place
        self.copies = Path()
        self.parts: list[Part] = []
        self.databases: dict[str, Database] = {}
        self.remarks: list[str] = []
        self.left_out: list[str] = []
        self.new_bytes = 0
        self._earlier = _files_kept_before(place)

    def database(self, database: databases.KnownDatabase) -> None:
        if database.kind == "sqlite" and not database.file.exists():
            return
        copy = self.copies / Path(database.part).name
        revision = databases.dump(database, copy)
        self.databases[database.name] = Database(kind=database.kind, revision=revision)
        self.file(database.part, copy)

    def state(self, folders: Sequence[str]) -> None:
        for name, copy in state_files.in_state(self.settings, folders, self.copies / "state"):
            self.file(f"state/{name}", copy)

    def tables(self, copied: str) -> tuple[dict[str, dict[str, str]], list[TablePointer]]:
        catalog = open_catalog(self.settings)
        namespaces = tables.namespaces(catalog)
        found = []
        for table in tables.pointed(catalog):
            wanted = copied == "all" or (copied == "kept" and table.name.split(".")[0] in tables.NOT_REBUILT)
            for attempt in range(_ATTEMPTS):
                try:
                    if wanted:
                        self._table(table)
                    break
                except FileNotFoundError:
                    # Maintenance or an erasure took a file away: the table has another version by now.
                    if attempt + 1 == _ATTEMPTS:
                        raise self._will_not_hold_still(table.name) from None
                    log.info("%s has changed, and is copied again", table.name)
                try:
                    table = tables.point(catalog, table.name)
                except NoSuchTableError:
                    break
            found.append(
                TablePointer(name=table.name, metadata_location=table.metadata_location, is_copied=wanted)
            )
        return namespaces, found

    def _table(self, table: Pointed) -> None:
        def keep(location: str) -> Part:
            path = f"warehouse/{location}"
            if path in self._earlier:
                return self._earlier[path]
            with closing(tables.open_file(table.io, location)) as source:
                return self._part(path, self.place.keep(source))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            parts = list(pool.map(keep, list(tables.files_of(table))))
        self.parts += parts

    def _will_not_hold_still(self, name: str) -> BackupError:
        return BackupError(
            expected=f"every file that the catalog's version of {name} names",
            found=f"one that is gone, in each of {_ATTEMPTS} attempts",
            next_step="if maintenance or an erasure runs, make the backup again after it; else the table is "
            "damaged: roll it back, or restore an earlier backup",
        )

    def artifacts(self) -> None:
        mlflow = next(item for item in databases.databases_of(self.settings) if item.name == "mlflow")
        if mlflow.name not in self.databases:
            return
        # The copy where it can be asked, else the database, which by now has as many versions or more.
        url = f"sqlite:///{self.copies / Path(mlflow.part).name}" if mlflow.kind == "sqlite" else mlflow.url
        for folder, version in artifacts.registered_folders(self.settings, url).items():
            files = list(artifacts.files_of(self.settings, folder))
            if not files:
                self.remarks.append(f"{version} is registered and has no artifacts in {folder}")
            for path in files:
                with closing(artifacts.open_file(self.settings, path)) as source:
                    self.parts.append(self._part(f"artifacts/{path}", self.place.keep(source)))

    def secrets(self) -> str:
        there = state_files.present(self.settings, state_files.SECRETS)
        cipher = state_files.cipher(self.settings)
        if not there:
            return "none"
        if cipher is None:
            self.left_out += there
            self.remarks.append(
                f"{', '.join(there)}: left out, because AIRLOOP_BACKUP_KEY names no key; keep them elsewhere"
            )
            return "left out"
        for name, path in there.items():
            content = cipher.encrypt(path.read_bytes())
            self.parts.append(self._part(f"secret/{name}", self.place.keep(io.BytesIO(content))))
        return "encrypted"

    def file(self, path: str, source: Path) -> None:
        with source.open("rb") as file:
            self.parts.append(self._part(path, self.place.keep(file)))

    def _part(self, path: str, kept: Kept) -> Part:
        self.new_bytes += kept.size if kept.is_new else 0
        return Part(path=path, sha256=kept.sha256, size=kept.size)


def _files_kept_before(place: Place) -> dict[str, Part]:
    """Files of tables that the newest backup has and the place still holds: they never change."""
    names = backup_names(place)
    if not names:
        return {}
    try:
        manifest = read_manifest(place, names[-1])
    except BackupError as error:
        log.warning("nothing is taken from the newest backup: %s", error)
        return {}
    held = {name.rpartition("/")[2]: found.size for name, found in place.found("objects").items()}
    return {
        part.path: part
        for part in manifest.parts
        if part.path.startswith("warehouse/") and held.get(part.sha256) == part.size
    }


def place_of(settings: Settings, uri: str | None) -> Place:
    """The place that is asked for, else the deployment's; raises `BackupError` where there is neither."""
    wanted = uri or settings.backup_uri
    if not wanted:
        raise BackupError(
            expected="where backups are kept",
            found="neither a flag nor AIRLOOP_BACKUP_URI",
            next_step="name a folder on another disk, or s3://<bucket>/<prefix>",
        )
    return open_place(settings, wanted)


def add_place(parser: argparse.ArgumentParser, *names: str) -> None:
    """The flag that says where backups are."""
    parser.add_argument(
        *names, dest="place", help="a folder or s3://<bucket>/<prefix>; by default the setting's"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = argparse.ArgumentParser(
        prog="python -m airloop.backup create", description="Back up what cannot be rebuilt."
    )
    add_place(parser, "--to")
    parser.add_argument(
        "--tables", choices=TABLES, help="by default `all` of a warehouse in a folder, else `kept`"
    )
    parser.add_argument(
        "--if-configured",
        choices=("true", "false"),
        default="false",
        help="do nothing where no place is named",
    )

    def work(arguments: argparse.Namespace, settings: Settings) -> Reference:
        if arguments.if_configured == "true" and not (arguments.place or settings.backup_uri):
            return Skipped(skipped="AIRLOOP_BACKUP_URI names no place, so no backups are made")
        is_folder = settings.warehouse_location.startswith("file:")
        copied = arguments.tables or ("all" if is_folder else "kept")
        return create(settings, place_of(settings, arguments.place), copied=copied)

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
