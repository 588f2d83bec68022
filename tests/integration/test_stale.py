"""Days whose published rows change are named, and what was trained on them is marked; nothing else is."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop import registry
from airloop.intervals import Interval
from airloop.lakehouse import properties
from airloop.lakehouse.catalog import open_catalog
from airloop.lakehouse.publish import publish
from airloop.references import AuditReport, Published
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from airloop.versions import stale
from airloop.versions.rollback import roll_back
from airloop.versions.stale import STALE_SET, mark_stale, stale_training_sets
from spark_jobs.auditing.changes import changed_days
from spark_jobs.maintenance import expire_all_but_current, maintain
from spark_jobs.tables import ensure_table, fast_forward, snapshot_of, tag_snapshot, write_aside
from tests.integration.small_tables import SmallTables, as_run, day

DAYS = 4
"""Days that the fixture `events` has published, from day 0 on."""


class Hourly(SmallTables):
    """Events whose rows are the same in whatever interval they are delivered."""

    def rows(self, interval: Interval, value: str) -> DataFrame:
        return super().rows(interval, value).withColumn("id", F.unix_timestamp("at") / 3600)


class Events(NamedTuple):
    """A published table with two columns that may be null."""

    small: Hourly
    name: str

    def rows(self, interval: Interval) -> DataFrame:
        hour = F.hour("at")
        return self.small.rows(interval, "v").withColumns(
            {
                "left": F.when(hour % 2 == 0, F.concat(F.lit("x"), hour)),
                "right": F.when(hour % 2 == 1, F.concat(F.lit("x"), hour)),
                "amount": F.col("id") * 0.5,
            }
        )

    def changed(self, rows: DataFrame, interval: Interval) -> tuple[str, ...]:
        """What publishing `rows` would change."""
        table = self.small.spec.clean_tables[0]
        write_aside(self.small.spark, rows, self.name, "at", interval, "audit_it")
        return changed_days(self.small.spark, table, interval, "audit_it")


@pytest.fixture(scope="module")
def events(spark: SparkSession, settings: Settings, spec: UseCase) -> Events:
    small = Hourly(spark, settings, spec)
    found = Events(small, small.events)
    rows = found.rows(day(0, DAYS))
    ensure_table(spark, small.events, rows, "at")
    write_aside(spark, rows, small.events, "at", day(0, DAYS), "build_it")
    fast_forward(spark, small.events, "build_it")
    return found


def _at(number: int, hour: int) -> Any:
    moment = day(number).start + timedelta(hours=hour)
    return F.col("at") == F.lit(moment.isoformat()).cast("timestamp")


def _with(rows: DataFrame, name: str, value: Any, where: Any) -> DataFrame:
    return rows.withColumn(name, F.when(where, value).otherwise(F.col(name)))


def _swapped(rows: DataFrame) -> DataFrame:
    """Day 1, 5 o'clock, with its null in the other column."""
    left, right = F.col("left"), F.col("right")
    return rows.withColumns(
        {
            "left": F.when(_at(1, 5), right).otherwise(left),
            "right": F.when(_at(1, 5), left).otherwise(right),
        }
    )


def _one_for_another(rows: DataFrame) -> DataFrame:
    """As many rows as before: one is gone, another is there twice."""
    return rows.where(~_at(1, 5)).unionAll(rows.where(_at(1, 6)))


