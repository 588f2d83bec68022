"""Published snapshots say who, what and how; parallel runs lose no rows; a rollback brings back the past."""

from __future__ import annotations

import itertools
import json
import threading
import time
from datetime import UTC, datetime

import pytest
from pyspark.sql import SparkSession

from airloop.errors import HistoryError, PublishError
from airloop.intervals import Interval
from airloop.lakehouse import history, properties
from airloop.lakehouse.catalog import open_catalog
from airloop.lakehouse.history import publications
from airloop.lakehouse.replace import despite_conflicts
from airloop.references import AuditReport
from airloop.registry import open_registry
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from airloop.versions import rollback
from airloop.versions.rollback import roll_back
from spark_jobs.tables import ensure_table, fast_forward, snapshot_of, tag_snapshot, write_aside
from tests.integration.small_tables import SmallTables, as_run, day


@pytest.fixture
def small(spark: SparkSession, settings: Settings, spec: UseCase) -> SmallTables:
    with_registry = settings.model_copy(
        update={"mlflow_uri": f"sqlite:///{settings.state_dir / 'mlflow-versions.db'}"}
    )
    return SmallTables(spark, with_registry, spec)


def _said(small: SmallTables, snapshot_id: int, table: str | None = None) -> dict[str, str]:
    loaded = open_catalog(small.settings).load_table(table or small.events)
    snapshot = loaded.snapshot_by_id(snapshot_id)
    assert snapshot is not None
    return dict(properties.properties_of(snapshot))


