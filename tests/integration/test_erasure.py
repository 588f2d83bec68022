"""One plane erased from a week of real flights: found, deleted everywhere, proved gone, and kept out."""

from __future__ import annotations

import json
import os
import pkgutil
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyiceberg.table import Table

from airloop import audit_log
from airloop.erasure import ErasureError
from airloop.erasure.lakehouse import all_tables
from airloop.erasure.subject import digest_of, erasure_key, hand_over
from airloop.erasure.suppression import SUPPRESSED_TEXT, allowed_text, read_list, suppressed
from airloop.erasure.tables import erased_from
from airloop.lakehouse.catalog import open_catalog
from airloop.references import ErasureDone, ErasurePlan
from airloop.settings import REPOSITORY, Settings, environment_of
from airloop.sources.nycflights import NycFlightsReplay
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from feature_repo.online import open_online_store
from spark_jobs import erasure
from tests.integration.conftest import WEEK

TAIL = "N14228"
NEIGHBOUR = "N142289"
"""A longer tail number that begins the same: another plane."""

LAKE = """
import sys
from datetime import UTC, datetime
import pyarrow as pa
from airloop.intervals import Interval
from airloop.lakehouse.publish import publish
from airloop.settings import load_settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.training_policy import TrainingPolicy
from feature_repo.materialise import materialise
from feature_repo.store import open_store
from spark_jobs import training_set
from spark_jobs.clean import clean
from spark_jobs.features import build_features
from spark_jobs.ingest import ingest
from spark_jobs.raw_tables import QUARANTINE_SCHEMA, quarantine
from spark_jobs.session import open_session
settings, spec = load_settings(), use_case("flight_delay")
week = Interval(*(datetime.fromisoformat(text) for text in sys.argv[1:3]))
spark = open_session(settings, "lake")
def published():
    branch = clean(spark, spec, week).branch
    publish(spec, branch, week, settings)
ingest(spark, spec, week, settings)
published()
build_features(spark, spec, week)
published()
bad = [{"feed": "flights", "_source": "nycflights", "_source_offset": str(n), "_source_time": week.start,
        "reason": "no number", "payload": text} for n, text in enumerate(sys.argv[3:])]
rows = pa.Table.from_pylist(bad, schema=QUARANTINE_SCHEMA)
quarantine(spark, spark.createDataFrame(rows))
store = open_store(settings)
materialise(store, spec, week, settings)
policy = {**spec.training.model_dump(), "train_days": 2, "validation_days": 1, "test_days": 1}
for as_of in (week.end, week.end.replace(day=week.end.day - 1)):
    training_set.build(spark, spec, TrainingPolicy(**policy), as_of, settings)
"""

READ = """
import json, sys
from airloop.settings import load_settings
from spark_jobs.session import open_session
spark = open_session(load_settings(), "read")
counts = {}
for name in sys.argv[2:]:
    rows = spark.table(name)
    counts[name] = [rows.count(), rows.where(rows["tail_number"] == sys.argv[1]).count()]
print("COUNTS " + json.dumps(counts))
"""

PAYLOADS = (
    f'{{"tail_number": "{TAIL}", "distance": "x"}}',
    f'{{"tail_number": "{NEIGHBOUR}", "distance": "x"}}',
)


