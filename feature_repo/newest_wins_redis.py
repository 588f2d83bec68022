"""A Redis online store in which the newest value of an entity stays, whoever else is writing.

Belongs here: that rule for Redis (`feature_repo.newest_wins_sqlite` has it for SQLite, and what it is for).
Does not belong here: when what is written.

Feast's own store reads the times that are there and writes in a second step: newer values that another
process writes between the two are lost. It also refuses a value of the same moment, so that audited values
would never take the place of those that were pushed before the audit.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Literal

from feast import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3, compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from feast.utils import make_tzaware
from google.protobuf.timestamp_pb2 import Timestamp
from redis.backoff import NoBackoff
from redis.retry import Retry

WRITE_IF_UNCHANGED: Final = """
local there = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if there ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
if tonumber(ARGV[3]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return 1
"""
"""Writes an entity's values if the time of those that are there is still the one that was read.

Of the entity's key; the name of the field with the time, the time that was read ('' for none), the seconds
that the key is to live (0 for ever), and fields and values in turn.
"""

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


class NewestWinsRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """Configuration of `NewestWinsRedisOnlineStore`, which Feast finds by this class' name."""

    type: Literal["feature_repo.newest_wins_redis.NewestWinsRedisOnlineStore"] = (  # type: ignore[assignment]
        "feature_repo.newest_wins_redis.NewestWinsRedisOnlineStore"
    )


class NewestWinsRedisOnlineStore(RedisOnlineStore):
    """See the module."""

    def _get_client(self, online_store_config: RedisOnlineStoreConfig) -> Any:
        opened = self._client is not None
        client = super()._get_client(online_store_config)
        if not opened:
            # Once more at once, for a connection that was closed while nobody used it: with redis-py's own
            # waits, several timeouts would be made of one.
            client.set_retry(Retry(NoBackoff(), 1))
        return client

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Reads only: Feast's asynchronous writes know nothing of the rule."""
        return SupportedAsyncMethods(read=True, write=False)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write the rows of `data` that are not older than what is there, each entity's in one step."""
        client = self._get_client(config.online_store)
        view = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
        time_field = f"_ts:{view}".encode()
        write = client.register_script(WRITE_IF_UNCHANGED)
        lifetime_seconds = config.online_store.key_ttl_seconds or 0

        newest: dict[bytes, Row] = {}
        for row in data:
            key = (
                serialize_entity_key(row[0], config.entity_key_serialization_version)
                + config.project.encode()
            )
            if key not in newest or row[2] >= newest[key][2]:
                newest[key] = row
        while newest:
            there = self._times(client, time_field, list(newest))
            # Nothing there reads as the empty time, whatever the row's is.
            newest = {
                key: row
                for key, row in newest.items()
                if not there[key] or _timestamp(row).ToNanoseconds() >= _nanoseconds(there[key])
            }
            with client.pipeline(transaction=False) as pipe:
                for key, row in newest.items():
                    values = [time_field, _timestamp(row).SerializeToString()]
                    for name, value in row[1].items():
                        values += [_mmh3(f"{view}:{name}"), value.SerializeToString()]
                    write(keys=[key], args=[time_field, there[key], lifetime_seconds, *values], client=pipe)
                written = pipe.execute()
            # Others wrote these since they were read. Each round somebody is done, so this ends.
            newest = {key: row for (key, row), done in zip(newest.items(), written, strict=True) if not done}
        if progress is not None:
            progress(len(data))

    @staticmethod
    def _times(client: Any, time_field: bytes, keys: list[bytes]) -> dict[bytes, bytes]:
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hget(key, time_field)
            return {key: found or b"" for key, found in zip(keys, pipe.execute(), strict=True)}


def _timestamp(row: Row) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(make_tzaware(row[2]))
    return found


def _nanoseconds(stored: bytes) -> int:
    return Timestamp.FromString(stored).ToNanoseconds()
