"""An SQLite online store in which the newest value of an entity stays, whatever order values are written in.

Belongs here: that rule for SQLite (`feature_repo.newest_wins_redis` has it for Redis). Does not belong here:
when what is written.

With it, materialising may be repeated, run twice at once, and go back in time beside pushes of this hour's
values: an older value never replaces a newer one, and one of the same moment replaces the one before, so that
audited values take the place of those that were pushed before the audit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from feast import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from feast.utils import to_naive_utc

BUSY_MILLISECONDS = 60_000

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


class NewestWinsSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """Configuration of `NewestWinsSqliteOnlineStore`, which Feast finds by this class' name."""

    type: Literal["feature_repo.newest_wins_sqlite.NewestWinsSqliteOnlineStore"] = (  # type: ignore[assignment]
        "feature_repo.newest_wins_sqlite.NewestWinsSqliteOnlineStore"
    )


class NewestWinsSqliteOnlineStore(SqliteOnlineStore):
    """See the module."""

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write the rows of `data` that are not older than what is there, all in one transaction."""
        connection: sqlite3.Connection = self._get_conn(config)
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        name = compute_table_id(config.project, table, config.registry.enable_online_feature_view_versioning)
        # Before the first read: whoever writes at the same time waits, and then sees these rows.
        connection.execute("BEGIN IMMEDIATE")
        try:
            newest: dict[bytes, tuple[int, Row]] = {}
            for row in data:
                key = serialize_entity_key(row[0], config.entity_key_serialization_version)
                moment = int(to_naive_utc(row[2]).timestamp())
                if key not in newest:
                    (there,) = connection.execute(
                        f'SELECT MAX(event_ts) FROM "{name}" WHERE entity_key = ?',  # noqa: S608 - Feast's name
                        (key,),
                    ).fetchone()
                    if there is not None and there > moment:
                        continue
                elif newest[key][0] > moment:
                    continue
                newest[key] = (moment, row)
            # Commits, or rolls back when it fails.
            super().online_write_batch(config, table, [row for _, row in newest.values()], None)
        finally:
            if connection.in_transaction:
                connection.rollback()
        if progress is not None:
            progress(len(data))
