"""Maintenance beside writers: files become few, the past ends at its retention, no reader sees other rows."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from pyiceberg.table import Table
from pyspark.sql import Row, SparkSession

from airloop.errors import EXIT_PERMANENT, HistoryError
from airloop.lakehouse import properties
from airloop.lakehouse.catalog import open_catalog, read_snapshot
from airloop.lakehouse.history import publications
from airloop.settings import Settings
from airloop.use_cases.spec import Retention, UseCase
from airloop.versions.rollback import roll_back
from spark_jobs import maintenance
from spark_jobs.maintenance import maintain, maintain_table, tables_of
from spark_jobs.streams.positions import CLOSED, State, acknowledge, commit_property, load_tables, states
from spark_jobs.tables import append, ensure_table, fast_forward, tag_snapshot, write_aside
from tests.integration.small_tables import SmallTables, as_run, day

DAYS_AHEAD = 40
HOURS_OLD = 72
RETENTION = Retention(
    snapshots_days=30, min_snapshots=1, branches_days=30, orphan_hours=DAYS_AHEAD * 24 + HOURS_OLD
)
"""With it and `_later()`, all that a test made is old, except files: those stay for `HOURS_OLD` from now."""


def _now() -> datetime:
    return datetime.now(UTC)


def _later() -> datetime:
    """What maintenance is told that the time is, for waiting is no option."""
    return _now() + timedelta(days=DAYS_AHEAD)


def _cut_at(snapshot_millis: int) -> datetime:
    """The `as_of` by which what is older than a snapshot is past `RETENTION`, and the snapshot is not."""
    made = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=snapshot_millis)
    return made + timedelta(days=RETENTION.snapshots_days)


@pytest.fixture
def small(spark: SparkSession, settings: Settings, spec: UseCase) -> SmallTables:
    return SmallTables(spark, settings, spec)


def _appended(small: SmallTables, times: int, layer: str = "raw") -> str:
    """A table of as many files and snapshots as `times`, a day each, as hourly ingestion leaves them."""
    name = f"{layer}.m_{uuid.uuid4().hex[:8]}"
    for number in range(times):
        rows = small.rows(day(number), f"v{number}").coalesce(1)
        ensure_table(small.spark, name, rows, "at")
        append(rows, name, {})
    return name


def _rows(small: SmallTables, name: str, version: int | str | None = None) -> list[Row]:
    at = "" if version is None else f"VERSION AS OF {version!r}"
    return small.spark.sql(f"SELECT * FROM {name} {at} ORDER BY at, value").collect()


def _loaded(small: SmallTables, name: str) -> Table:
    return open_catalog(small.settings).load_table(name)


def _snapshots(small: SmallTables, name: str) -> list[tuple[int, int]]:
    """Id and time in milliseconds of every snapshot with rows, oldest first."""
    snapshots = sorted(_loaded(small, name).metadata.snapshots, key=lambda snapshot: snapshot.sequence_number)
    return [(snapshot.snapshot_id, snapshot.timestamp_ms) for snapshot in snapshots]


def _folder(small: SmallTables, name: str) -> Path:
    return Path(unquote(urlparse(_loaded(small, name).location()).path))


def _age(paths: Iterable[Path], hours: float = 2 * HOURS_OLD) -> None:
    at = (_now() - timedelta(hours=hours)).timestamp()
    for path in paths:
        os.utime(path, (at, at))


def _state(small: SmallTables, name: str) -> tuple[object, ...]:
    """All that a dry run must leave: references, snapshots, and every file with its size and time."""
    loaded = _loaded(small, name)
    files = {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in _folder(small, name).rglob("*")
        if path.is_file()
    }
    return loaded.metadata_location, set(loaded.refs()), files


def test_many_small_files_become_one_with_the_same_rows_and_a_rerun_does_nothing(small: SmallTables) -> None:
    name = _appended(small, 8)
    rows, first = _rows(small, name), _snapshots(small, name)[1][0]
    done = maintain_table(small.spark, name, Retention(), _now())
    assert (done.files_before, done.files_after) == (8, 1)
    assert _rows(small, name) == rows
    assert len(rows) == 8 * 24
    assert len(_rows(small, name, first)) == 24, "the past stays readable"
    assert _loaded(small, name).scan().to_arrow().num_rows == len(rows)
    before = _state(small, name)
    again = maintain_table(small.spark, name, Retention(), _now())
    assert (again.files_before, again.files_after, again.snapshots_expired) == (1, 1, 0)
    assert _state(small, name) == before


def test_a_few_small_files_are_not_worth_a_rewrite(small: SmallTables) -> None:
    name = _appended(small, maintenance.SMALL_FILES - 1)
    before = _state(small, name)
    assert maintain_table(small.spark, name, Retention(), _now()).files_after == maintenance.SMALL_FILES - 1
    assert _state(small, name) == before


def test_snapshots_past_the_retention_expire_and_younger_ones_stay(small: SmallTables) -> None:
    name = _appended(small, 4)
    ids, times = zip(*_snapshots(small, name), strict=True)
    rows = _rows(small, name)
    assert maintain_table(small.spark, name, RETENTION, _now()).snapshots_expired == 0
    assert maintain_table(small.spark, name, RETENTION, _cut_at(times[2])).snapshots_expired == 2
    assert [number for number, _ in _snapshots(small, name)] == list(ids[2:])
    keep_two = RETENTION.model_copy(update={"min_snapshots": 2})
    assert maintain_table(small.spark, name, keep_two, _later()).snapshots_expired == len(ids) - 4
    assert [number for number, _ in _snapshots(small, name)] == list(ids[-2:]), "however old, two stay"
    assert maintain_table(small.spark, name, RETENTION, _later()).snapshots_expired == 1
    assert [number for number, _ in _snapshots(small, name)] == [ids[-1]]
    assert _rows(small, name) == rows
    with pytest.raises(HistoryError, match="expired"):
        read_snapshot(_loaded(small, name), ids[0], ["id"])


def test_files_of_expired_snapshots_are_gone_from_the_disk(small: SmallTables) -> None:
    name = _appended(small, 6)
    files = set(_folder(small, name).glob("data/**/*.parquet"))
    assert len(files) == 6
    maintain_table(small.spark, name, RETENTION, _later())
    left = set(_folder(small, name).glob("data/**/*.parquet"))
    assert len(left) == 1
    assert not left & files, "the compacted file replaced them"


def test_a_training_set_survives_the_expiry_of_all_around_it(small: SmallTables) -> None:
    name = f"training.m_{uuid.uuid4().hex[:8]}"
    sets = {}
    for number, tag in enumerate(("untagged", "set_1", "also_untagged", "now")):
        rows = small.rows(day(number), tag)
        ensure_table(small.spark, name, rows, None)
        write_aside(small.spark, rows, name, None, day(number), f"build_{tag}", {})
        sets[tag] = fast_forward(small.spark, name, f"build_{tag}").snapshot_id
        if tag == "set_1":
            tag_snapshot(small.spark, name, tag)
    pinned = _rows(small, name, "set_1")
    assert {row.value for row in pinned} == {"set_1"}
    _age(_folder(small, name).rglob("*.*"))
    done = maintain_table(small.spark, name, RETENTION, _later())
    assert done.snapshots_expired > 0
    assert done.orphans_removed == 0, "what a tag pins is known"
    assert {number for number, _ in _snapshots(small, name)} == {sets["set_1"], sets["now"]}
    assert _rows(small, name, "set_1") == pinned
    loaded = _loaded(small, name)
    assert loaded.refs()["set_1"].snapshot_id == sets["set_1"]
    assert read_snapshot(loaded, sets["set_1"], ["value"])["value"].to_pylist() == ["set_1"] * 24


def test_old_branches_of_jobs_are_dropped_and_others_stay(small: SmallTables) -> None:
    name = _appended(small, 1)
    branches = ("audit_old", "build_old", "experiment", "audit_young")
    for branch in branches:
        write_aside(small.spark, small.rows(day(1), branch), name, "at", day(1), branch)
    assert maintain_table(small.spark, name, RETENTION, _now()).branches_dropped == ()
    young = _loaded(small, name).snapshot_by_name("audit_young")
    assert young is not None
    as_of = _cut_at(young.timestamp_ms)
    assert maintain_table(small.spark, name, RETENTION, as_of).branches_dropped == ("audit_old", "build_old")
    assert set(_loaded(small, name).refs()) == {"main", "experiment", "audit_young"}
    for branch in ("experiment", "audit_young"):
        rows = small.spark.read.option("branch", branch).table(name).collect()
        assert sorted(row.value for row in rows) == sorted(["v0"] * 24 + [branch] * 24)


def test_old_files_that_nothing_knows_are_removed_and_no_others(small: SmallTables) -> None:
    name = _appended(small, 3)
    rows, folder = _rows(small, name), _folder(small, name)
    _age(folder.rglob("*.*"))
    known = {path for path in folder.rglob("*.*") if path.is_file() and not path.name.startswith(".")}
    strays = {
        word: folder / place for word, place in (("old", "data"), ("young", "data"), ("manifest", "metadata"))
    }
    for word, place in strays.items():
        strays[word] = place / f"00000-0-{uuid.uuid4()}-{word}.{'avro' if word == 'manifest' else 'parquet'}"
        strays[word].write_bytes(b"a writer was killed")
    _age([strays["old"], strays["manifest"]], hours=HOURS_OLD + 1)
    _age([strays["young"]], hours=HOURS_OLD - 1)
    retention = Retention(orphan_hours=HOURS_OLD)
    assert maintain_table(small.spark, name, retention, _now(), dry_run=True).orphans_removed == 2
    assert all(path.exists() for path in strays.values())
    assert maintain_table(small.spark, name, retention, _now()).orphans_removed == 2
    assert {word for word, path in strays.items() if path.exists()} == {"young"}
    assert all(path.exists() for path in known)
    assert _rows(small, name) == rows
    assert maintain_table(small.spark, name, retention, _now()).orphans_removed == 0


def test_a_dry_run_changes_nothing_and_says_what_the_run_then_does(small: SmallTables) -> None:
    name = _appended(small, 3)
    tag_snapshot(small.spark, name, "set_1")
    for branch in ("audit_old", "build_old", "experiment"):
        write_aside(small.spark, small.rows(day(1), branch), name, "at", day(1), branch)
    append(small.rows(day(3), "v3").coalesce(1), name, {})
    stray = _folder(small, name) / "data" / f"00000-0-{uuid.uuid4()}-00001.parquet"
    stray.write_bytes(b"a writer was killed")
    _age([stray])
    before = _state(small, name)
    planned = maintain_table(small.spark, name, RETENTION, _later(), dry_run=True)
    assert _state(small, name) == before
    assert planned.branches_dropped == ("audit_old", "build_old")
    assert (planned.orphans_removed, planned.snapshots_expired > 4) == (1, True)
    done = maintain_table(small.spark, name, RETENTION, _later())
    assert done == planned
    again = maintain_table(small.spark, name, RETENTION, _later(), dry_run=True)
    assert (again.branches_dropped, again.snapshots_expired, again.orphans_removed) == ((), 0, 0)


def test_a_dry_run_counts_what_some_snapshots_are_kept_for(small: SmallTables) -> None:
    """Those that are young, or among the last of a branch, or that nothing refers to any more."""
    name = _appended(small, 4)
    first = _snapshots(small, name)[1][0]
    append(small.rows(day(4), "undone").coalesce(1), name, {})
    table = _loaded(small, name)
    table.manage_snapshots().set_current_snapshot(snapshot_id=_snapshots(small, name)[-2][0]).commit()
    table.manage_snapshots().create_branch(first, "experiment").commit()
    undone = _snapshots(small, name)[-1][0]
    table.manage_snapshots().create_tag(undone, "rolled_back_long_ago", max_ref_age_ms=1).commit()
    for keep, as_of in ((3, _later()), (2, _cut_at(_snapshots(small, name)[-1][1])), (1, _later())):
        retention = RETENTION.model_copy(update={"min_snapshots": keep})
        planned = maintain_table(small.spark, name, retention, as_of, dry_run=True)
        done = maintain_table(small.spark, name, retention, as_of)
        assert (done.snapshots_expired, done.branches_dropped) == (planned.snapshots_expired, ())
    assert set(_loaded(small, name).refs()) == {"main", "experiment"}
    assert len(_snapshots(small, name)) == 2


def test_writers_and_maintenance_do_not_get_in_each_others_way(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = _appended(small, 6)
    as_run(monkeypatch, "seed")
    for _ in range(3):
        small.run(day(0, 2), "seed")
    names = [raw, small.events, small.planes]
    cut = _cut_at(max(_snapshots(small, name)[-1][1] for name in names))
    hours = (cut - _now()) // timedelta(hours=1) + HOURS_OLD
    retention = RETENTION.model_copy(update={"orphan_hours": hours})
    expired, files, errors = dict.fromkeys(names, 0), list[tuple[int, int]](), list[BaseException]()

    def write() -> None:
        # `currentCatalog` asks the thread's own session, which a thread of a test has to be told.
        small.spark._jvm.SparkSession.setActiveSession(small.spark._jsparkSession)
        try:
            for number in range(2, 6):
                small.run(day(number), f"v{number}")
                small.run(day(1), f"again{number}")
                append(small.rows(day(6 + number), "more").coalesce(1), raw, {})
        except BaseException as error:
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    rounds = 0
    try:
        while writer.is_alive():
            rounds += 1
            for done in maintain(small.spark, names, retention, cut).tables:
                expired[done.table] += done.snapshots_expired
                files.append((done.files_before, done.files_after))
    finally:
        writer.join()
    assert [str(error) for error in errors] == []
    assert rounds > 1
    assert all(expired.values()), "each table's past before the writer came is gone"
    assert any(before > after for before, after in files)
    assert small.values() == {
        0: ("seed", 24),
        1: ("again5", 24),
        **{number: (f"v{number}", 24) for number in range(2, 6)},
    }
    assert [row[0] for row in small.spark.table(small.planes).collect()] == ["again5"]
    assert small.values(raw) == {
        **{number: (f"v{number}", 24) for number in range(6)},
        **dict.fromkeys(range(8, 12), ("more", 24)),
    }
    newest = publications(_loaded(small, small.events))[:8]
    assert [item.interval for item in newest] == [
        interval for number in range(5, 1, -1) for interval in (day(1), day(number))
    ]
    maintain(small.spark, names, retention, cut)
    assert small.values()[1] == ("again5", 24)


def test_the_positions_of_streams_survive_the_expiry_of_every_snapshot_that_had_them(
    small: SmallTables,
) -> None:
    name = _appended(small, 1)
    rows = _loaded(small, name).scan().to_arrow()

    def commit(stream: str, state: State) -> None:
        table = load_tables(small.settings, [name])[name]
        text = commit_property(stream, states(table), state, ["2013-03-04"])
        table.append(rows, snapshot_properties={properties.SOURCE_OFFSETS: text})

    for number in range(3):
        commit("one", State({"t/0": f"{number:020}", "t/1": "5"}))
        commit("two", State({"k/a": f"{number}"}, {"k/a": CLOSED}))
    before = states(_loaded(small, name))
    assert before["one"].positions == {"t/0": f"{2:020}", "t/1": "5"}
    for stream in ("one", "two"):
        acknowledge(_loaded(small, name), stream)
    done = maintain_table(small.spark, name, RETENTION, _later())
    assert (done.files_before, done.files_after) == (7, 1)
    assert len(_snapshots(small, name)) == 1, "only the compaction, which no stream made"
    assert states(_loaded(small, name)) == before
    commit("one", State({"t/0": f"{9:020}"}))
    assert states(_loaded(small, name))["one"].positions == {"t/0": f"{9:020}", "t/1": "5"}
    assert states(_loaded(small, name))["two"] == before["two"]


@pytest.mark.parametrize("only_the_day", [True, False])
def test_what_is_within_the_retention_can_be_rolled_back_after_maintenance(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch, only_the_day: bool
) -> None:
    as_run(monkeypatch, "good")
    small.run(day(0, 3), "good")
    bad = as_run(monkeypatch, "bad")
    small.run(day(1), "bad")
    for number in range(3, 6):
        as_run(monkeypatch, f"later{number}")
        small.run(day(number), "later")
    done = maintain(small.spark, [small.events, small.planes], Retention(min_snapshots=1), _now()).tables[0]
    assert (done.files_before > 4, done.files_after) == (True, 1)
    assert small.values()[1] == ("bad", 24)
    as_run(monkeypatch, "rolling", "small_rollback")
    interval = day(1) if only_the_day else None
    assert roll_back(small.spec, small.settings, before_run=bad, interval=interval).changed
    later = dict.fromkeys(range(3, 6), ("later", 24)) if only_the_day else {}
    assert small.values() == {**dict.fromkeys(range(3), ("good", 24)), **later}
    maintain(small.spark, [small.events], Retention(min_snapshots=1), _now())
    assert small.values() == {**dict.fromkeys(range(3), ("good", 24)), **later}


def test_what_is_past_the_retention_cannot_be_rolled_back_and_says_so(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_run(monkeypatch, "good")
    small.run(day(0), "good")
    bad = as_run(monkeypatch, "bad")
    small.run(day(0), "bad")
    maintain(small.spark, [small.events, small.planes], RETENTION, _later())
    with pytest.raises(HistoryError, match="it expired"):
        roll_back(small.spec, small.settings, before_run=bad)
    assert small.values() == {0: ("bad", 24)}


def test_a_table_that_is_not_there_yet_is_passed_over(small: SmallTables) -> None:
    done = maintain(small.spark, ["raw.never_made"], Retention(), _now(), dry_run=True)
    assert (done.tables, done.dry_run) == ((), True)


def test_a_table_that_two_use_cases_share_is_maintained_once(
    spec: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = spec.feature_tables[0].model_copy(update={"name": "other_features"})
    other = spec.model_copy(
        update={"name": "other", "feature_tables": (*spec.feature_tables[:1], features), "clean_tables": ()}
    )
    monkeypatch.setattr(maintenance, "all_use_cases", lambda: (spec, other))
    own = tables_of(spec)
    assert {"raw.flights", "clean.planes", "training.flight_delay", "raw.quarantine"} < set(own)
    assert len(own) == len(set(own))
    assert "serving.predictions" in own
    assert tables_of(other) == [
        *("features.other_features", "training.other", "labels.other"),
        *("scoring.other", "scoring.other_requests"),
        *("monitoring.other_counts", "monitoring.other_windows", "monitoring.other_drift"),
        *("monitoring.other_scores", "monitoring.other_quality", "monitoring.other_silences"),
        *("monitoring.other_retraining", "monitoring.other_skew"),
    ]


def test_the_command_line_maintains_the_tables_that_it_is_given(
    small: SmallTables,
    spec: UseCase,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small.run(day(0), "a")
    monkeypatch.setattr(maintenance, "use_case", lambda name: small.spec)
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(small.settings.state_dir))
    flags = [
        "--use-case",
        "small",
        "--as-of",
        _now().isoformat(),
        "--tables",
        f"{small.events}, {small.planes}",
    ]
    before = _state(small, small.events)
    assert maintenance.main([*flags, "--dry-run", "True"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["dry_run"]
    assert [table["table"] for table in planned["tables"]] == [small.events, small.planes]
    assert _state(small, small.events) == before
    assert maintenance.main(flags) == 0
    assert json.loads(capsys.readouterr().out) == {**planned, "dry_run": False}


def test_the_command_line_refuses_a_table_that_the_use_case_does_not_keep(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(settings.state_dir))
    flags = ["--use-case", "flight_delay", "--as-of", "2013-03-04", "--tables"]
    assert maintenance.main([*flags, "clean.flights,clean.of_nobody"]) == EXIT_PERMANENT
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["found"] == "clean.of_nobody"
    assert "clean.flights" in error["expected"]