def test_a_published_snapshot_says_which_run_published_what(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = as_run(monkeypatch, "manual__1")
    for table in small.run(day(0), "a").snapshots:
        said = _said(small, table.snapshot_id, table.table)
        assert snapshot_of(small.spark, table.table).snapshot_id == table.snapshot_id
        assert said["airloop.use-case"] == "small"
        assert said["airloop.interval"] == "2013-03-04T00:00:00+00:00/2013-03-05T00:00:00+00:00"
        assert said["airloop.run-id"] == run
        assert len(said["airloop.commit"].removesuffix("-dirty")) == 40
        assert json.loads(said["airloop.source-offsets"]) == {"raw.any": {"snapshot": 7}}
        assert json.loads(said["airloop.audit"]) == {
            "passed": True,
            "expectations": 5,
            "report": "file:///report.json",
        }


def test_a_run_that_was_overtaken_publishes_with_its_own_properties(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.run(day(0, 3), "a")
    early, late = as_run(monkeypatch, "early"), None
    branch = small.write(day(0), "b")
    late = as_run(monkeypatch, "late")
    small.run(day(1), "c")
    as_run(monkeypatch, "early")
    overtaken = small.publish(branch, day(0)).snapshots[0]
    assert _said(small, overtaken.snapshot_id)["airloop.run-id"] == early
    assert small.values() == {0: ("b", 24), 1: ("c", 24), 2: ("a", 24)}
    runs = [item.run_id for item in publications(open_catalog(small.settings).load_table(small.events))]
    assert runs[:2] == [early, late]


def test_repeating_a_publication_commits_nothing(small: SmallTables) -> None:
    small.run(day(0, 2), "a")
    overtaken, first = small.write(day(0), "b"), small.write(day(1), "c")
    small.publish(first, day(1))
    small.publish(overtaken, day(0))
    before = {table: small.snapshot_ids(table) for table in (small.events, small.planes)}
    small.publish(first, day(1))
    small.publish(overtaken, day(0))
    assert {table: small.snapshot_ids(table) for table in before} == before


def test_a_publication_that_was_killed_between_its_commits_is_completed(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airloop.lakehouse import publish as module

    branch, moved = small.write(day(0), "a"), []
    original = module._publish_table

    def killed_after_the_first(*arguments: object) -> object:
        if moved:
            raise KeyboardInterrupt
        moved.append(1)
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(module, "_publish_table", killed_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            small.publish(branch, day(0))
    assert small.values() == {0: ("a", 24)}
    assert small.spark.table(small.planes).count() == 0
    small.publish(branch, day(0))
    assert small.values() == {0: ("a", 24)}
    assert small.spark.table(small.planes).count() == 1
    events, planes = (open_catalog(small.settings).load_table(t) for t in (small.events, small.planes))
    assert publications(events)[0].publication == publications(planes)[0].publication != ""


def test_the_audit_of_another_branch_publishes_nothing(small: SmallTables) -> None:
    branch = small.write(day(0), "a")
    other = AuditReport(branch="audit_other", expectations=1, report_uri="file:///r")
    from airloop.lakehouse.publish import publish

    with pytest.raises(PublishError, match="audit the branch"):
        publish(small.spec, branch, day(0), small.settings, other)
    assert small.values() == {}


def test_many_days_published_at_once_all_arrive_once(small: SmallTables) -> None:
    small.run(day(0, 8), "old")
    branches = [small.write(day(number), f"new{number}") for number in range(8)]
    errors: list[BaseException] = []

    def one(number: int) -> None:
        try:
            small.publish(branches[number], day(number))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert small.values() == {number: (f"new{number}", 24) for number in range(8)}


def test_the_same_day_published_by_two_runs_at_once_is_there_once(small: SmallTables) -> None:
    small.run(day(0, 2), "old")
    small.write(day(0), "mine")
    table = open_catalog(small.settings).load_table(small.events)
    head = table.snapshot_by_name(f"audit_{day(0).key}")
    assert head is not None
    table.manage_snapshots().create_branch(head.snapshot_id, "audit_other").commit()
    planes = open_catalog(small.settings).load_table(small.planes)
    its_head = planes.snapshot_by_name(f"audit_{day(0).key}")
    assert its_head is not None
    planes.manage_snapshots().create_branch(its_head.snapshot_id, "audit_other").commit()
    small.run(day(1), "other day")
    threads = [
        threading.Thread(target=small.publish, args=(branch, day(0)))
        for branch in (f"audit_{day(0).key}", "audit_other")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert small.values() == {0: ("mine", 24), 1: ("other day", 24)}


def test_features_computed_beside_another_interval_keep_both(small: SmallTables) -> None:
    small.compute_features(day(0, 3), "a")
    rows = small.rows(day(0), "b")
    write_aside(small.spark, rows, small.features, "at", day(0), "build_mine", {properties.RUN_ID: "d/r"})
    small.compute_features(day(1), "c")
    written = fast_forward(small.spark, small.features, "build_mine")
    assert small.values(small.features) == {0: ("b", 24), 1: ("c", 24), 2: ("a", 24)}
    assert _said(small, written.snapshot_id, small.features)["airloop.run-id"] == "d/r"
    refs = open_catalog(small.settings).load_table(small.features).refs()
    assert set(refs) == {"main"}


def test_features_of_one_day_after_another_started_from_the_same_state_all_arrive(small: SmallTables) -> None:
    small.compute_features(day(0, 6), "old")
    for number in range(6):
        rows, branch = small.rows(day(number), f"new{number}"), f"build_{number}"
        write_aside(small.spark, rows, small.features, "at", day(number), branch)
    for number in range(6):
        fast_forward(small.spark, small.features, f"build_{number}")
    assert small.values(small.features) == {number: (f"new{number}", 24) for number in range(6)}


def test_features_arrive_while_another_writer_commits_every_few_seconds(small: SmallTables) -> None:
    small.compute_features(day(0, 5), "old")
    over, errors, written = threading.Event(), list[BaseException](), list[int]()

    def commit_again_and_again() -> None:
        table = open_catalog(small.settings).load_table(small.features)
        rows = table.scan().to_arrow().slice(0, 1).set_column(2, "value", [["other"]])
        rows = rows.set_column(1, "at", [[datetime(2013, 6, 1, tzinfo=UTC)]]).cast(table.schema().as_arrow())
        try:
            while not over.is_set():
                despite_conflicts(table, lambda: table.append(rows))
                written.append(1)
                time.sleep(4)
        except BaseException as error:
            errors.append(error)

    other = threading.Thread(target=commit_again_and_again)
    other.start()
    try:
        for number in itertools.count():
            small.compute_features(day(number % 4), f"new{number % 4}")
            if number >= 3 and len(written) > 3:
                break
    finally:
        over.set()
        other.join()
    assert errors == []
    days = small.values(small.features)
    assert days.pop(89) == ("other", len(written))
    assert days == {**{number: (f"new{number}", 24) for number in range(4)}, 4: ("old", 24)}


def test_the_history_lists_publications_newest_first(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_run(monkeypatch, "one")
    small.run(day(0), "a")
    as_run(monkeypatch, "two")
    small.run(day(1, 2), "b")
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(small.settings.state_dir))
    assert history.main(["--table", small.events]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[0].split()) == "published (UTC) interval run commit audit snapshot state"
    assert "2013-03-05 to 2013-03-07  small_features/two" in lines[1]
    assert "2013-03-04 to 2013-03-05  small_features/one" in lines[2]
    assert "passed 5" in lines[2]
    assert len(lines) == 3


def _three_runs(small: SmallTables, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    runs = []
    for name, interval in (("good", day(0, 3)), ("bad", day(1)), ("later", day(2))):
        runs.append(as_run(monkeypatch, name))
        small.run(interval, name)
    as_run(monkeypatch, "rolling", "small_rollback")
    return runs


def test_a_whole_rollback_restores_all_tables_and_names_the_later_runs(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad, later = _three_runs(small, monkeypatch)
    outcome = roll_back(small.spec, small.settings, before_run=bad)
    assert outcome.changed
    assert small.values() == dict.fromkeys(range(3), ("good", 24))
    assert small.spark.table(small.planes).collect()[0][0] == "good"
    assert {(item.table, item.run_id) for item in outcome.undone} == {
        (table, run) for table in (small.events, small.planes) for run in (bad, later)
    }
    assert (outcome.start[:10], outcome.end[:10]) == ("2013-03-05", "2013-03-07")
    table = open_catalog(small.settings).load_table(small.events)
    assert [item.run_id for item in publications(table)] == [good]
    tags = [name for name in table.refs() if name.startswith("rolled_back_small_features_bad")]
    kept = table.scan(snapshot_id=table.refs()[tags[0]].snapshot_id).to_arrow()
    assert set(kept["value"].to_pylist()) == {"good", "bad", "later"}
    assert table.refs()[tags[0]].max_ref_age_ms == 30 * 86_400_000
    assert tags[0] in history.shown(table, 10)


def test_a_rollback_can_be_repeated_and_completes_one_that_was_killed(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bad, _ = _three_runs(small, monkeypatch)
    original, moved = rollback._set_back, []

    def killed_after_the_first(*arguments: object) -> bool:
        if moved:
            raise KeyboardInterrupt
        moved.append(1)
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(rollback, "_set_back", killed_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            roll_back(small.spec, small.settings, before_run=bad)
    assert small.spark.table(small.planes).collect()[0][0] == "later"
    completed = roll_back(small.spec, small.settings, before_run=bad)
    assert completed.changed
    assert len(completed.undone) == 4
    assert small.spark.table(small.planes).collect()[0][0] == "good"
    before = {table: small.snapshot_ids(table) for table in (small.events, small.planes)}
    again = roll_back(small.spec, small.settings, before_run=bad)
    assert not again.changed
    assert again.undone == completed.undone
    assert {table: small.snapshot_ids(table) for table in before} == before


def test_a_dry_run_lists_the_same_and_changes_nothing(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bad, _ = _three_runs(small, monkeypatch)
    before = (small.values(), small.snapshot_ids())
    planned = roll_back(small.spec, small.settings, before_run=bad, dry_run=True)
    assert (small.values(), small.snapshot_ids()) == before
    assert not planned.changed
    done = roll_back(small.spec, small.settings, before_run=bad)
    assert planned.undone == done.undone
    assert [item.snapshot_id for item in planned.snapshots] == [item.snapshot_id for item in done.snapshots]


def test_nothing_moves_when_one_table_cannot_go_back(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spark_jobs.maintenance import expire_all_but_current

    _three_runs(small, monkeypatch)
    expire_all_but_current(small.spark, small.planes)
    before = small.values()
    table = open_catalog(small.settings).load_table(small.planes)
    assert [item.run_id for item in publications(table)] == ["small_features/later"]
    with pytest.raises(HistoryError, match="expired"):
        roll_back(small.spec, small.settings, before_run="small_features/later")
    assert small.values() == before


def test_rolling_back_a_day_leaves_other_days_alone(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bad, _later = _three_runs(small, monkeypatch)
    outcome = roll_back(small.spec, small.settings, before_run=bad, interval=day(1))
    assert small.values() == {0: ("good", 24), 1: ("good", 24), 2: ("later", 24)}
    assert [item.run_id for item in outcome.undone if item.table == small.events] == [bad]
    assert small.planes in outcome.notes[0]
    newest = publications(open_catalog(small.settings).load_table(small.events))[0]
    assert (newest.undoes, newest.run_id, newest.interval) == (bad, "small_rollback/rolling", day(1))
    before = small.snapshot_ids()
    assert not roll_back(small.spec, small.settings, before_run=bad, interval=day(1)).changed
    assert small.snapshot_ids() == before


def test_a_day_that_was_rolled_back_can_be_published_and_rolled_back_again(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bad, _ = _three_runs(small, monkeypatch)
    roll_back(small.spec, small.settings, before_run=bad, interval=day(1))
    mended = as_run(monkeypatch, "mended")
    small.run(day(1), "mended")
    assert small.values()[1] == ("mended", 24)
    as_run(monkeypatch, "rolling_again", "small_rollback")
    assert roll_back(small.spec, small.settings, before_run=mended, interval=day(1)).changed
    assert small.values()[1] == ("good", 24)
    assert small.values()[2] == ("later", 24)


def test_a_branch_from_before_a_rollback_does_not_bring_back_what_was_undone(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bad, _ = _three_runs(small, monkeypatch)
    waiting = small.write(day(2), "waiting")
    roll_back(small.spec, small.settings, before_run=bad)
    small.publish(waiting, day(2))
    assert small.values() == {0: ("good", 24), 1: ("good", 24), 2: ("waiting", 24)}


def test_work_done_by_hand_is_rolled_back_by_its_snapshot(small: SmallTables) -> None:
    small.run(day(0), "good")
    published = small.run(day(0), "bad").snapshots
    with pytest.raises(HistoryError, match="--before-snapshot"):
        roll_back(small.spec, small.settings, before_run="by-hand")
    assert roll_back(small.spec, small.settings, before_snapshot=published[1].snapshot_id).changed
    assert small.values() == {0: ("good", 24)}
    assert small.spark.table(small.planes).collect()[0][0] == "good"
    assert not roll_back(small.spec, small.settings, before_snapshot=published[1].snapshot_id).changed


def test_a_run_that_published_nothing_is_refused_with_those_that_did(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    _three_runs(small, monkeypatch)
    with pytest.raises(HistoryError, match="only small_features/later, small_features/bad"):
        roll_back(small.spec, small.settings, before_run="small_features/never")
    with pytest.raises(HistoryError, match="it published 2013-03-05 to 2013-03-06"):
        roll_back(small.spec, small.settings, before_run="small_features/bad", interval=day(2))


def _train(small: SmallTables, tag: str) -> None:
    """A training set of the clean and feature tables as they are, and a model that was trained on it."""
    table = f"training.{small.spec.name}"
    sources = {name: snapshot_of(small.spark, name).snapshot_id for name in (small.events, small.planes)}
    rows = small.rows(day(0), "any")
    ensure_table(small.spark, table, rows, None)
    said = {properties.SOURCES: json.dumps(sources)}
    write_aside(small.spark, rows, table, None, day(0), f"build_{tag}", said)
    fast_forward(small.spark, table, f"build_{tag}")
    tag_snapshot(small.spark, table, tag)
    client = open_registry(small.settings)
    if not client.search_registered_models(f"name = '{small.spec.model_name}'"):
        client.create_registered_model(small.spec.model_name)
    client.create_model_version(small.spec.model_name, f"file:///{tag}", tags={"training_set": tag})


def test_the_consequences_name_features_training_sets_and_models_made_since(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_run(monkeypatch, "good")
    small.run(day(0, 20), "good")
    small.compute_features(day(0, 20), "good")
    _train(small, "set_before")
    bad = as_run(monkeypatch, "bad")
    small.run(day(1), "bad")
    small.compute_features(day(1), "bad")
    small.compute_features(day(3), "reaches back")
    small.compute_features(day(15), "too far away")
    _train(small, "set_since")
    open_registry(small.settings).set_registered_model_alias(small.spec.model_name, "champion", "2")
    outcome = roll_back(small.spec, small.settings, before_run=bad, interval=day(1), dry_run=True)
    assert [(item.start[:10], item.end[:10]) for item in outcome.features] == [
        ("2013-03-07", "2013-03-08"),
        ("2013-03-05", "2013-03-06"),
    ]
    assert (outcome.start[:10], outcome.end[:10]) == ("2013-03-05", "2013-03-08")
    assert outcome.training_sets == ("set_since",)
    assert [(item.version, item.training_set, item.aliases) for item in outcome.models] == [
        (2, "set_since", ("champion",))
    ]


def test_a_registry_that_is_down_does_not_hold_up_a_rollback(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_run(monkeypatch, "bad")
    small.run(day(0), "bad")
    small.spec = small.spec.model_copy(update={"name": "small_down"})
    table = f"training.{small.spec.name}"
    ensure_table(small.spark, table, small.rows(day(0), "any"), None)
    write_aside(small.spark, small.rows(day(0), "any"), table, None, day(0), "build_t", {})
    fast_forward(small.spark, table, "build_t")
    tag_snapshot(small.spark, table, "set_since")
    down = small.settings.model_copy(update={"mlflow_uri": "http://127.0.0.1:9"})
    outcome = roll_back(small.spec, down, before_run="small_features/bad", interval=Interval(*day(0)))
    assert outcome.changed
    assert outcome.training_sets == ("set_since",)
    assert "did not answer" in " ".join(outcome.notes)


def test_the_command_line_rolls_back_a_day(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, bad, _ = _three_runs(small, monkeypatch)
    monkeypatch.setattr(rollback, "use_case", lambda name: small.spec)
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(small.settings.state_dir))
    flags = ["--use-case", "small", "--before-run", bad, "--start", "2013-03-05"]
    assert rollback.main([*flags, "--dry-run", "True"]) == 0
    assert "would undo" in capsys.readouterr().err
    assert small.values()[1] == ("bad", 24)
    assert rollback.main([*flags, "--dry-run", "false"]) == 0
    assert small.values()[1] == ("good", 24)
    assert rollback.main(["--use-case", "small", "--before-run", "never"]) == 65
