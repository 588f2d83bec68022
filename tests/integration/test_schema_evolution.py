"""A table's columns change without a rewrite: old rows, tags, branches and rollbacks stay as they were."""

from __future__ import annotations

import threading
import uuid
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pyiceberg.table import Table
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.errors import HistoryError, PublishError
from airloop.lakehouse.catalog import open_catalog, read_snapshot
from airloop.lakehouse.publish import publish
from airloop.lakehouse.replace import replace_interval
from airloop.references import AuditReport
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from airloop.versions.rollback import roll_back
from spark_jobs.tables import append, ensure_table, fast_forward, snapshot_of, tag_snapshot, write_aside
from tests.integration.small_tables import FIRST, SmallTables, as_run, day

COLUMNS = "id int, at timestamp, amount float, price decimal(6,2), code string"
PLACES = {name: place for place, name in enumerate(("id", "at", "amount", "price", "code"))}


def _at(hour: int) -> datetime:
    return FIRST + timedelta(hours=hour)


OLD = [(1, _at(0), 0.5, Decimal("1.25"), "a"), (2, _at(1), 0.25, Decimal("2.50"), None)]
ON_BRANCH = (3, _at(25), 0.125, Decimal("3.75"), "c")


class Evolving:
    """A table with old rows on `main` and the tag `set_1`, and one more on the branch `audit_kept`."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        self.spark, self.settings = spark, settings
        self.name = f"clean.evolving_{uuid.uuid4().hex[:8]}"
        rows = self.frame(COLUMNS, *OLD)
        ensure_table(spark, self.name, rows, "at")
        append(rows, self.name, {})
        self.old_snapshot = snapshot_of(spark, self.name).snapshot_id
        tag_snapshot(spark, self.name, "set_1")
        write_aside(spark, self.frame(COLUMNS, ON_BRANCH), self.name, "at", day(1), "audit_kept")

    def frame(self, columns: str, *rows: tuple[Any, ...]) -> DataFrame:
        return self.spark.createDataFrame(list(rows), columns)

    def ensure(self, rows: DataFrame, **renamed: str) -> None:
        ensure_table(self.spark, self.name, rows, "at", renamed)

    def write(self, rows: DataFrame, number: int, **renamed: str) -> None:
        """Publish `rows` as the only ones of the day, the way a job does."""
        self.ensure(rows, **renamed)
        write_aside(self.spark, rows, self.name, "at", day(number), "build_it")
        fast_forward(self.spark, self.name, "build_it")

    def rows(self, *columns: str, **options: str) -> list[tuple[Any, ...]]:
        """The values of `columns`, by id."""
        frame = self.spark.read.options(**options).table(self.name)
        return [tuple(row) for row in frame.orderBy("id").select(*columns).collect()]

    def columns(self) -> str:
        fields = self.spark.table(self.name).schema
        return ", ".join(f"{field.name} {field.dataType.simpleString()}" for field in fields)

    def loaded(self) -> Table:
        return open_catalog(self.settings).load_table(self.name)

    def assert_the_past_is_as_it_was(self) -> None:
        """Tag and snapshot show the old columns and rows, to Spark and without a JVM."""
        for version in ("'set_1'", str(self.old_snapshot)):
            old = self.spark.sql(f"SELECT * FROM {self.name} VERSION AS OF {version} ORDER BY id")
            assert old.columns == list(PLACES), version
            assert [row.amount for row in old.collect()] == [0.5, 0.25], version
        rows = read_snapshot(self.loaded(), self.old_snapshot, list(PLACES)).sort_by("id")
        assert rows.to_pylist() == [dict(zip(PLACES, row, strict=True)) for row in OLD]


@pytest.fixture
def table(spark: SparkSession, settings: Settings) -> Evolving:
    return Evolving(spark, settings)


@pytest.fixture(scope="module")
def unchanged(spark: SparkSession, settings: Settings) -> Evolving:
    """One table for all tests of changes that are refused."""
    return Evolving(spark, settings)


def test_a_new_column_is_null_in_older_rows(table: Evolving) -> None:
    columns = f"{COLUMNS}, note string"
    table.write(table.frame(columns, (4, _at(48), 1.0, Decimal(4), "d", "new")), 2)
    assert table.columns() == columns
    assert table.rows("id", "code", "note") == [(1, "a", None), (2, None, None), (4, "d", "new")]
    assert table.rows("id", "code", "note", branch="audit_kept")[2] == (3, "c", None)
    table.assert_the_past_is_as_it_was()


def test_a_new_column_that_the_first_rows_all_have_may_be_null_later(table: Evolving) -> None:
    rows = table.frame(COLUMNS, (4, _at(48), 1.0, Decimal(4), "d")).withColumn("checked", F.lit(True))
    table.ensure(rows)
    append(rows, table.name, {})
    append(rows.withColumns({"id": F.lit(5), "checked": F.lit(None).cast("boolean")}), table.name, {})
    assert table.rows("id", "checked")[2:] == [(4, True), (5, None)]


def test_wider_types_keep_the_old_values_and_take_larger_ones(table: Evolving) -> None:
    columns = "id bigint, at timestamp, amount double, price decimal(12,2), code string"
    table.write(table.frame(columns, (2**40, _at(48), 1e300, Decimal("9999999999.99"), "d")), 2)
    assert table.columns() == columns
    assert table.rows("id", "amount", "price") == [
        (1, 0.5, Decimal("1.25")),
        (2, 0.25, Decimal("2.50")),
        (2**40, 1e300, Decimal("9999999999.99")),
    ]
    assert table.rows("id", branch="audit_kept") == [(1,), (2,), (3,)]
    table.assert_the_past_is_as_it_was()


def test_a_renamed_column_has_its_old_values(table: Evolving) -> None:
    columns = COLUMNS.replace("code", "label")
    table.write(table.frame(columns, (4, _at(48), 1.0, Decimal(4), "d")), 2, label="code")
    assert table.columns() == columns
    assert table.rows("id", "label") == [(1, "a"), (2, None), (4, "d")]
    assert table.rows("id", "label", branch="audit_kept")[2] == (3, "c")
    table.assert_the_past_is_as_it_was()


def test_columns_that_change_places_keep_their_values(table: Evolving) -> None:
    columns = "code string, id int, price decimal(6,2), at timestamp, amount float"
    table.write(table.frame(columns, ("d", 4, Decimal(4), _at(48), 1.0)), 2)
    assert table.columns() == columns
    assert table.rows("code", "id", "amount") == [("a", 1, 0.5), (None, 2, 0.25), ("d", 4, 1.0)]
    table.assert_the_past_is_as_it_was()


def test_everything_at_once_and_again(table: Evolving) -> None:
    columns = "note string, label string, at timestamp, number bigint, amount double, price decimal(7,2)"
    rows = table.frame(columns, ("n", "d", _at(48), 4, 1.0, Decimal(4)))
    renamed = {"label": "code", "number": "id"}
    files = {row[0] for row in table.spark.sql(f"SELECT file_path FROM {table.name}.files").collect()}
    table.ensure(rows, **renamed)
    changed = table.loaded().metadata_location
    table.ensure(rows, **renamed)
    assert table.loaded().metadata_location == changed, "a change that was made is not made again"
    append(rows, table.name, {})
    assert table.columns() == columns
    assert table.spark.table(table.name).orderBy("number").select("number", "label", "note").collect() == [
        (1, "a", None),
        (2, None, None),
        (4, "d", "n"),
    ]
    now = {row[0] for row in table.spark.sql(f"SELECT file_path FROM {table.name}.files").collect()}
    assert files < now, "no file was rewritten"
    table.assert_the_past_is_as_it_was()


def test_the_column_that_places_rows_can_be_renamed(table: Evolving) -> None:
    columns = COLUMNS.replace("at timestamp", "happened_at timestamp")
    rows = table.frame(columns, (1, _at(0), 9.0, Decimal(4), "replaced"))
    ensure_table(table.spark, table.name, rows, "happened_at", {"happened_at": "at"})
    write_aside(table.spark, rows, table.name, "happened_at", day(0), "build_it")
    fast_forward(table.spark, table.name, "build_it")
    assert table.rows("id", "happened_at", "code") == [(1, _at(0).replace(tzinfo=None), "replaced")]
    table.assert_the_past_is_as_it_was()


@pytest.mark.parametrize(
    ("columns", "fault", "step"),
    [
        (COLUMNS.replace("id int", "id smallint"), "id would change from int to smallint", "keep the type"),
        (COLUMNS.replace("amount float", "amount int"), "amount would change from float to int", "keep the"),
        (
            COLUMNS.replace("code string", "code int"),
            "code would change from string to int",
            "new column name",
        ),
        (COLUMNS.replace("(6,2)", "(5,2)"), "decimal(6,2) to decimal(5,2)", "keep the type of price"),
        (COLUMNS.replace("(6,2)", "(8,3)"), "decimal(6,2) to decimal(8,3)", "keep the type of price"),
        (COLUMNS.replace("timestamp", "timestamp_ntz"), "timestamp to timestamp_ntz", "keep the type of at"),
        (
            COLUMNS.replace("timestamp", "date"),
            "at would change from timestamp to date",
            "keep the type of at",
        ),
        (COLUMNS.replace(", code string", ""), "code is gone", "DROP COLUMN code"),
        (COLUMNS.replace("code", "label"), "code is gone", "declare the rename in the spec"),
        (
            f"{COLUMNS.replace('id int', 'id string')}, note string",
            "id would change from int",
            "keep the type",
        ),
    ],
)
def test_an_incompatible_change_is_refused_with_both_schemas_and_changes_nothing(
    unchanged: Evolving, columns: str, fault: str, step: str
) -> None:
    before = unchanged.loaded().metadata_location
    with pytest.raises(PublishError) as refused:
        unchanged.ensure(unchanged.spark.createDataFrame([], columns))
    assert fault in refused.value.found
    assert f"({columns})" in refused.value.found
    assert f"({COLUMNS})" in refused.value.expected
    assert unchanged.name in refused.value.expected
    assert step in refused.value.next_step
    assert unchanged.loaded().metadata_location == before
    assert unchanged.rows(*PLACES) == [(i, t.replace(tzinfo=None), *rest) for i, t, *rest in OLD]


def test_all_that_is_wrong_is_said_at_once(unchanged: Evolving) -> None:
    columns = COLUMNS.replace("id int", "id string").replace(", code string", "")
    with pytest.raises(PublishError, match="id would change from int to string; code is gone"):
        unchanged.ensure(unchanged.spark.createDataFrame([], columns))


def test_a_wider_table_refuses_the_old_code(table: Evolving) -> None:
    table.ensure(table.spark.createDataFrame([], COLUMNS.replace("id int", "id bigint")))
    with pytest.raises(PublishError, match="id would change from bigint to int"):
        table.ensure(table.spark.createDataFrame([], COLUMNS))


def test_jobs_that_start_at_once_with_a_new_column_all_get_it(table: Evolving) -> None:
    columns = f"{COLUMNS.replace('id int', 'id bigint').replace('code', 'label')}, note string"
    wanted = table.spark.createDataFrame([], columns)
    start, errors = threading.Barrier(4), list[BaseException]()

    def one() -> None:
        # A job's own thread has a session; a thread made here must be told, or it asks another catalog.
        table.spark._jvm.SparkSession.setActiveSession(table.spark._jsparkSession)
        try:
            start.wait()
            table.ensure(wanted, label="code")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(error)[:300] for error in errors] == []
    assert table.columns() == columns
    table.assert_the_past_is_as_it_was()


def test_a_tag_without_the_columns_that_are_asked_for_says_so(table: Evolving) -> None:
    table.write(table.frame(f"{COLUMNS}, note string", (4, _at(48), 1.0, Decimal(4), "d", "new")), 2)
    with pytest.raises(HistoryError, match="no note"):
        read_snapshot(table.loaded(), table.old_snapshot, ["id", "note"])


def test_rows_of_an_interval_come_back_in_the_present_columns(table: Evolving) -> None:
    columns = "note string, id bigint, at timestamp, total double, price decimal(9,2), label string"
    renamed = {"label": "code", "total": "amount"}
    table.write(table.frame(columns, ("bad", 2**40, _at(2), 9.0, Decimal(9), "bad")), 0, **renamed)
    table.write(table.frame(columns, ("later", 5, _at(30), 5.0, Decimal(5), "later")), 1, **renamed)
    assert table.rows("id", "label") == [(5, "later"), (2**40, "bad")]
    loaded = table.loaded()
    target = loaded.snapshot_by_id(table.old_snapshot)
    assert target is not None
    replace_interval(loaded, target, "at", day(0), {})
    assert table.columns() == columns
    assert table.rows("id", "total", "label", "note") == [
        (1, 0.5, "a", None),
        (2, 0.25, None, None),
        (5, 5.0, "later", "later"),
    ]
    table.assert_the_past_is_as_it_was()


class Renamed(SmallTables):
    """The same events, whose column has another name now, and one column more."""

    def rows(self, interval: Any, value: str) -> DataFrame:
        rows = super().rows(interval, value)
        return rows.select("id", "at", F.col("value").alias("said"), F.lit(1.5).alias("weight"))


@pytest.mark.parametrize("only_the_day", [True, False])
def test_a_run_is_rolled_back_across_a_rename(
    spark: SparkSession,
    settings: Settings,
    spec: UseCase,
    monkeypatch: pytest.MonkeyPatch,
    only_the_day: bool,
) -> None:
    small = SmallTables(spark, settings, spec)
    as_run(monkeypatch, "good")
    small.run(day(0, 2), "good")
    later = Renamed(spark, settings, spec)
    later.spec, later.events, later.planes = small.spec, small.events, small.planes
    bad = as_run(monkeypatch, "bad")
    ensure_table(spark, small.events, later.rows(day(0), "any"), "at", {"said": "value"})
    later.run(day(0), "bad")
    as_run(monkeypatch, "rolling", "small_rollback")
    assert roll_back(small.spec, settings, before_run=bad, interval=day(0) if only_the_day else None).changed
    said = spark.table(small.events).groupBy("said", "weight").count().collect()
    assert [tuple(row) for row in said] == [("good", None, 48)]
    as_run(monkeypatch, "mended")
    later.run(day(0), "mended")
    said = spark.table(small.events).groupBy("said", "weight").count().orderBy("said").collect()
    assert [tuple(row) for row in said] == [("good", None, 24), ("mended", 1.5, 24)]


def test_a_branch_written_before_a_change_is_published_after_it(
    spark: SparkSession, settings: Settings, spec: UseCase
) -> None:
    small = SmallTables(spark, settings, spec)
    small.run(day(0, 3), "old")
    waiting = small.write(day(1), "waiting")
    later = Renamed(spark, settings, spec)
    later.spec, later.events, later.planes = small.spec, small.events, small.planes
    ensure_table(spark, small.events, later.rows(day(0), "any"), "at", {"said": "value"})
    later.run(day(0), "new")
    audit = AuditReport(branch=waiting, expectations=5, report_uri="file:///report.json")
    publish(small.spec, waiting, day(1), settings, audit)
    said = spark.table(small.events).groupBy("said", "weight").count().orderBy("said").collect()
    assert [tuple(row) for row in said] == [("new", 1.5, 24), ("old", None, 24), ("waiting", None, 24)]
