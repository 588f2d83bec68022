"""Databases: a consistent copy out of a running one, and back into an empty one.

Belongs here: SQLite and PostgreSQL, and which revision of its schema a database has. Does not belong here:
the Iceberg catalog, which is read and written as a catalog (`tables`).

PostgreSQL's own programs do the work; a password comes by PGPASSFILE, or from the setting's URL by the
environment, never by a command line.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from airloop.backup import BackupError
from airloop.settings import Settings

SQLITE_TIMEOUT_SECONDS: Final = 60.0
CONNECT_SECONDS: Final = 10
_NO_ROLES: Final = ("--no-owner", "--no-privileges")
"""Whose tables they are is for the deployment that they are restored into to say."""
_REVISION: Final = re.compile(r"^revision(?:: str)? = [\"']([^\"']+)[\"']", re.MULTILINE)
_MIGRATIONS: Final[Mapping[str, tuple[str, str]]] = {
    "airflow": ("apache-airflow-core", "airflow/migrations/versions/"),
    "mlflow": ("mlflow", "mlflow/store/db_migrations/versions/"),
}
"""Where the installed packages keep their schemas' revisions: distribution and folder."""


class KnownDatabase(NamedTuple):
    """A database of the deployment."""

    name: str
    url: str

    @property
    def kind(self) -> Literal["sqlite", "postgresql"]:
        """What it is."""
        return "sqlite" if self.url.startswith("sqlite") else "postgresql"

    @property
    def file(self) -> Path:
        """The file of one in SQLite."""
        return Path(str(make_url(self.url).database))

    @property
    def part(self) -> str:
        """What its copy is called."""
        return f"database/{self.name}.{'sqlite' if self.kind == 'sqlite' else 'pgdump'}"


def databases_of(settings: Settings) -> tuple[KnownDatabase, ...]:
    """The deployment's databases, who refers to others first; SQLite that is not there yet is among them."""
    state = settings.state_dir
    found = [
        KnownDatabase(
            "airflow", settings.airflow_database or f"sqlite:///{state / 'airflow' / 'airflow.db'}"
        ),
        KnownDatabase("mlflow", settings.mlflow_database or f"sqlite:///{state / 'mlflow' / 'mlflow.db'}"),
        KnownDatabase("tuning", settings.tuning_storage_url),
        KnownDatabase("feast", settings.feast_registry_url),
    ]
    if settings.redis_connection is None:
        found.append(KnownDatabase("feast_online", f"sqlite:///{settings.feast_dir / 'online.db'}"))
    return tuple(found)


def is_empty(database: KnownDatabase) -> bool:
    """Whether nothing is in it; a database of PostgreSQL's must be there."""
    if database.kind == "sqlite":
        return not database.file.exists()
    tables = _asked(
        database,
        "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
    )
    return int(tables) == 0


def dump(database: KnownDatabase, target: Path) -> str | None:
    """Write a copy of `database`, as of one moment, to `target`; returns its schema's revision.

    Raises `BackupError` when it cannot be read whole.
    """
    if database.kind == "sqlite":
        return _dump_sqlite(database, target)
    # Before, so that what is said is never newer than what is dumped.
    revision = _revision(database)
    _run(database, "pg_dump", "--format=custom", *_NO_ROLES, "--file", str(target))
    return revision


def load(database: KnownDatabase, dumped: Path) -> None:
    """Put what `dump` wrote in the place of what is in `database`, in one transaction or one rename."""
    if database.kind == "sqlite":
        database.file.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("-wal", "-shm", "-journal"):
            database.file.with_name(database.file.name + suffix).unlink(missing_ok=True)
        aside = database.file.with_name(f".{database.file.name}.restored")
        shutil.copyfile(dumped, aside)
        aside.replace(database.file)
        return
    options = ("--clean", "--if-exists", "--exit-on-error", "--single-transaction")
    _run(database, "pg_restore", *_NO_ROLES, *options, str(dumped))