CHANGES: dict[str, Callable[[DataFrame], DataFrame]] = {
    "one value": lambda rows: _with(rows, "amount", F.lit(99.0), _at(1, 5)),
    "a value that became null": lambda rows: _with(rows, "value", F.lit(None), _at(1, 5)),
    "a null that moved to another column": _swapped,
    "a row removed": lambda rows: rows.where(~_at(1, 5)),
    "a row twice": lambda rows: rows.unionAll(rows.where(_at(1, 5))),
    "one row for another": _one_for_another,
    "a whole day removed": lambda rows: rows.where(F.dayofmonth("at") != day(1).start.day),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_day_with_other_rows_is_named_and_the_days_beside_it_are_not(events: Events, change: str) -> None:
    interval = day(0, DAYS)
    assert events.changed(CHANGES[change](events.rows(interval)), interval) == ("2013-03-05",)


def test_the_same_rows_in_another_order_and_other_files_are_no_change(events: Events) -> None:
    interval = day(0, DAYS)
    shuffled = events.rows(interval).repartition(5).sortWithinPartitions(F.desc("amount"))
    assert events.changed(shuffled, interval) == ()


def test_several_days_are_named_in_order(events: Events) -> None:
    rows = _with(events.rows(day(0, DAYS)), "value", F.lit("other"), _at(3, 1) | _at(0, 1))
    assert events.changed(rows, day(0, DAYS)) == ("2013-03-04", "2013-03-07")


def test_a_day_that_was_never_published_is_no_change(events: Events) -> None:
    assert events.changed(events.rows(day(DAYS)), day(DAYS)) == ()
    assert events.changed(events.rows(day(DAYS - 1, 2)), day(DAYS - 1, 2)) == ()


def test_days_outside_the_interval_are_not_looked_at(events: Events) -> None:
    rows = _with(events.rows(day(0)), "value", F.lit("other"), _at(0, 1))
    assert events.changed(rows, day(1)) == ("2013-03-05",), "whose rows would all go"
    assert events.changed(rows, day(0)) == ("2013-03-04",)


def test_reference_data_has_no_days_to_change(small: SmallTables) -> None:
    small.run(day(0), "a")
    branch = small.write(day(0), "b")
    assert changed_days(small.spark, small.spec.clean_tables[1], day(0), branch) == ()


# Training sets and models. The spec looks back one day, labels mature after one, so a set of days 0 to 2
# looks at days -1 to 3.


@pytest.fixture
def small(
    spark: SparkSession, settings: Settings, spec: UseCase, monkeypatch: pytest.MonkeyPatch
) -> SmallTables:
    found = Hourly(
        spark,
        settings.model_copy(update={"mlflow_uri": f"sqlite:///{settings.state_dir / 'mlflow-versions.db'}"}),
        spec,
    )
    found.spec = found.spec.model_copy(
        update={"name": f"small_{uuid.uuid4().hex[:8]}", "lookback": timedelta(days=1)}
    )
    assert found.spec.label.matures_after == timedelta(days=1)
    as_run(monkeypatch, "first")
    return found


def _publish(small: SmallTables, interval: Interval, value: str) -> Published:
    """A whole run, whose audit says what it changes, as the audit job does."""
    branch = small.write(interval, value)
    days = {
        table.name: changed_days(small.spark, table, interval, branch) for table in small.spec.clean_tables
    }
    audit = AuditReport(
        branch=branch,
        expectations=5,
        report_uri="file:///report.json",
        changed_days={name: changed for name, changed in days.items() if changed},
    )
    return publish(small.spec, branch, interval, small.settings, audit)


def _train(small: SmallTables, tag: str = "set_1", *, sources: tuple[str, ...] | None = None) -> None:
    """A training set of days 0 to 2, made of the clean tables as they are."""
    table, rows = f"training.{small.spec.name}", small.rows(day(0), tag)
    names = (small.events, small.planes) if sources is None else sources
    made_from = {name: snapshot_of(small.spark, name).snapshot_id for name in names}
    ensure_table(small.spark, table, rows, None)
    said = {properties.SOURCES: json.dumps(made_from)}
    write_aside(small.spark, rows, table, None, day(0, 3), f"build_{tag}", said)
    fast_forward(small.spark, table, f"build_{tag}")
    tag_snapshot(small.spark, table, tag)


def _register(small: SmallTables, tag: str, *aliases: str) -> int:
    client = registry.open_registry(small.settings)
    name = small.spec.model_name
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    version = client.create_model_version(name, f"file:///{tag}", tags={"training_set": tag}).version
    for alias in aliases:
        client.set_registered_model_alias(name, alias, version)
    return int(version)


def _stale(small: SmallTables) -> dict[str, str]:
    sets = stale_training_sets(small.spec, open_catalog(small.settings))
    return {item.tag: item.reason for item in sets}


def _marks(small: SmallTables) -> dict[str, str]:
    """The marks of training sets, as the table has them."""
    table = open_catalog(small.settings).load_table(f"training.{small.spec.name}")
    return {
        name.removeprefix(STALE_SET): text
        for name, text in table.properties.items()
        if name.startswith(STALE_SET)
    }


def _tag_of(small: SmallTables, version: int) -> str | None:
    client = registry.open_registry(small.settings)
    return client.get_model_version(small.spec.model_name, str(version)).tags.get(registry.STALE)


def test_a_set_is_stale_once_a_day_that_it_saw_has_other_rows_and_not_before(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(small, day(-2, 8), "seen")
    _train(small)
    for run, interval, value in (
        ("after_the_window", day(4), "other"),
        ("before_the_window", day(-2), "other"),
        ("the_same_again", day(1), "seen"),
        ("a_new_day", day(6), "new"),
    ):
        as_run(monkeypatch, run)
        published = _publish(small, interval, value)
        expected = (f"{interval.start:%Y-%m-%d}",) if value == "other" else ()
        assert published.changed_days == expected, run
        assert _stale(small) == {}, run
    bad = as_run(monkeypatch, "corrected")
    assert _publish(small, day(1), "corrected").changed_days == ("2013-03-05",)
    assert _stale(small) == {"set_1": f"{small.events}: {bad} published other rows of 2013-03-05"}


@pytest.mark.parametrize(("number", "why"), [(-1, "features look back on it"), (3, "labels mature on it")])
def test_the_days_around_the_examples_count_too(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch, number: int, why: str
) -> None:
    _publish(small, day(-2, 7), "seen")
    _train(small)
    as_run(monkeypatch, "corrected")
    _publish(small, day(number), "corrected")
    assert list(_stale(small)) == ["set_1"], why


def test_maintenance_makes_nothing_stale(small: SmallTables) -> None:
    for number in range(5):
        _publish(small, day(number), "seen")
    _train(small)
    before = open_catalog(small.settings).load_table(small.events).metadata.current_snapshot_id
    maintain(small.spark, [small.events], small.spec.retention, datetime.now(UTC))
    after = open_catalog(small.settings).load_table(small.events).metadata.current_snapshot_id
    assert after != before, "files were compacted"
    assert _stale(small) == {}


def test_a_set_is_stale_when_a_run_that_it_saw_is_rolled_back(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(small, day(0, 4), "good")
    _train(small, "set_before")
    bad = as_run(monkeypatch, "bad")
    _publish(small, day(1), "bad")
    _train(small, "set_since")
    assert list(_stale(small)) == ["set_before"]
    as_run(monkeypatch, "rolling", "small_rollback")
    roll_back(small.spec, small.settings, before_run=bad)
    assert _stale(small) == {"set_since": f"{small.events}: what {bad} published was rolled back"}


def test_a_set_is_stale_when_a_day_that_it_saw_is_rolled_back_alone(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(small, day(0, 6), "good")
    bad = as_run(monkeypatch, "bad")
    _publish(small, day(1), "bad")
    wide = as_run(monkeypatch, "wide")
    _publish(small, day(3, 3), "wide")
    _train(small)
    as_run(monkeypatch, "rolling", "small_rollback")
    roll_back(small.spec, small.settings, before_run=wide, interval=day(5))
    assert _stale(small) == {}, "the set looks at the first day of that run, and not at this one"
    roll_back(small.spec, small.settings, before_run=bad, interval=day(1))
    assert _stale(small) == {"set_1": f"{small.events}: what {bad} published was rolled back"}


def test_a_set_is_as_it_was_once_what_it_did_not_see_is_rolled_back(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(small, day(0, 4), "good")
    _train(small)
    bad = as_run(monkeypatch, "bad")
    _publish(small, day(1, 2), "bad")
    assert list(_stale(small)) == ["set_1"]
    as_run(monkeypatch, "rolling", "small_rollback")
    roll_back(small.spec, small.settings, before_run=bad, interval=day(1))
    assert _stale(small) == {"set_1": f"{small.events}: {bad} published other rows of 2013-03-06"}
    roll_back(small.spec, small.settings, before_run=bad, interval=day(2))
    assert _stale(small) == {}
    mended = as_run(monkeypatch, "mended")
    _publish(small, day(1), "mended")
    assert _stale(small) == {"set_1": f"{small.events}: {mended} published other rows of 2013-03-05"}


def test_an_expired_source_is_judged_by_the_clock(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(small, day(0, 4), "first")
    as_run(monkeypatch, "before")
    _publish(small, day(1), "seen")
    _train(small)
    source = snapshot_of(small.spark, small.events).snapshot_id
    as_run(monkeypatch, "a_new_day")
    _publish(small, day(6), "new")
    expire_all_but_current(small.spark, small.events)
    assert open_catalog(small.settings).load_table(small.events).snapshot_by_id(source) is None
    assert _stale(small) == {}, "what changed day 1 was published before the set was made"
    late = as_run(monkeypatch, "late")
    _publish(small, day(2), "late")
    assert _stale(small) == {"set_1": f"{small.events}: {late} published other rows of 2013-03-06"}


def test_a_table_that_the_set_was_not_made_of_does_not_make_it_stale(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(small, day(0, 4), "seen")
    _train(small, sources=(small.planes,))
    as_run(monkeypatch, "corrected")
    _publish(small, day(1), "corrected")
    assert _stale(small) == {}


def test_a_set_without_a_record_of_its_making_is_not_judged(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mark_stale(small.spec, small.settings).training_sets == (), "nor is a use case without sets"
    _publish(small, day(0, 4), "seen")
    _train(small, sources=())
    as_run(monkeypatch, "corrected")
    _publish(small, day(1), "corrected")
    assert _stale(small) == {}


def _stale_set(small: SmallTables, monkeypatch: pytest.MonkeyPatch) -> str:
    """A stale set, and a later one that is not; the reason."""
    _publish(small, day(0, 4), "seen")
    _train(small)
    run = as_run(monkeypatch, "corrected")
    _publish(small, day(1), "corrected")
    _train(small, "set_2")
    return f"{small.events}: {run} published other rows of 2013-03-05"


def test_sets_and_models_are_marked_and_the_champion_is_trained_again(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = _stale_set(small, monkeypatch)
    old = _register(small, "set_1", registry.CHAMPION, "some_other")
    sound = _register(small, "set_2", registry.CHALLENGER)
    planned = mark_stale(small.spec, small.settings, dry_run=True)
    assert (_marks(small), _tag_of(small, old)) == ({}, None), "a dry run marks nothing"
    marked = mark_stale(small.spec, small.settings)
    assert marked == planned
    assert [(item.tag, item.reason) for item in marked.training_sets] == [("set_1", reason)]
    assert [(item.version, item.training_set, item.aliases) for item in marked.models] == [
        (old, "set_1", (registry.CHAMPION, "some_other"))
    ]
    assert marked.retrain
    assert _marks(small) == {"set_1": reason}
    assert (_tag_of(small, old), _tag_of(small, sound)) == (reason, None)
    table = open_catalog(small.settings).load_table(f"training.{small.spec.name}")
    assert mark_stale(small.spec, small.settings) == marked
    again = open_catalog(small.settings).load_table(f"training.{small.spec.name}")
    assert again.metadata_location == table.metadata_location, "marking again changes nothing"


def test_only_a_stale_champion_is_trained_again_and_only_if_the_spec_says_so(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stale_set(small, monkeypatch)
    assert small.spec.training.when_stale == "retrain"
    version = _register(small, "set_1", registry.CHALLENGER)
    _register(small, "set_2", registry.CHAMPION)
    assert not mark_stale(small.spec, small.settings).retrain, "the champion was trained on another set"
    registry.set_alias(small.settings, small.spec.model_name, registry.CHAMPION, version)
    assert mark_stale(small.spec, small.settings).retrain
    marking = small.spec.training.model_copy(update={"when_stale": "mark"})
    outcome = mark_stale(small.spec.model_copy(update={"training": marking}), small.settings)
    assert (len(outcome.models), outcome.retrain) == (1, False)


def test_a_set_that_is_made_anew_loses_its_mark_and_the_model_of_the_old_one_keeps_its_own(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = _stale_set(small, monkeypatch)
    version = _register(small, "set_1")
    mark_stale(small.spec, small.settings)
    assert _marks(small) == {"set_1": reason}
    _train(small)
    assert mark_stale(small.spec, small.settings).training_sets == ()
    assert _marks(small) == {}
    assert _tag_of(small, version) == reason


def test_the_command_line_says_which_and_with_dry_run_marks_none(
    small: SmallTables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = _stale_set(small, monkeypatch)
    monkeypatch.setattr(stale, "use_case", lambda name: small.spec)
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(small.settings.state_dir))
    monkeypatch.setenv("AIRLOOP_MLFLOW_URI", small.settings.tracking_uri)
    assert stale.main(["--use-case", small.spec.name, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["training_sets"] == [{"tag": "set_1", "reason": reason}]
    assert _marks(small) == {}
    assert stale.main(["--use-case", small.spec.name]) == 0
    assert _marks(small) == {"set_1": reason}