def _python(code: str, *arguments: str, settings: Settings) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment_of(settings), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def spec() -> UseCase:
    return use_case("flight_delay")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A week through the real jobs, in a state folder of its own: erasing there disturbs no other test."""
    folder: Path = tmp_path_factory.mktemp("erasure")
    state = folder / "state"
    state.mkdir()
    (state / "jars").symlink_to(REPOSITORY / ".airloop" / "jars")
    settings = Settings(state_dir=state)
    _python(LAKE, WEEK.start.isoformat(), WEEK.end.isoformat(), *PAYLOADS, settings=settings)
    settings.reports_dir.mkdir(exist_ok=True)
    (settings.reports_dir / "sample.json").write_text(json.dumps({"rows": [{"tail_number": TAIL}]}))
    (state / "logs").mkdir()
    logged = [json.dumps({"tail_number": tail}) + "\n" for tail in (TAIL, NEIGHBOUR)]
    (state / "logs" / "gateway.log").write_text("".join(logged))
    shutil.rmtree(settings.scratch_dir)
    shutil.copytree(state, folder / "kept", symlinks=True)
    return settings


@pytest.fixture
def settings(lake: Settings) -> Settings:
    """The lake as it was made, whatever the test before did to it."""
    shutil.rmtree(lake.state_dir)
    shutil.copytree(lake.state_dir.with_name("kept"), lake.state_dir, symlinks=True)
    return lake


def _request(spec: UseCase, settings: Settings, subject: str = TAIL) -> erasure.Request:
    return erasure.make_request(spec, subject, settings)


def _state(settings: Settings) -> dict[str, object]:
    """Every table's references and snapshots, and every file's size and time."""
    tables = {
        ".".join(table.name()): (
            {name: ref.snapshot_id for name, ref in table.metadata.refs.items()},
            sorted(snapshot.snapshot_id for snapshot in table.metadata.snapshots),
        )
        for table in all_tables(open_catalog(settings))
    }
    files = {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in settings.state_dir.rglob("*")
        if path.is_file() and "erasure" not in path.parts
    }
    return {"tables": tables, "files": files}


def _others(table: Table, ref: str) -> list[dict[str, object]]:
    """The rows of the other planes on one reference, in an order of their own."""
    rows = table.scan(snapshot_id=table.metadata.refs[ref].snapshot_id).to_arrow()
    if "tail_number" in rows.column_names:
        rows = rows.filter(pc.fill_null(pc.not_equal(rows["tail_number"], TAIL), True))
    for text in ("request", "payload"):
        if text in rows.column_names:
            rows = rows.filter(pc.invert(pc.match_substring(rows[text], f'"{TAIL}"')))
    return sorted(str(row) for row in rows.to_pylist())


def _rows(settings: Settings, name: str) -> int:
    return len(open_catalog(settings).load_table(name).scan().to_arrow())


def test_a_dry_run_finds_every_layer_and_changes_nothing(spec: UseCase, settings: Settings) -> None:
    before = _state(settings)
    plan = erasure.plan(_request(spec, settings), settings)
    assert _state(settings) == before
    found = {table.table: table for table in plan.tables}
    names = {"raw.flights", "raw.movements", "raw.planes", "raw.quarantine"}
    names |= {"clean.flights", "clean.movements", "clean.planes"}
    names |= {"features.tail_history", "features.tail_schedule"}
    assert set(found) == {*names, "labels.flight_delay", "training.flight_delay"}
    for name in ("raw.flights", "features.tail_history"):
        rows = open_catalog(settings).load_table(name).scan().to_arrow()
        assert found[name].rows["main"] == pc.sum(pc.equal(rows["tail_number"], TAIL)).as_py() > 0
    assert found["raw.quarantine"].rows == {"main": 1}
    assert len(found["clean.flights"].rows) == 2, "main and the audit branch"
    assert plan.online_entries == 2, "one of each view that knows planes"
    assert plan.texts == 2
    assert len(plan.training_sets) == 2
    assert all(item.rows > 0 and item.erased_rows == 0 for item in plan.training_sets)
    assert TAIL not in plan.model_dump_json()


def test_erasing_leaves_nothing_of_the_subject_and_everything_of_the_others(
    spec: UseCase, settings: Settings
) -> None:
    request = _request(spec, settings)
    catalog = open_catalog(settings)
    before = {
        (".".join(table.name()), ref): _others(table, ref)
        for table in all_tables(catalog)
        for ref in table.metadata.refs
    }
    planned = erasure.plan(request, settings)
    pinned = {item.tag: item.snapshot_id for item in planned.training_sets}
    with pytest.raises(ErasureError, match="traces in"):
        erasure.prove(request, settings)
    done = erasure.erase(request, settings)
    proof = erasure.prove(request, settings)
    assert proof.found == 0
    assert proof.files_scanned > 100
    assert proof.values_scanned > 300_000
    assert proof.unreadable == 0
    assert proof.online_entries_scanned > 1000
    assert {t.table: t.rows for t in done.tables} == {t.table: t.rows for t in planned.tables}
    assert done.online_entries == 2
    assert done.texts_masked == 2
    assert done.strays_removed == 0
    assert {
        (".".join(table.name()), ref): _others(table, ref)
        for table in all_tables(catalog)
        for ref in table.metadata.refs
    } == before
    log = (settings.state_dir / "logs" / "gateway.log").read_text()
    assert [json.loads(line)["tail_number"] for line in log.splitlines()] == ["******", NEIGHBOUR]
    again = erasure.plan(request, settings)
    assert (again.tables, again.online_entries, again.texts) == ((), 0, 0)
    table = catalog.load_table("training.flight_delay")
    for item in again.training_sets:
        assert item.rows == 0 < item.erased_rows
        assert item.snapshot_id == table.metadata.refs[item.tag].snapshot_id != pinned[item.tag]
        said = erased_from(table.metadata.snapshot_by_id(item.snapshot_id))
        assert said[request.digest]["replaced"] == pinned[item.tag]
    assert {item.tag for item in again.training_sets} == set(pinned)
    assert table.refs()["main"].snapshot_id in {item.snapshot_id for item in again.training_sets}


def test_spark_reads_what_is_left(spec: UseCase, settings: Settings) -> None:
    names = ("raw.flights", "clean.movements", "clean.planes", "features.tail_history")
    mine = {
        table.table: table.rows["main"] for table in erasure.plan(_request(spec, settings), settings).tables
    }
    rows = {name: _rows(settings, name) for name in names}
    erasure.erase(_request(spec, settings), settings)
    printed = _python(READ, TAIL, *names, settings=settings)
    counts = json.loads(next(line for line in printed.splitlines() if line.startswith("COUNTS"))[7:])
    assert counts == {name: [rows[name] - mine[name], 0] for name in names}


def test_the_online_store_forgets_the_subject_alone(spec: UseCase, settings: Settings) -> None:
    def read(tail: str) -> object:
        answer = open_online_store(settings).get_online_features(
            features=["tail_history:tail_last_delay_minutes"], entity_rows=[{"tail_number": tail}]
        )
        return answer.to_dict()["tail_last_delay_minutes"][0]

    rows = open_catalog(settings).load_table("features.tail_history").scan().to_arrow()
    late = rows.sort_by("event_timestamp").filter(pc.is_valid(rows.sort_by("event_timestamp")[2]))
    other = next(t for t in reversed(late["tail_number"].to_pylist()) if t != TAIL)
    assert read(TAIL) is not None
    kept = read(other)
    assert kept is not None
    erasure.erase(_request(spec, settings), settings)
    assert read(TAIL) is None
    assert read(other) == kept
    assert TAIL.encode() not in (settings.feast_dir / "online.db").read_bytes()


def test_erasing_again_changes_nothing(spec: UseCase, settings: Settings) -> None:
    request = _request(spec, settings)
    erasure.erase(request, settings)
    after = _state(settings)
    again = erasure.erase(request, settings)
    assert _state(settings)["tables"] == after["tables"]
    assert again == ErasureDone(
        subject=request.digest,
        use_case=spec.name,
        tables=(),
        online_entries=0,
        texts_masked=0,
        strays_removed=0,
        training_sets=again.training_sets,
    )
    assert len(again.training_sets) == 2


class _Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.mark.parametrize(
    ("where", "call"),
    [
        ("spark_jobs.erasure.append_record", 1),
        ("airloop.erasure.tables._dataframe_to_data_files", 1),
        ("airloop.erasure.tables._dataframe_to_data_files", 4),
        ("pyiceberg.table.Table._do_commit", 1),
        ("pyiceberg.table.Table._do_commit", 5),
        ("airloop.erasure.tables.remove_garbage", 1),
        ("airloop.erasure.tables.remove_garbage", 4),
        ("spark_jobs.erasure.online_traces", 1),
        ("airloop.erasure.texts._mask", 1),
        ("airloop.erasure.texts._mask", 2),
    ],
)
def test_killed_anywhere_it_is_finished_by_the_next_run(
    spec: UseCase, settings: Settings, monkeypatch: pytest.MonkeyPatch, where: str, call: int
) -> None:
    request, calls = _request(spec, settings), 0
    work = pkgutil.resolve_name(where)

    def dying(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            raise _Killed
        return work(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(where, dying)
        with pytest.raises(_Killed):
            erasure.erase(request, settings)
    with pytest.raises(ErasureError, match="traces in"):
        erasure.prove(request, settings)
    done = erasure.erase(request, settings)
    assert done.strays_removed == 0
    assert len(done.training_sets) == 2
    assert erasure.prove(request, settings).found == 0
    assert not list((settings.state_dir / "erasure" / "journal").glob("*"))


def _plant_parquet(settings: Settings) -> Path:
    path = settings.warehouse / "clean" / "flights" / "data" / "forgotten.parquet"
    pq.write_table(pa.table({"nested": [[{"deep": TAIL}]]}), path)
    return path


def _plant_metadata(settings: Settings) -> Path:
    path = settings.warehouse / "clean" / "flights" / "metadata" / "note.json"
    path.write_text(json.dumps({"summary": f"rows of {TAIL}."}))
    return path


def _plant_scratch(settings: Settings) -> Path:
    path = settings.scratch_dir / "ingest-abc" / "flights.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"tail_number": [TAIL]}), path)
    return path


@pytest.mark.parametrize("plant", [_plant_parquet, _plant_metadata, _plant_scratch])
def test_what_is_planted_afterwards_fails_the_proof_and_goes_when_it_is_old(
    spec: UseCase, settings: Settings, plant
) -> None:
    request = _request(spec, settings)
    erasure.erase(request, settings)
    path = plant(settings)
    with pytest.raises(ErasureError, match=path.name) as failed:
        erasure.prove(request, settings)
    assert TAIL not in str(failed.value)
    with pytest.raises(ErasureError, match="wait for the running jobs"):
        erasure.erase(request, settings)
    assert path.exists(), "a running writer's file must not be taken away"
    long_ago = time.time() - 60 * (erasure.GRACE_MINUTES + 1)
    os.utime(path, (long_ago, long_ago))
    assert erasure.erase(request, settings).strays_removed == 1
    assert erasure.prove(request, settings).found == 0


def test_a_bound_that_gives_the_subject_away_fails_the_proof(spec: UseCase, settings: Settings) -> None:
    """The smallest or largest value of a data file stands in its manifest, compressed."""
    table = open_catalog(settings).load_table("raw.planes")
    one = table.scan(row_filter=f"tail_number = '{TAIL}'").to_arrow()
    table.append(one)
    table.refresh()
    manifest = next(
        item.manifest_path
        for item in table.current_snapshot().manifests(table.io)
        if item.added_snapshot_id == table.current_snapshot().snapshot_id
    )
    kept = settings.warehouse / "left.avro"
    shutil.copy(manifest.removeprefix("file://"), kept)
    assert TAIL.encode() not in kept.read_bytes(), "not visible without decoding"
    request = _request(spec, settings)
    with pytest.raises(ErasureError, match="younger"):
        erasure.erase(request, settings)
    with pytest.raises(ErasureError, match=r"left\.avro"):
        erasure.prove(request, settings)
    kept.unlink()
    assert erasure.prove(request, settings).found == 0


def test_a_composed_name_needs_a_person(spec: UseCase, settings: Settings) -> None:
    (settings.reports_dir / "other.txt").write_text(f"{TAIL}-1 is another plane")
    request = _request(spec, settings)
    erasure.erase(request, settings)
    with pytest.raises(ErasureError, match=r"1 in .*other\.txt"):
        erasure.prove(request, settings)
    assert erasure.prove(request, settings, accept_similar=True).similar == 1


def test_rows_that_the_spec_cannot_find_are_not_passed_over(spec: UseCase, settings: Settings) -> None:
    table = open_catalog(settings).load_table("clean.weather")
    row = table.scan(limit=1).to_arrow()
    place = row.column_names.index("origin")
    table.append(row.set_column(place, row.schema.field("origin"), pa.array([TAIL], row["origin"].type)))
    with pytest.raises(ErasureError, match=r"in clean\.weather .* origin of other rows"):
        erasure.erase(_request(spec, settings), settings)


def test_writers_beside_the_erasure_lose_no_row(spec: UseCase, settings: Settings) -> None:
    added, stop = [], threading.Event()

    def write() -> None:
        table = open_catalog(settings).load_table("clean.flights")
        row = table.scan(row_filter=f"tail_number != '{TAIL}'", limit=1).to_arrow()
        place = row.column_names.index("flight_id")
        while not stop.is_set() and len(added) < 30:
            name = f"beside-{len(added)}"
            renamed = row.set_column(place, row.schema.field(place), pa.array([name], row["flight_id"].type))
            table.append(renamed)
            added.append(name)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while len(added) < 2:
            time.sleep(0.05)
        request = _request(spec, settings)
        erasure.erase(request, settings)
    finally:
        stop.set()
        writer.join()
    assert len(added) > 2, "the writer did not write beside the erasure"
    there = open_catalog(settings).load_table("clean.flights").scan().to_arrow()["flight_id"].to_pylist()
    assert set(added) <= set(there)
    assert sum(name.startswith("beside-") for name in there) == len(added)
    assert erasure.prove(request, settings).found == 0


def test_the_source_cannot_bring_the_subject_back(spec: UseCase, settings: Settings) -> None:
    delivered = {
        feed.name: [piece.records for piece in NycFlightsReplay(settings, {}, None).read(feed, WEEK)]
        for feed in spec.feeds
        if feed.name in ("flights", "planes")
    }
    erasure.erase(_request(spec, settings), settings)
    for name, pieces in delivered.items():
        records = pa.concat_tables(pieces)
        mine = pc.sum(pc.equal(records["tail_number"], TAIL)).as_py()
        kept = suppressed(records, spec.feed(name), settings)
        assert mine > 0
        assert len(kept) == len(records) - mine
        assert kept.schema == records.schema
        assert TAIL not in kept["tail_number"].to_pylist()
    erased = read_list(settings)
    assert allowed_text(PAYLOADS[0], erased) == SUPPRESSED_TEXT
    assert allowed_text(f"1,2,{TAIL},x", erased) == SUPPRESSED_TEXT
    assert allowed_text(PAYLOADS[1], erased) == PAYLOADS[1]
    assert TAIL not in (settings.state_dir / "erasure" / "suppressed.jsonl").read_text()


def test_the_command_line_names_the_subject_nowhere(
    spec: UseCase, settings: Settings, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    file = hand_over(settings, "erasure/run 1", TAIL, "ticket 7")
    assert file.stat().st_mode & 0o077 == 0
    for step in ("plan", "erase", "prove"):
        arguments = ["--use-case", spec.name, "--step", step, "--subject-file", str(file)]
        assert erasure.main([*arguments, "--result", str(settings.scratch_dir / f"{step}.json")]) == 0
    plan = ErasurePlan.model_validate_json((settings.scratch_dir / "plan.json").read_text())
    assert plan.subject == digest_of(TAIL, erasure_key(settings))
    printed = capfd.readouterr()
    assert TAIL not in printed.out + printed.err
    assert TAIL not in audit_log.audit_log_file(settings).read_text()
    assert audit_log.verify(settings).sequence == 1


def test_a_reason_that_names_the_subject_is_refused(settings: Settings) -> None:
    with pytest.raises(ErasureError, match="does not name the subject") as refused:
        hand_over(settings, "run", TAIL, f"the owner of {TAIL.lower()} asked")
    assert TAIL not in str(refused.value)
