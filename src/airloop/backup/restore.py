"""Job: a backup into an empty deployment, whose programs are stopped.

    python -m airloop.backup restore [--from PLACE] [--backup NAME] [--suppressed FILE] [--audit-log FILE]

Belongs here: what must hold before anything is written, and the order. Does not belong here: how each kind of
thing is written.

Nothing is written before the backup is known to be whole and to fit. The first thing written is a note of
what is being restored (`NOTE`), and its removal the last: a restore that is killed is run again, from the
same backup, and gives the same; until then no other is begun over it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Final

from pyiceberg.io import FileIO

from airloop import audit_log
from airloop.backup import BackupError, artifacts, databases, state_files, tables
from airloop.backup.create import add_place, place_of
from airloop.backup.erasures import ErasureToRepeat, longest_log, merged_list, to_repeat
from airloop.backup.manifest import Manifest, Part, read_manifest
from airloop.backup.place import Place
from airloop.backup.verify import verify
from airloop.jobs import run_job
from airloop.lakehouse.catalog import open_catalog
from airloop.references import Reference
from airloop.settings import Settings
from airloop.whole_files import write_whole

NOTE: Final = "restore_under_way.json"
_AT_ONCE: Final = 8
_AUDIT_LOG: Final = "audit_log/audit.jsonl"
_KEY_OF_ERASURES: Final = "erasure/key"


class Restored(Reference):
    """A deployment as it was when the backup was made, and what is left to do."""

    name: str
    place: str
    seconds: float
    parts: int
    size_bytes: int
    tables: int
    tables_to_rebuild: tuple[str, ...]
    """Neither in the backup nor in the warehouse: made again by the features DAG, over their days."""
    secrets_missing: tuple[str, ...]
    """Keys that the backup does not have, and that are not in place."""
    erasures_to_repeat: tuple[ErasureToRepeat, ...]
    """To be made again before anything reads the tables."""
    next_steps: tuple[str, ...]
    remarks: tuple[str, ...]


def restore(
    settings: Settings,
    place: Place,
    manifest: Manifest,
    *,
    suppressed: Path | None = None,
    newer_audit_log: Path | None = None,
    without_secrets: bool = False,
) -> Restored:
    """Restore the backup. Raises `BackupError`, before anything is written, where it is damaged or does not
    fit, or where the deployment is not empty."""
    started = time.monotonic()
    restoring = _Restoring(settings, place, manifest)
    remarks = restoring.require_that_it_fits()
    restoring.require_an_empty_deployment()
    verify(place, manifest)
    erased, log_then, log_now = restoring.erased(suppressed, newer_audit_log)
    secrets = {} if without_secrets else restoring.secrets()
    repeated = tuple(to_repeat(erased, log_then, log_now))
    if erased and _KEY_OF_ERASURES not in secrets and not (settings.state_dir / _KEY_OF_ERASURES).exists():
        raise BackupError(
            expected=f"the key of the erasures, in the backup or at {settings.state_dir / _KEY_OF_ERASURES}: "
            "without it the list of the erased matches nobody, and they come back",
            found="neither",
            next_step="put the key there, or name the key of the backup's secrets (AIRLOOP_BACKUP_KEY)",
        )
    write_whole(settings.state_dir / NOTE, json.dumps({"backup": manifest.name, "place": place.uri}))
    # What is referred to comes first; see the package.
    for name, content in secrets.items():
        with restoring.aside() as file:
            file.write_bytes(content)
            state_files.write_private(settings.state_dir / name, file)
    restoring.write("artifacts/", restoring.artifact)
    restoring.write("warehouse/", restoring.warehouse_file)
    to_rebuild = restoring.tables()
    for database in reversed(databases.databases_of(settings)):
        restoring.database(database)
    restoring.write("state/", restoring.state_file)
    for name, content in ((state_files.ERASED, erased), (_AUDIT_LOG, log_now)):
        if content:
            with restoring.aside() as file:
                file.write_bytes(content)
                state_files.write_private(settings.state_dir / name, file)
    audit_log.verify(settings)
    shutil.rmtree(restoring.folder, ignore_errors=True)
    (settings.state_dir / NOTE).unlink()
    lacking = [*manifest.left_out, *(restoring.secret_names() if without_secrets else ())]
    missing = tuple(name for name in lacking if not (settings.state_dir / name).exists())
    return Restored(
        name=manifest.name,
        place=place.uri,
        seconds=round(time.monotonic() - started, 3),
        parts=len(manifest.parts),
        size_bytes=manifest.size,
        tables=len(manifest.tables) - len(to_rebuild),
        tables_to_rebuild=to_rebuild,
        secrets_missing=missing,
        erasures_to_repeat=repeated,
        next_steps=tuple(_next_steps(settings, to_rebuild, missing, len(repeated))),
        remarks=tuple(remarks),
    )


class _Restoring:
    """A restore while it goes on."""

    def __init__(self, settings: Settings, place: Place, manifest: Manifest) -> None:
        self.settings, self.place, self.manifest = settings, place, manifest
        self.folder = settings.state_dir / ".restoring"
        self._parts = {part.path: part for part in manifest.parts}

    def require_that_it_fits(self) -> list[str]:
        """Raises `BackupError` unless paths, kinds of databases and schemas do; returns what is not known."""
        found, settings = self.manifest, self.settings
        for setting, then, now in (
            ("AIRLOOP_WAREHOUSE_URI", found.warehouse, settings.warehouse_location),
            ("AIRLOOP_STATE_DIR", found.state_dir, str(settings.state_dir)),
        ):
            if then != now:
                raise BackupError(
                    expected=f"{setting} to be {then}, as when the backup was made: Iceberg's metadata and "
                    "the model config name files by their whole paths",
                    found=now,
                    next_step="set it so; on another disk, mount that at this path "
                    "(docs/how-to/back-up-and-restore.md)",
                )
        known = {database.name: database for database in databases.databases_of(settings)}
        for name, database in found.databases.items():
            if name not in known or known[name].kind != database.kind:
                raise BackupError(
                    expected=f"{name}'s database in {database.kind}, as when the backup was made",
                    found=known[name].kind if name in known else "none",
                    next_step="restore with the settings of then, and move to another database after",
                )
        remarks = [databases.require_known(name, item.revision) for name, item in found.databases.items()]
        return [remark for remark in remarks if remark]

    def require_an_empty_deployment(self) -> None:
        """Raises `BackupError` unless nothing is there, or what this restore put there and was killed."""
        note = self.settings.state_dir / NOTE
        if note.exists():
            other = json.loads(note.read_text("utf-8"))
            if other["backup"] != self.manifest.name:
                raise BackupError(
                    expected=f"to go on with the restore of {other['backup']} that was interrupted",
                    found=f"{self.manifest.name} was asked for",
                    next_step=f"restore {other['backup']} from {other['place']}, or empty the deployment",
                )
            return
        there = list(self._there())
        if there:
            raise BackupError(
                expected="an empty deployment",
                found=", ".join(there),
                next_step="stop what runs, and empty it (make clean; dropdb and createdb), or restore "
                "elsewhere: a restore writes over nothing",
            )

    def _there(self) -> Iterator[str]:
        settings = self.settings
        for database in databases.databases_of(settings):
            if not databases.is_empty(database):
                yield f"{database.name}'s database"
        for name in (*state_files.MOVED_INTO_TABLES, *state_files.WRITTEN_DOWN):
            # `make up` writes an empty model config before anything else is there.
            if any(
                path.is_file() and path.name != "models.config"
                for path in (settings.state_dir / name).rglob("*")
            ):
                yield f"files in {settings.state_dir / name}"
        if not (
            settings.catalog_uri is None and not settings.catalog_database.exists()
        ) and not tables.is_empty(open_catalog(settings)):
            yield "tables in the catalog"

    def erased(self, suppressed: Path | None, newer_log: Path | None) -> tuple[bytes, bytes, bytes]:
        """The list of the erased as of now, and the audit log as of then and as of now."""
        lists, logs = [self._content(f"state/{state_files.ERASED}")], [self._content(f"state/{_AUDIT_LOG}")]
        for name, found in (("suppressed.jsonl", lists), ("audit.jsonl", logs)):
            try:
                with self.place.read(f"erasures/{name}") as file:
                    found.append(file.read())
            except FileNotFoundError:
                continue
        for path, found in ((suppressed, lists), (newer_log, logs)):
            if path is not None:
                found.append(path.read_bytes())
        return merged_list(lists), logs[0], longest_log(logs)

    def secrets(self) -> dict[str, bytes]:
        """The backup's secrets in the clear; raises `BackupError` when there are some and no key is named."""
        names = self.secret_names()
        if not names:
            return {}
        cipher = state_files.cipher(self.settings)
        if cipher is None:
            raise BackupError(
                expected="the key that the backup's secrets are encrypted with, in AIRLOOP_BACKUP_KEY",
                found="none",
                next_step="name its file; or pass --without-secrets and put the keys in place yourself",
            )
        return {name: state_files.decrypted(self._content(f"secret/{name}"), cipher) for name in names}

    def secret_names(self) -> list[str]:
        """The secrets that the backup has, by their paths in the state folder."""
        return [path.removeprefix("secret/") for path in self._parts if path.startswith("secret/")]

    def write(self, prefix: str, put: Callable[[str, Part], None]) -> None:
        """Put every part whose path begins with `prefix` in place."""
        wanted = [part for part in self.manifest.parts if part.path.startswith(prefix)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda part: put(part.path.removeprefix(prefix), part), wanted))

    def artifact(self, path: str, part: Part) -> None:
        with self.aside() as file:
            self._copy(part, file)
            artifacts.write_file(self.settings, path, file)

    def warehouse_file(self, location: str, part: Part) -> None:
        with self.aside() as file:
            self._copy(part, file)
            with file.open("rb") as source:
                tables.write_file(self.warehouse, location, source)

    def state_file(self, path: str, part: Part) -> None:
        with self.aside() as file:
            self._copy(part, file)
            state_files.write_private(self.settings.state_dir / path, file)

    def tables(self) -> tuple[str, ...]:
        """Register what can be read; returns the names of what cannot."""
        if not self.manifest.tables:
            return ()
        there = {
            table.name: table.metadata_location
            for table in self.manifest.tables
            if table.is_copied or tables.exists(self.warehouse, table.metadata_location)
        }
        tables.register(open_catalog(self.settings), self.manifest.namespaces, there)
        return tuple(table.name for table in self.manifest.tables if table.name not in there)

    def database(self, database: databases.KnownDatabase) -> None:
        if database.part in self._parts:
            with self.aside() as file:
                self._copy(self._parts[database.part], file)
                databases.load(database, file)

    @contextmanager
    def aside(self) -> Iterator[Path]:
        """A file of its own, readable for its owner alone, gone afterwards."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = self.folder / os.urandom(8).hex()
        folder.mkdir()
        try:
            yield folder / "content"
        finally:
            shutil.rmtree(folder)

    @cached_property
    def warehouse(self) -> FileIO:
        """What reads and writes the warehouse."""
        return tables.warehouse_io(self.settings)

    def _copy(self, part: Part, file: Path) -> None:
        with file.open("wb") as target:
            self.place.copy_object(part.sha256, target)

    def _content(self, path: str) -> bytes:
        if path not in self._parts:
            return b""
        with self.aside() as file:
            self._copy(self._parts[path], file)
            return file.read_bytes()


def _next_steps(
    settings: Settings, to_rebuild: Sequence[str], missing: Sequence[str], erasures: int
) -> Iterator[str]:
    if erasures:
        yield (
            f"before anything reads the tables, make {erasures} erasures again: trigger the DAG erasure for "
            "the subject of each request in erasures_to_repeat"
        )
    if missing:
        yield f"put in place what the backup does not have: {', '.join(missing)}"
    yield "upgrade the schemas if this Airloop is newer: airflow db migrate; mlflow db upgrade <url>"
    if to_rebuild:
        yield f"make {', '.join(to_rebuild)} again: airflow backfill create for the features DAG"
    if settings.redis_connection is not None:
        yield "fill the online store: clear materialise of the newest run of the features DAG, then run push"
    yield "make doctor"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = argparse.ArgumentParser(
        prog="python -m airloop.backup restore", description="Restore a backup into an empty deployment."
    )
    add_place(parser, "--from")
    parser.add_argument("--backup", help="its name; by default the newest")
    parser.add_argument("--suppressed", type=Path, help="a newer list of the erased (suppressed.jsonl)")
    parser.add_argument("--audit-log", type=Path, help="a newer audit log (audit.jsonl)")
    parser.add_argument(
        "--without-secrets", action="store_true", help="leave the deployment's keys as they are"
    )

    def work(arguments: argparse.Namespace, settings: Settings) -> Restored:
        place = place_of(settings, arguments.place)
        return restore(
            settings,
            place,
            read_manifest(place, arguments.backup),
            suppressed=arguments.suppressed,
            newer_audit_log=arguments.audit_log,
            without_secrets=arguments.without_secrets,
        )

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
