"""The rules of reading shards: parents first, and nothing trimmed unnoticed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airloop.errors import SourceError
from spark_jobs.streams.positions import CLOSED, State
from spark_jobs.streams.shards import Shard, check_nothing_trimmed, readable

A, B = Shard("s", "a", ()), Shard("s", "b", ("a",))
MERGED = Shard("s", "c", ("b", "x"))
NOW = datetime(2013, 3, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def test_a_child_waits_for_its_parents_and_for_none_that_is_gone() -> None:
    shards = [MERGED, B, A]
    assert readable(shards, set()) == [A]
    assert readable(shards, {"s/a"}) == [B]
    assert readable(shards, {"s/a", "s/b"}) == [MERGED]
    assert readable([MERGED], set()) == [MERGED]


def _check(shards: list[Shard], read_until: dict[str, str], *, accept: bool = False) -> list[str]:
    return check_nothing_trimmed(shards, State({}, read_until), DAY, NOW, accept)


def test_a_shard_that_was_not_read_for_longer_than_the_retention_is_in_doubt() -> None:
    recent, old = (NOW - timedelta(hours=hours) for hours in (23, 25))
    assert _check([A], {"s/a": recent.isoformat()}) == []
    with pytest.raises(SourceError, match="s/a, read up to 2013-03-03T11"):
        _check([A], {"s/a": old.isoformat()})
    assert _check([A], {"s/a": old.isoformat()}, accept=True) == []


def test_a_shard_that_vanished_before_its_end_was_read_is_in_doubt() -> None:
    assert _check([], {"s/a": CLOSED}) == []
    with pytest.raises(SourceError, match="s/a"):
        _check([B], {"s/a": NOW.isoformat()})
    assert _check([B], {"s/a": NOW.isoformat()}, accept=True) == ["s/a"]