def require_known(name: str, revision: str | None) -> str | None:
    """Raises `BackupError` for a revision that the installed package does not know: it is of a newer one.

    Returns what could not be checked, in words, or None.
    """
    if revision is None or name not in _MIGRATIONS:
        return None
    distribution, folder = _MIGRATIONS[name]
    known = _known_revisions(distribution, folder)
    if not known:
        return (
            f"{distribution} is not installed here, so nothing says whether it knows the revision "
            f"{revision} of {name}'s database"
        )
    if revision not in known:
        raise BackupError(
            expected=f"a revision of {name}'s database that the installed {distribution} "
            f"{importlib.metadata.version(distribution)} knows",
            found=f"{revision}: the backup is of a newer one",
            next_step="restore it with the version of Airloop that made it, and upgrade after",
        )
    return None


def _known_revisions(distribution: str, folder: str) -> set[str]:
    """Read as text: who restores need not be able to import it."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    texts = (
        Path(str(file.locate())).read_text("utf-8")
        for file in files
        if str(file).startswith(folder) and file.suffix == ".py"
    )
    return {match.group(1) for text in texts for match in _REVISION.finditer(text)}


def _dump_sqlite(database: KnownDatabase, target: Path) -> str | None:
    source = sqlite3.connect(f"file:{database.file}?mode=ro", uri=True, timeout=SQLITE_TIMEOUT_SECONDS)
    with closing(source), closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
        (found,) = copy.execute("PRAGMA integrity_check").fetchone()
        if found != "ok":
            raise BackupError(
                expected=f"{database.file} to be sound",
                found=str(found),
                next_step="repair it (sqlite3 .recover), or restore an earlier backup",
            )
        # A file by itself, whatever the source's journal.
        copy.execute("PRAGMA journal_mode=DELETE")
        has_revision = copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        row = copy.execute("SELECT version_num FROM alembic_version").fetchone() if has_revision else None
    return row[0] if row else None


def _revision(database: KnownDatabase) -> str | None:
    there = _asked(database, "SELECT to_regclass('alembic_version') IS NOT NULL")
    if not there:
        return None
    revision = _asked(database, "SELECT max(version_num) FROM alembic_version")
    return None if revision is None else str(revision)


def _asked(database: KnownDatabase, statement: str) -> Any:
    """The first value of the first row; None where there is none."""
    url = make_url(database.url).set(drivername="postgresql+psycopg2")
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS})
    try:
        with engine.connect() as connection:
            return connection.execute(text(statement)).scalar()
    except OperationalError as error:
        raise _unreachable(database, str(error.orig).strip()) from None


def _run(database: KnownDatabase, program: str, *options: str) -> None:
    url = make_url(database.url)
    environment = {**os.environ, **({"PGPASSWORD": str(url.password)} if url.password else {})}
    done = subprocess.run(  # noqa: S603  # a program of ours, without a shell
        [_program(program), "--dbname", _without_password(url), "--no-password", *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise _unreachable(database, f"{program}: {done.stderr.strip()[-600:]}")


def _without_password(url: URL) -> str:
    plain = URL.create(
        "postgresql",
        username=url.username,
        host=url.host,
        port=url.port,
        database=url.database,
        query=url.query,
    )
    return plain.render_as_string(hide_password=False)


def _program(name: str) -> str:
    """PostgreSQL's program: Debian's newest, or that of the PATH."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda folder: int(folder.parent.name) if folder.parent.name.isdecimal() else 0,
    )
    for folder in reversed(folders):
        if (folder / name).exists():
            return str(folder / name)
    found = shutil.which(name)
    if found is None:
        raise BackupError(
            expected=f"PostgreSQL's {name}, no older than the server",
            found="none in /usr/lib/postgresql/*/bin or on the PATH",
            next_step="apt-get install --no-install-recommends postgresql-client",
        )
    return found


def _unreachable(database: KnownDatabase, found: str) -> BackupError:
    shown = make_url(database.url).render_as_string(hide_password=True)
    return BackupError(
        expected=f"to read and write {database.name}'s database {shown}",
        found=found,
        next_step="see whether it runs, and whether the file that PGPASSFILE names has its password",
    )
