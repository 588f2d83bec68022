"""What a deployment's tables and online store hold, equal for equal days; and putting it back.

Belongs here: digests of tables and of the online store, the snapshots to return to, returning. Does not
belong here: what is done to the deployment in between (`services`). Run where the deployment's settings are:
`python -m tests.faults.survival.contents digest|snapshots|reset|streamed`; on standard input `reset` takes
what `snapshots` printed, and `streamed` a stream's name.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from pyiceberg.table import Table

from airloop.lakehouse.catalog import open_catalog
from airloop.settings import Settings, load_settings

NAMESPACES = ("raw", "clean", "features", "labels")
"""Those whose rows follow from the source's alone; of a run or of a time they hold nothing."""


class Digest(NamedTuple):
    """Rows, whatever their order."""

    rows: int
    sha256: str


def tables(settings: Settings) -> dict[str, Table]:
    """Every table of `NAMESPACES`."""
    catalog = open_catalog(settings)
    there = {name for (name,) in catalog.list_namespaces()}
    return {
        ".".join(name): catalog.load_table(name)
        for namespace in NAMESPACES
        if namespace in there
        for name in catalog.list_tables(namespace)
    }


def digest_of(rows: pa.Table) -> Digest:
    """The same for the same rows in another order; another for a row more, less, or twice."""
    names = sorted(rows.column_names)
    lines = sorted(repr([row[name] for name in names]) for row in rows.to_pylist())
    return Digest(len(lines), hashlib.sha256("\n".join([repr(names), *lines]).encode()).hexdigest())


def online_values(settings: Settings) -> Digest:
    """Every key of the online store with its values."""
    client = _redis(settings)
    held = sorted(
        repr((key, sorted(client.hgetall(key).items())))
        for key in client.scan_iter(count=1000)
        if client.type(key) == b"hash"
    )
    return Digest(len(held), hashlib.sha256("\n".join(held).encode()).hexdigest())


def snapshots(settings: Settings) -> dict[str, int | None]:
    """The snapshot that `main` of each table stands at."""
    found = {name: table.current_snapshot() for name, table in tables(settings).items()}
    return {name: snapshot.snapshot_id if snapshot else None for name, snapshot in found.items()}


def streamed(settings: Settings, stream: str) -> dict[str, list[int]]:
    """By feed: rows of `raw` that came by `stream`, and how many places at the broker they name."""
    found = {}
    for name, table in tables(settings).items():
        if name.startswith("raw.") and "_source_offset" in table.schema().column_names:
            places = table.scan(f"_source = '{stream}'", selected_fields=("_source_offset",)).to_arrow()
            offsets = places["_source_offset"].to_pylist()
            found[name.removeprefix("raw.")] = [len(offsets), len(set(offsets))]
    return found


def reset(settings: Settings, wanted: Mapping[str, int | None]) -> None:
    """Have `main` of each table be where it was, no table that was not, and nothing in the online store."""
    catalog = open_catalog(settings)
    for name, table in tables(settings).items():
        current, before = table.current_snapshot(), wanted.get(name)
        if name not in wanted:
            catalog.drop_table(name)
        elif current is not None and before is not None and current.snapshot_id != before:
            with table.manage_snapshots() as managed:
                managed.rollback_to_snapshot(before)
    _redis(settings).flushdb()


def _redis(settings: Settings) -> Any:
    from feast.infra.online_stores.redis import RedisOnlineStore

    from feature_repo.online import repo_config

    return RedisOnlineStore()._get_client(repo_config(settings).online_store)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the last line is JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.survival.contents", description=__doc__)
    parser.add_argument("what", choices=("digest", "snapshots", "reset", "streamed"))
    flags = parser.parse_args(argv)
    settings = load_settings()
    answer: object = None
    if flags.what == "digest":
        answer = {name: digest_of(table.scan().to_arrow()) for name, table in tables(settings).items()}
        answer = {**answer, "online": online_values(settings)}
    elif flags.what == "snapshots":
        answer = snapshots(settings)
    elif flags.what == "streamed":
        answer = streamed(settings, sys.stdin.read())
    else:
        reset(settings, json.load(sys.stdin))
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
