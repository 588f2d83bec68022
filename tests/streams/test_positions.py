"""What a table has taken in of each stream, read back from real Iceberg commits."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.table import Table

from airloop.lakehouse import properties
from airloop.lakehouse.catalog import open_catalog
from airloop.settings import Settings
from spark_jobs.streams.positions import (
    CLOSED,
    State,
    acknowledge,
    commit_property,
    commits_since_acknowledged,
    load_tables,
    states,
)

ROW = pa.table({"id": ["a"]})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(state_dir=tmp_path)
    catalog = open_catalog(settings)
    catalog.create_namespace("raw")
    catalog.create_table("raw.events", ROW.schema)
    return settings


def _table(settings: Settings) -> Table:
    return load_tables(settings, ["raw.events", "raw.missing"])["raw.events"]


def _commit(settings: Settings, stream: str, state: State, days: Iterable[str] = ()) -> int:
    table = _table(settings)
    text = commit_property(stream, states(table), state, days)
    table.append(ROW, snapshot_properties={properties.SOURCE_OFFSETS: text})
    return _table(settings).current_snapshot().snapshot_id


def _expire_all_but_the_last(settings: Settings) -> None:
    table = _table(settings)
    last = table.current_snapshot().snapshot_id
    others = [snapshot.snapshot_id for snapshot in table.metadata.snapshots if snapshot.snapshot_id != last]
    table.maintenance.expire_snapshots().by_ids(others).commit()


def test_a_table_without_commits_has_taken_in_nothing(settings: Settings) -> None:
    assert states(_table(settings)) == {}


def test_positions_grow_and_survive_the_commits_of_others(settings: Settings) -> None:
    _commit(settings, "one", State({"t/0": "05", "t/1": "02"}))
    _commit(settings, "two", State({"k/a": "07"}, {"k/a": CLOSED}))
    _commit(settings, "one", State({"t/0": "06", "t/1": "02"}))
    _table(settings).append(ROW)
    found = states(_table(settings))
    assert found["one"].positions == {"t/0": "06", "t/1": "02"}
    assert found["two"] == State({"k/a": "07"}, {"k/a": CLOSED})


def test_a_stale_copy_carried_by_another_stream_does_not_take_positions_back(settings: Settings) -> None:
    _commit(settings, "one", State({"t/0": "05"}))
    stale = states(_table(settings))
    _commit(settings, "one", State({"t/0": "09"}))
    text = commit_property("two", stale, State({"k/a": "01"}), ())
    _table(settings).append(ROW, snapshot_properties={properties.SOURCE_OFFSETS: text})
    assert states(_table(settings))["one"].positions == {"t/0": "09"}


def test_positions_survive_the_expiry_of_every_snapshot_that_had_them(settings: Settings) -> None:
    _commit(settings, "one", State({"t/0": "05"}))
    acknowledge(_table(settings), "one")
    _table(settings).append(ROW)
    _expire_all_but_the_last(settings)
    assert states(_table(settings))["one"].positions == {"t/0": "05"}


def test_a_table_that_was_rolled_back_forgets_the_later_positions(settings: Settings) -> None:
    first = _commit(settings, "one", State({"t/0": "05"}))
    _commit(settings, "one", State({"t/0": "09"}))
    acknowledge(_table(settings), "one")
    _table(settings).manage_snapshots().set_current_snapshot(snapshot_id=first).commit()
    assert states(_table(settings))["one"].positions == {"t/0": "05"}


def test_commits_are_reported_until_they_are_acknowledged(settings: Settings) -> None:
    _commit(settings, "one", State({"t/0": "05"}), ["2013-03-04"])
    _commit(settings, "two", State({"k/a": "07"}), ["2013-03-09"])
    _commit(settings, "one", State({"t/0": "06"}), ["2013-03-05"])
    commits = commits_since_acknowledged(_table(settings), "one")
    assert [(commit.rows, commit.days) for commit in commits] == [(1, ("2013-03-04",)), (1, ("2013-03-05",))]
    acknowledge(_table(settings), "one")
    assert commits_since_acknowledged(_table(settings), "one") == []
    assert len(commits_since_acknowledged(_table(settings), "two")) == 1
