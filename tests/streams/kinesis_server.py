"""moto's Kinesis server, corrected where it departs from AWS in what a consumer must get right.

Run as a program (`python tests/streams/kinesis_server.py PORT`) it serves until it is killed. The departures:
a split or a merge moves the parents' records into the children (AWS leaves them where they are), a closed
shard takes new records and its iterators never end, no iterator expires, and nothing throttles. The last two
are switched on for a number of calls with `POST /faults {"expired": 1, "throttled": 2}`.
"""

from __future__ import annotations

import sys
from typing import Any

from flask import Flask, Response, request
from moto.kinesis import models
from moto.server import create_backend_app
from werkzeug.serving import run_simple

FAULTS = {"expired": 0, "throttled": 0}


def put_record(self: models.Shard, partition_key: str, data: str, explicit_hash_key: str) -> str:
    """With sequence numbers as wide as AWS's own, and each shard's apart."""
    first = 496 * 10**53 + self._shard_id * 10**40
    number = self.get_max_sequence_number() + 1 if self.records else first
    self.records[number] = models.Record(partition_key, data, number, explicit_hash_key)
    return str(number)


def _children(self: models.Stream, parents: list[models.Shard], bounds: list[tuple[int, int]]) -> None:
    number = max(shard._shard_id for shard in self.shards.values()) + 1
    for offset, (low, high) in enumerate(bounds):
        shard = models.Shard(
            number + offset,
            starting_hash=low,
            ending_hash=high,
            parent=parents[0].shard_id,
            adjacent_parent=parents[1].shard_id if len(parents) > 1 else None,
        )
        self.shards[shard.shard_id] = shard
    for parent in parents:
        parent.is_open = False


def split_shard(self: models.Stream, shard_to_split: str, new_starting_hash_key: str) -> None:
    """As AWS does it: the parent is closed and keeps its records."""
    parent, middle = self.shards[shard_to_split], int(new_starting_hash_key)
    _children(self, [parent], [(parent.starting_hash, middle - 1), (middle, parent.ending_hash)])


def merge_shards(self: models.Stream, shard_to_merge: str, adjacent_shard_to_merge: str) -> None:
    """As AWS does it: both parents are closed and keep their records."""
    parents = [self.shards[shard_to_merge], self.shards[adjacent_shard_to_merge]]
    low, high = min(p.starting_hash for p in parents), max(p.ending_hash for p in parents)
    _children(self, parents, [(low, high)])


_get_shard_for_key = models.Stream.get_shard_for_key


def get_shard_for_key(self: models.Stream, *key: Any) -> models.Shard | None:
    """As AWS does it: among the open shards."""
    every = self.shards
    self.shards = {name: shard for name, shard in every.items() if shard.is_open}
    try:
        return _get_shard_for_key(self, *key)
    finally:
        self.shards = every


_get_records = models.KinesisBackend.get_records


def get_records(self: Any, stream_arn: str | None, shard_iterator: str, limit: int | None) -> Any:
    """As AWS does it: the iterator of a closed shard ends behind its last record."""
    following, records, behind = _get_records(self, stream_arn, shard_iterator, limit)
    name, shard_id, last = models.decompose_shard_iterator(following)
    shard = self.describe_stream(stream_arn=stream_arn, stream_name=name).get_shard(shard_id)
    ended = not shard.is_open and int(last) >= shard.get_max_sequence_number()
    return None if ended else following, records, behind


def _fault() -> Response | None:
    if request.path == "/faults":
        FAULTS.update(request.get_json())
        return Response("{}")
    if not request.headers.get("X-Amz-Target", "").endswith(".GetRecords"):
        return None
    for fault, name in (
        ("expired", "ExpiredIteratorException"),
        ("throttled", "ProvisionedThroughputExceededException"),
    ):
        if FAULTS[fault] > 0:
            FAULTS[fault] -= 1
            body = f'{{"__type": "{name}", "message": "as told by the test"}}'
            return Response(body, 400, content_type="application/x-amz-json-1.1")
    return None


def _app() -> Flask:
    app: Flask = create_backend_app("kinesis")
    app.before_request(_fault)
    return app


def main(port: int) -> None:
    """Serve Kinesis on loopback."""
    models.Shard.put_record = put_record  # type: ignore[method-assign]
    models.Stream.split_shard = split_shard  # type: ignore[method-assign]
    models.Stream.merge_shards = merge_shards  # type: ignore[method-assign]
    models.Stream.get_shard_for_key = get_shard_for_key  # type: ignore[method-assign]
    models.KinesisBackend.get_records = get_records  # type: ignore[method-assign]
    # One thread: moto's put is not made for several at once.
    run_simple("127.0.0.1", port, _app(), threaded=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
