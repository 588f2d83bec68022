"""A comparison that sees nothing would let everything pass: what it must see, and what it must not."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from airloop.audit_log import append_record
from airloop.lakehouse.catalog import open_catalog
from airloop.settings import Settings
from tests.faults.survival import state
from tests.faults.survival.state import differences

ROWS = [{"key": n, "value": n / 3} for n in range(10)]
SERVER_RUN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The state of a deployment of its own, after what a function did to it; without MLflow's server."""
    made: list[Settings] = []

    def one(
        rows: list[dict[str, Any]] = ROWS,
        also: Callable[[Settings], None] = lambda _: None,
        online: tuple[tuple[bytes, str, bytes, str], ...] = ((b"k", "f", b"v", "2013-11-11"),),
    ) -> dict[str, Any]:
        settings = Settings(state_dir=tmp_path / str(len(made)))
        made.append(settings)
        catalog = open_catalog(settings)
        catalog.create_namespace("clean")
        data = pa.Table.from_pylist(rows)
        catalog.create_table("clean.flights", schema=data.schema).append(data)
        settings.feast_dir.mkdir(parents=True)
        with sqlite3.connect(settings.feast_dir / "online.db") as connection:
            connection.execute(
                "CREATE TABLE view (entity_key BLOB, feature_name TEXT, value BLOB, event_ts TEXT)"
            )
            connection.executemany("INSERT INTO view VALUES (?, ?, ?, ?)", online)
        settings.models_dir.mkdir()
        (settings.models_dir / "flight_delay.routing.json").write_text(
            json.dumps({"changed_by": f"rollout/{SERVER_RUN}", "shadow": None}), "utf-8"
        )
        append_record(settings, kind="promotion", key="1", what={})
        also(settings)
        return {
            "tables": dict(state._tables(settings)),
            "online": state._online(settings),
            "serving": state._serving(settings),
            "audit log": state._audit_log(settings),
            "files": state._files(settings),
        }

    return one


def test_two_that_differ_in_when_and_by_whom_are_equal(make):
    def by_another_run(settings: Settings) -> None:
        file = settings.models_dir / "flight_delay.routing.json"
        file.write_text(file.read_text("utf-8").replace("0123", "3210"), "utf-8")

    assert differences(make(), make(ROWS[::-1], by_another_run)) == []


@pytest.mark.parametrize(
    "rows",
    [
        ROWS[1:],
        [*ROWS, ROWS[0]],
        [{**ROWS[0], "value": 0.001}, *ROWS[1:]],
        [{**ROWS[0], "value": 1e-7}, *ROWS[1:]],
        [{**row, "added": 1} for row in ROWS],
    ],
    ids=["lost", "twice", "changed", "changed a little", "a column more"],
)
def test_a_row_that_is_not_the_same_is_seen(make, rows):
    assert any("clean.flights" in line for line in differences(make(), make(rows)))


def test_a_row_of_a_large_table_is_seen(make, monkeypatch):
    monkeypatch.setattr(state, "MANY_ROWS", 5)
    assert differences(make(), make()) == []
    (line, *_) = differences(make(), make([{**ROWS[0], "value": 9.0}, *ROWS[1:]]))
    assert "1 gone, 1 new" in line


def _branch(settings: Settings) -> None:
    table = open_catalog(settings).load_table("clean.flights")
    table.manage_snapshots().create_branch(table.current_snapshot().snapshot_id, "audit_x").commit()


def _table(settings: Settings) -> None:
    open_catalog(settings).create_table("clean.weather", schema=pa.schema([("key", pa.int64())]))


def _routing(settings: Settings) -> None:
    (settings.models_dir / "flight_delay.routing.json").write_text('{"shadow": 2}', "utf-8")


def _half_written(settings: Settings) -> None:
    (settings.models_dir / ".models.config.123").write_text("", "utf-8")


def _record(settings: Settings) -> None:
    append_record(settings, kind="promotion", key="2", what={})


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (_branch, "tables"),
        (_table, "tables"),
        (_routing, "serving"),
        (_half_written, "files"),
        (_record, "audit log"),
    ],
)
def test_what_is_left_or_done_twice_is_seen(make, change, part):
    found = differences(make(), make(also=change))
    assert any(line.startswith(part) for line in found), found


@pytest.mark.parametrize(
    "online",
    [
        (),
        ((b"k", "f", b"w", "2013-11-11"),),
        ((b"k", "f", b"v", "2013-11-12"),),
        ((b"k", "f", b"v", "2013-11-11"), (b"l", "f", b"v", "2013-11-11")),
    ],
)
def test_an_online_value_that_is_not_the_same_is_seen(make, online):
    assert any(line.startswith("online") for line in differences(make(), make(online=online)))
