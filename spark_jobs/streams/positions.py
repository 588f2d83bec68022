"""How far each stream has come, as the tables themselves say it: the truth that makes landing exactly once.

Belongs here: reading and writing the positions that table commits carry. Does not belong here: any broker's
own bookkeeping (checkpoints, iterators), which may be lost or run ahead, and is then put right from here.

Each commit of a stream to a table has, in its snapshot's properties, the last position of every place that
the table has taken in, so that rows and positions become visible in one atomic step. Positions only grow
along a table's history, so the state of a stream is the highest position over the ancestors of the table's
present snapshot; a table that is rolled back forgets the later positions with the later rows, and takes them
in anew. Each commit also carries the other streams' positions on, and when a run ends the table's properties
repeat them (`acknowledge`): those count only where snapshot expiry has cut the history.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from airloop.lakehouse import properties
from airloop.lakehouse.catalog import open_catalog
from airloop.settings import Settings

log = logging.getLogger(__name__)

ACKNOWLEDGED: Final = "airloop.stream."
"""Prefix of the table property with a stream's state and the last of its snapshots that a run reported."""
CLOSED: Final = "closed"
"""In `State.read_until`: the place was read to its end, and nothing will ever follow."""


class State(NamedTuple):
    """How far a table has taken in one stream."""

    positions: Mapping[str, str]
    """The last position taken in, by place."""
    read_until: Mapping[str, str] = {}
    """By place, the instant (ISO 8601, UTC) up to which it was read, or `CLOSED`; only for brokers whose
    positions do not show whether something between two of them was trimmed."""

    def advanced(self, later: State) -> State:
        """This state with every place moved on to where `later` has it further."""
        return State(_highest(self.positions, later.positions), _highest(self.read_until, later.read_until))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"positions": dict(self.positions), "read_until": dict(self.read_until)}


class StreamCommit(NamedTuple):
    """One commit of a stream to a table."""

    snapshot_id: int
    rows: int
    days: tuple[str, ...]
    """UTC days, ISO 8601, of the event times of its rows."""


NOWHERE: Final = State({})


def load_tables(settings: Settings, names: Iterable[str]) -> dict[str, Table]:
    """Those of the tables `names` that exist, as they are now."""
    catalog = open_catalog(settings)
    found = {}
    for name in names:
        try:
            found[name] = catalog.load_table(name)
        except NoSuchTableError:
            continue
    return found


def states(table: Table) -> dict[str, State]:
    """The state of every stream in `table`, by the stream's name."""
    found: dict[str, State] = {}
    lineage = list(_lineage(table, table.current_snapshot()))
    for snapshot in lineage:
        for stream, state in _carried(snapshot).items():
            found[stream] = found.get(stream, NOWHERE).advanced(state)
    # Expiry by Spark leaves the parent's id in the oldest snapshot kept; expiry by PyIceberg does not.
    if not lineage or (lineage[-1].parent_snapshot_id is None and lineage[-1].sequence_number == 1):
        return found
    present = {snapshot.snapshot_id for snapshot in table.metadata.snapshots}
    ours = {snapshot.snapshot_id for snapshot in lineage}
    for name, text in table.properties.items():
        if name.startswith(ACKNOWLEDGED):
            document = json.loads(text)
            if document["snapshot"] in present - ours:
                continue  # the table was rolled back behind it
            stream = name.removeprefix(ACKNOWLEDGED)
            found[stream] = found.get(stream, NOWHERE).advanced(_state(document))
    return found


def commit_property(stream: str, known: Mapping[str, State], state: State, days: Iterable[str]) -> str:
    """The value of `properties.SOURCE_OFFSETS` for a commit that brings `stream` to `state`.

    `known` is what `states` said before; the other streams' states are carried on from it.
    """
    others = {name: other.as_json() for name, other in known.items() if name != stream}
    document = {"stream": stream, **state.as_json(), "days": sorted(days), "carried": others}
    return properties.json_text(document)


def commits_since_acknowledged(table: Table, stream: str) -> list[StreamCommit]:
    """The commits of `stream` that no run has reported yet, oldest first."""
    acknowledged = table.properties.get(ACKNOWLEDGED + stream)
    last = table.snapshot_by_id(json.loads(acknowledged)["snapshot"]) if acknowledged else None
    # Of a table that was rolled back, the last one reported is on another line, which meets this one.
    reported = {snapshot.snapshot_id for snapshot in _lineage(table, last)} if last is not None else set()
    found = []
    for snapshot in _lineage(table, table.current_snapshot()):
        if snapshot.snapshot_id in reported:
            break
        document = _document(snapshot)
        if document.get("stream") == stream:
            rows = int(properties.properties_of(snapshot).get("added-records", 0))
            found.append(StreamCommit(snapshot.snapshot_id, rows, tuple(document["days"])))
    return found[::-1]


def acknowledge(table: Table, stream: str) -> None:
    """Note in the table's properties that what `stream` committed so far is reported, and its state.

    Without this a later run reports the same commits again, and expiry of all the stream's snapshots would
    forget its positions; so a concurrent commit, which makes this one fail, is waited out and logged.
    """
    commits = commits_since_acknowledged(table, stream)
    if not commits:
        return
    document = {"snapshot": commits[-1].snapshot_id, **states(table)[stream].as_json()}
    try:
        with table.transaction() as transaction:
            transaction.set_properties({ACKNOWLEDGED + stream: properties.json_text(document)})
    except CommitFailedException:
        log.warning("%s was busy; the next run acknowledges this one's commits too", ".".join(table.name()))


def _lineage(table: Table, snapshot: Snapshot | None) -> Iterator[Snapshot]:
    """`snapshot` and its ancestors, as far back as they are kept."""
    while snapshot is not None:
        yield snapshot
        parent = snapshot.parent_snapshot_id
        snapshot = table.snapshot_by_id(parent) if parent is not None else None


def _document(snapshot: Snapshot) -> dict[str, Any]:
    """The stream's property of `snapshot`; empty for a commit that no stream made."""
    text = properties.properties_of(snapshot).get(properties.SOURCE_OFFSETS)
    document = json.loads(text) if text else {}
    return document if isinstance(document, dict) and "positions" in document else {}


def _carried(snapshot: Snapshot) -> dict[str, State]:
    document = _document(snapshot)
    if not document:
        return {}
    others = {name: _state(other) for name, other in document["carried"].items()}
    return {document["stream"]: _state(document), **others}


def _state(document: Mapping[str, Any]) -> State:
    return State(document["positions"], document["read_until"])


def _highest(left: Mapping[str, str], right: Mapping[str, str]) -> dict[str, str]:
    return {place: max(left.get(place, ""), right.get(place, "")) for place in sorted({*left, *right})}
