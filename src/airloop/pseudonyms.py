"""Personal columns at ingestion: a keyed hash in the value's place, or nothing.

Belongs here: the hash, its key, and both over Arrow tables. Does not belong here: which columns are personal
(the feeds' spec), Spark (`spark_jobs.personal_data`, which calls this), or deleting what is there already
(`airloop.erasure`).

The hash is HMAC-SHA-256 of the value's UTF-8 bytes, in hex. The same value gives the same hash in every feed,
so that joins keep working; without the key nobody can try out values. A new key gives new hashes: old and new
rows of one subject no longer join, and nothing is re-hashed. Rotate by landing the history anew from the
source, or accept the break; either way keep the old key as `previous` (below) while rows hashed with it
exist, so that erasure still finds them.

The key is the password of the connection `PSEUDONYM_KEY`, whose extra may have `previous`, a list of former
keys.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

import pyarrow as pa

from airloop.connections import PSEUDONYM_KEY, Connection, find_connection
from airloop.errors import SettingsError
from airloop.use_cases.spec import Feed

SHORTEST_KEY: Final = 32
"""Bytes. SHA-256 gains nothing from more, and is weaker with fewer."""
WITHHELD: Final = "(withheld: the feed has personal columns)"
"""What quarantine shows in place of a record that could not be typed, so that no value was hashed in it."""


def needs_key(feeds: Iterable[Feed]) -> bool:
    """Whether any of `feeds` has a column to hash."""
    return any(feed.has_hashed_columns for feed in feeds)


def find_key(feeds: Iterable[Feed]) -> bytes | None:
    """The key that `feeds` need, or None where they have nothing to hash.

    Call it before anything is read. Raises `SettingsError` when there is no key, or too short a one.
    """
    return _usable(find_connection(PSEUDONYM_KEY))[0] if needs_key(feeds) else None


def all_keys() -> tuple[bytes, ...]:
    """The key and the former ones, for finding rows whenever they were hashed; empty without a connection.

    Raises `SettingsError` for a key that is too short.
    """
    connection = find_connection(PSEUDONYM_KEY)
    return _usable(connection) if connection is not None else ()


def pseudonym(value: str, key: bytes) -> str:
    """The keyed hash of `value`: 64 hexadecimal digits."""
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()


def protect(table: pa.Table, feed: Feed, key: bytes | None) -> pa.Table:
    """`table` with the personal columns of `feed` hashed or dropped; everything else stays as it is.

    Each distinct value is hashed once; a null stays null. Columns that the table lacks are passed over.
    Raises `SettingsError` when there is something to hash and `key` is missing or too short.
    """
    for column in feed.columns:
        if column.name not in table.column_names:
            continue
        if column.personal == "drop":
            table = table.drop_columns([column.name])
        elif column.personal == "hash":
            place = table.column_names.index(column.name)
            hashed = _hashed(table[column.name], _checked(key))
            table = table.set_column(place, pa.field(column.name, pa.string()), hashed)
    return table


def protected_payload(payload: str, feed: Feed) -> str:
    """What quarantine may keep of a record of `feed` as received: all of it, or only that it was withheld."""
    return WITHHELD if any(column.personal for column in feed.columns) else payload


def protected_reason(reason: str, feed: Feed) -> str:
    """What may be said of why a record of `feed` is malformed: all, or only which columns it is about."""
    if not any(column.personal for column in feed.columns):
        return reason
    named = [column.name for column in feed.columns if f"{column.name}: " in reason]
    return f"{', '.join(named) or 'the record'}: malformed {WITHHELD}"


def _hashed(values: pa.ChunkedArray, key: bytes) -> pa.Array:
    encoded = values.combine_chunks().dictionary_encode()
    words = encoded.dictionary.to_pylist()
    hashes = pa.array([None if word is None else pseudonym(word, key) for word in words], pa.string())
    return hashes.take(encoded.indices)


def _usable(connection: Connection | None) -> tuple[bytes, ...]:
    if connection is None:
        raise SettingsError(
            expected=f"the connection {PSEUDONYM_KEY}, because a feed has columns to hash",
            found="none",
            next_step=f"make a key (openssl rand -hex {SHORTEST_KEY}) and add it as the connection's "
            "password; nothing was read",
        )
    previous = connection.extra.get("previous", [])
    if not isinstance(previous, list) or not all(isinstance(item, str) for item in previous):
        raise SettingsError(
            expected=f"`previous` in the extra of {PSEUDONYM_KEY} to be a list of texts",
            found="something else (not shown, it may hold a secret)",
            next_step="write the former keys as a JSON list",
        )
    return tuple(_checked(text.encode()) for text in (connection.secret, *previous))


def _checked(key: bytes | None) -> bytes:
    if key is None or len(key) < SHORTEST_KEY:
        raise SettingsError(
            expected=f"a key of at least {SHORTEST_KEY} bytes in the connection {PSEUDONYM_KEY}",
            found="none" if key is None else f"one of {len(key)} bytes",
            next_step=f"make one with: openssl rand -hex {SHORTEST_KEY}",
        )
    return key
