"""Kinesis shards: which there are, in which order they must be read, and reading one of them.

Belongs here: the Kinesis API's own rules. Does not belong here: batches, tables, or when to stop.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from airloop.errors import SourceError
from spark_jobs.streams.positions import CLOSED, State

log = logging.getLogger(__name__)

MOST_PER_CALL: Final = 10_000
"""What one call may return; the API's own limit, beside 10 MiB."""


class Shard(NamedTuple):
    """One shard of a Kinesis stream."""

    stream: str
    id: str
    parents: tuple[str, ...]
    """Shards that it continues, after a split or a merge."""

    @property
    def place(self) -> str:
        """See `received.PLACE`."""
        return f"{self.stream}/{self.id}"


class Page(NamedTuple):
    """What one call returned of a shard."""

    records: list[dict[str, Any]]
    behind: timedelta
    """How far the end of the page is behind the tip."""
    at_end: bool
    """Whether the shard is closed and was read to its end."""


class ShardReader:
    """Reads one shard from behind `position` (its beginning, without one), page by page.

    An iterator that expired, for the batch before took long, is replaced where reading stopped.
    """

    def __init__(self, client: Any, shard: Shard, position: str | None) -> None:
        self.shard = shard
        self._client = client
        self._position = position
        self._iterator: str | None = None

    def read(self) -> Page:
        """The next page; an empty one at the tip."""
        if self._iterator is None:
            self._iterator = self._new_iterator()
        try:
            page = self._client.get_records(ShardIterator=self._iterator, Limit=MOST_PER_CALL)
        except self._client.exceptions.ExpiredIteratorException:
            log.info("the iterator of %s expired; it is made anew", self.shard.place)
            self._iterator = self._new_iterator()
            page = self._client.get_records(ShardIterator=self._iterator, Limit=MOST_PER_CALL)
        self._iterator = page.get("NextShardIterator")
        if page["Records"]:
            self._position = page["Records"][-1]["SequenceNumber"]
        behind = timedelta(milliseconds=page.get("MillisBehindLatest", 0))
        return Page(page["Records"], behind, self._iterator is None)

    def _new_iterator(self) -> str:
        start = (
            {"ShardIteratorType": "TRIM_HORIZON"}
            if self._position is None
            else {
                "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
                "StartingSequenceNumber": str(int(self._position)),
            }
        )
        try:
            answer = self._client.get_shard_iterator(
                StreamName=self.shard.stream, ShardId=self.shard.id, **start
            )
        except self._client.exceptions.InvalidArgumentException as error:
            raise SourceError(
                expected=f"{self.shard.place} to know the position where landing stopped",
                found=str(error),
                next_step="the Kinesis stream was made anew: land it as another stream, by changing the "
                "stream's name in the use case's spec",
            ) from None
        return str(answer["ShardIterator"])


def list_shards(client: Any, stream: str) -> list[Shard]:
    """The shards that hold records of `stream`, open or closed; raises `SourceError` if it does not exist."""
    shards: list[Shard] = []
    request: dict[str, str] = {"StreamName": stream}
    while True:
        try:
            answer = client.list_shards(**request)
        except client.exceptions.ResourceNotFoundException:
            raise SourceError(
                expected=f"a Kinesis stream {stream}",
                found="none",
                next_step="create it, or correct the stream's topics in the use case's spec",
            ) from None
        for item in answer["Shards"]:
            parents = (item.get("ParentShardId"), item.get("AdjacentParentShardId"))
            shards.append(Shard(stream, item["ShardId"], tuple(p for p in parents if p)))
        if "NextToken" not in answer:
            return shards
        request = {"NextToken": answer["NextToken"]}


def readable(shards: Iterable[Shard], finished: Iterable[str]) -> list[Shard]:
    """The shards that may be read now: unfinished, and each parent finished or no longer there.

    So the records of a key stay in order across a split or a merge. `finished` has places.
    """
    shards, finished = list(shards), set(finished)
    waiting = {(shard.stream, shard.id) for shard in shards if shard.place not in finished}
    return [
        shard
        for shard in shards
        if shard.place not in finished and not any((shard.stream, p) in waiting for p in shard.parents)
    ]


def check_nothing_trimmed(
    shards: Iterable[Shard], state: State, retention: timedelta, now: datetime, accept_loss: bool
) -> list[str]:
    """Raise `SourceError` where records may have been trimmed before they were landed.

    Sequence numbers have gaps of their own, so a gap shows nothing; but what a shard was read up to is known,
    and nothing younger than the retention is trimmed. Returns, with `accept_loss`, the places that are gone
    altogether, so that they can be noted as read.
    """
    listed = {shard.place for shard in shards}
    doubtful, vanished = [], []
    for place, until in sorted(state.read_until.items()):
        if until == CLOSED:
            continue
        if place not in listed:
            vanished.append(place)
        if place not in listed or now - datetime.fromisoformat(until) > retention:
            doubtful.append(f"{place}, read up to {until}")
    if doubtful and not accept_loss:
        raise SourceError(
            expected=f"every shard to have been read within the stream's retention of {retention}",
            found=f"records may have been trimmed since: {'; '.join(doubtful)}",
            next_step="deliver the period again from a batch source if it matters, then run this job once "
            "with --accept-loss; keep retention longer than the longest outage",
        )
    if doubtful:
        log.error("accepted as lost, if there was anything: %s", "; ".join(doubtful))
    return vanished


def retention_of(client: Any, stream: str) -> timedelta:
    """How long `stream` keeps its records."""
    summary = client.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    return timedelta(hours=summary["RetentionPeriodHours"])


def read_until(page: Page, now: datetime) -> str:
    """What `page` shows its shard to be read up to (see `State.read_until`)."""
    return CLOSED if page.at_end else (now - page.behind).astimezone(UTC).isoformat(timespec="seconds")
