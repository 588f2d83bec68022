"""Erasing a subject from the online store: every entry whose entity key names it, whichever view it is of.

Belongs here: going through the store's keys, SQLite or Redis, with Feast's own key serialisation. Does not
belong here: what a trace of the subject is, or the tables.

Feast's stores can write and read, and forget a whole view; nothing in them deletes one entity.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from feast.infra.key_encoding_utils import deserialize_entity_key

from airloop.erasure.files import Scan
from airloop.erasure.traces import Traces
from airloop.settings import Settings
from feature_repo.online import PROJECT, repo_config

BUSY_SECONDS = 60


class OnlineTraces(Protocol):
    """What one kind of store can tell and do about a subject."""

    def count(self) -> int:
        """How many entries the subject has."""
        ...

    def erase(self) -> int:
        """Delete them so that no page keeps them; returns how many."""
        ...

    def scan(self, scan: Scan) -> int:
        """Add traces in any entry, key or value, to `scan`; returns how many entries were looked at."""
        ...


def online_traces(settings: Settings, traces: Traces) -> OnlineTraces:
    """The deployment's online store, as far as the subject is concerned."""
    if settings.redis_connection is not None:
        return _Redis(settings, traces)
    return _Sqlite(settings.feast_dir / "online.db", traces)


def _names_subject(key: bytes, traces: Traces) -> bool:
    try:
        values = deserialize_entity_key(key, entity_key_serialization_version=3).entity_values
    except (ValueError, struct.error):
        return False
    return any(value.string_val in traces.values for value in values)


class _Sqlite:
    def __init__(self, path: Path, traces: Traces) -> None:
        self._path = path
        self._traces = traces

    def count(self) -> int:
        with self._opened() as database:
            return sum(len(self._keys(database, table)) for table in self._tables(database))

    def erase(self) -> int:
        if not self._path.exists():
            return 0
        erased = 0
        with self._opened() as database:
            for table in self._tables(database):
                keys = self._keys(database, table)
                with database:
                    database.executemany(f'DELETE FROM "{table}" WHERE entity_key = ?', [(k,) for k in keys])  # noqa: S608 - the database's own names
                erased += len(keys)
            if erased or self._bytes_left():
                # Rebuilds the file: pages that updates and deletions freed keep their content otherwise.
                database.execute("VACUUM")
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return erased

    def scan(self, scan: Scan) -> int:
        entries = 0
        with self._opened() as database:
            for table in self._tables(database):
                for key, value, text in database.execute(
                    f'SELECT entity_key, value, value_text FROM "{table}"'  # noqa: S608 - the database's own names
                ):
                    entries += 1
                    place = f"online store, {table}"
                    if _names_subject(key, self._traces):
                        scan.exact[f"{place} (key)"] += 1
                    for part in (value, text):
                        kind = self._traces.kind_in(part) if part else None
                        scan.add(f"{place} (value)", {0: kind} if kind else {})
        scan.values += entries
        left = self._bytes_left()
        scan.files += len(self._files())
        if left:
            scan.exact[f"online store, {self._path.name} (pages)"] += left
        return entries

    def _opened(self) -> closing[sqlite3.Connection]:
        source = str(self._path) if self._path.exists() else ":memory:"
        database = sqlite3.connect(source, timeout=BUSY_SECONDS)
        database.execute("PRAGMA secure_delete = ON")
        return closing(database)

    def _tables(self, database: sqlite3.Connection) -> list[str]:
        rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        tables = []
        for (name,) in rows:
            columns = {row[1] for row in database.execute(f'PRAGMA table_info("{name}")')}
            if "entity_key" in columns:
                tables.append(name)
        return tables

    def _keys(self, database: sqlite3.Connection, table: str) -> list[bytes]:
        found = database.execute(f'SELECT DISTINCT entity_key FROM "{table}"')  # noqa: S608 - the database's own names
        return [key for (key,) in found if _names_subject(key, self._traces)]

    def _files(self) -> list[Path]:
        beside = (self._path.with_name(f"{self._path.name}-{end}") for end in ("wal", "journal"))
        return [path for path in (self._path, *beside) if path.exists()]

    def _bytes_left(self) -> int:
        """How often the subject stands as the value of a serialised key in the files' bytes."""
        # With its length before it, so that a longer value that begins the same is not taken for it.
        patterns = [
            struct.pack("<I", len(value)) + value for value in (v.encode() for v in self._traces.values)
        ]
        return sum(path.read_bytes().count(pattern) for path in self._files() for pattern in patterns)


class _Redis:
    def __init__(self, settings: Settings, traces: Traces) -> None:
        from feast.infra.online_stores.redis import RedisOnlineStore

        self._client: Any = RedisOnlineStore()._get_client(repo_config(settings).online_store)
        self._traces = traces

    def count(self) -> int:
        return sum(1 for _ in self._keys_of_subject())

    def erase(self) -> int:
        keys = list(self._keys_of_subject())
        for key in keys:
            self._client.delete(key)
        return len(keys)

    def scan(self, scan: Scan) -> int:
        entries = 0
        for key in self._keys():
            entries += 1
            if _names_subject(self._entity(key), self._traces):
                scan.exact["online store, Redis (key)"] += 1
            for value in self._client.hgetall(key).values():
                kind = self._traces.kind_in(value)
                scan.add("online store, Redis (value)", {0: kind} if kind else {})
        scan.values += entries
        return entries

    def _keys(self) -> Iterator[bytes]:
        yield from self._client.scan_iter(match=b"*" + PROJECT.encode(), count=1000)

    def _keys_of_subject(self) -> Iterator[bytes]:
        return (key for key in self._keys() if _names_subject(self._entity(key), self._traces))

    @staticmethod
    def _entity(key: bytes) -> bytes:
        return key.removesuffix(PROJECT.encode())
