"""From the source to a training set: audited, published whole or not at all, and blind to the future."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.errors import AuditError, HistoryError, PublishError
from airloop.intervals import ONE_DAY, Interval
from airloop.lakehouse import provenance
from airloop.lakehouse.catalog import open_catalog, read_snapshot
from airloop.lakehouse.publish import publish
from airloop.prediction_request import assemble_inputs, parse_request
from airloop.references import TrainingSet
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from airloop.use_cases.training_policy import TrainingPolicy
from feature_repo.materialise import materialise
from feature_repo.store import open_store
from spark_jobs import training_set
from spark_jobs.audit import audit
from spark_jobs.clean import branch_of, clean
from spark_jobs.features import build_features
from spark_jobs.history import clean_history
from spark_jobs.ingest import ingest
from spark_jobs.tables import snapshot_of
from spark_jobs.transforms import flight_delay

WEEK = Interval(datetime(2013, 3, 4, tzinfo=UTC), datetime(2013, 3, 11, tzinfo=UTC))


def _counts(spark: SparkSession, spec: UseCase) -> dict[str, tuple[int, int]]:
    names = [f"clean.{table.name}" for table in spec.clean_tables]
    return {name: (snapshot_of(spark, name).snapshot_id, spark.table(name).count()) for name in names}


@pytest.mark.usefixtures("published")
def test_a_second_delivery_of_the_same_interval_adds_nothing(
    spark: SparkSession, spec: UseCase, settings: Settings
) -> None:
    before = spark.table("raw.movements").count()
    again = ingest(spark, spec, WEEK, settings)
    assert {snapshot.rows for snapshot in again.snapshots} == {0}
    assert again.duplicates > before > 10_000
    assert spark.table("raw.movements").count() == before


@pytest.mark.usefixtures("published")
def test_repeating_a_run_leaves_the_same_rows(spark: SparkSession, spec: UseCase, settings: Settings) -> None:
    before = {name: rows for name, (_, rows) in _counts(spark, spec).items()}
    branch = clean(spark, spec, WEEK).branch
    publish(spec, branch, WEEK, settings)
    first = _counts(spark, spec)
    publish(spec, branch, WEEK, settings)
    assert _counts(spark, spec) == first
    assert {name: rows for name, (_, rows) in first.items()} == before


@pytest.mark.usefixtures("published")
def test_a_failing_expectation_leaves_main_untouched_and_says_why(
    spark: SparkSession, spec: UseCase, settings: Settings
) -> None:
    before = _counts(spark, spec)
    branch = clean(spark, spec, WEEK).branch
    spark.sql(
        f"UPDATE airloop.clean.flights.branch_{branch} SET origin = 'XXX' "
        "WHERE carrier = 'HA' AND origin = 'JFK'"
    )
    with pytest.raises(AuditError) as caught:
        audit(spark, spec, WEEK, branch, settings)
    assert _counts(spark, spec) == before
    assert "expect_column_values_to_be_in_set" in caught.value.found
    assert "'XXX'" in caught.value.found
    assert '"carrier": "HA"' in caught.value.found
    report = settings.reports_dir / spec.name / "audits" / f"{WEEK.key}.json"
    assert json.loads(report.read_text())["failures"]


@pytest.mark.usefixtures("published")
def test_an_empty_day_fails_the_audit_and_is_named(
    spark: SparkSession, spec: UseCase, settings: Settings
) -> None:
    branch = clean(spark, spec, WEEK).branch
    spark.sql(
        f"DELETE FROM airloop.clean.weather.branch_{branch} WHERE date(reported_at) = DATE '2013-03-06'"
    )
    with pytest.raises(AuditError, match="a day has no data at all"):
        audit(spark, spec, WEEK, branch, settings)


@pytest.mark.usefixtures("published")
def test_two_runs_at_once_publish_both_their_intervals(
    spark: SparkSession, spec: UseCase, settings: Settings
) -> None:
    """As when a backfill runs beside the daily run: both branches start from the same main."""
    days = [
        Interval(WEEK.start, WEEK.start + ONE_DAY),
        Interval(WEEK.start + ONE_DAY, WEEK.start + 2 * ONE_DAY),
    ]
    before = {name: spark.table(name).cache() for name in _counts(spark, spec)}
    sizes = {name: frame.count() for name, frame in before.items()}
    branches = [clean(spark, spec, day).branch for day in days]
    main = {name: snapshot for name, (snapshot, _) in _counts(spark, spec).items()}
    for day, branch in zip(days, branches, strict=True):
        publish(spec, branch, day, settings)
        publish(spec, branch, day, settings)
    for name, rows in before.items():
        assert snapshot_of(spark, name).snapshot_id != main[name]
        now = spark.table(name)
        assert now.count() == sizes[name]
        assert now.exceptAll(rows).isEmpty()


@pytest.mark.usefixtures("published")
def test_publishing_needs_the_branch(spec: UseCase, settings: Settings) -> None:
    with pytest.raises(PublishError, match="run the clean and audit jobs"):
        publish(spec, "audit_never", WEEK, settings)


@pytest.mark.usefixtures("published")
def test_the_audit_needs_the_branch(spark: SparkSession, spec: UseCase, settings: Settings) -> None:
    with pytest.raises(HistoryError, match="run the clean job"):
        audit(spark, spec, WEEK, "audit_never", settings)


def _changed_future(frames: dict[str, DataFrame], cut: datetime) -> dict[str, DataFrame]:
    """The same past, another future: what is known after `cut` is late, hot and somebody else's."""
    after = F.col("occurred_at") > F.lit(cut.isoformat()).cast("timestamp")
    reported = F.col("reported_at") > F.lit(cut.isoformat()).cast("timestamp")
    return {
        **frames,
        "movements": frames["movements"].withColumn(
            "delay_minutes", F.when(after, 500.0).otherwise(F.col("delay_minutes"))
        ),
        "weather": frames["weather"].withColumn(
            "temperature_f", F.when(reported, 120.0).otherwise(F.col("temperature_f"))
        ),
    }


@pytest.mark.usefixtures("published")
def test_changing_the_future_moves_no_feature(spark: SparkSession, spec: UseCase) -> None:
    cut = WEEK.start + timedelta(days=4, hours=17, minutes=20)
    frames = clean_history(spark, spec, WEEK)
    truth = flight_delay.features(frames, WEEK)
    altered = flight_delay.features(_changed_future(frames, cut), WEEK)
    known = F.col("event_timestamp") <= F.lit(cut.isoformat()).cast("timestamp")
    moved_later = 0
    for name, rows in truth.items():
        kept = rows.where(known).select(*altered[name].columns)
        assert kept.exceptAll(altered[name].where(known)).isEmpty(), name
        assert kept.count() > 0, name
        later = rows.where(~known).select(*altered[name].columns)
        moved_later += later.exceptAll(altered[name].where(~known)).count()
    assert moved_later > 1000


def test_the_training_set_is_pinned_split_by_time_and_reads_without_a_jvm(
    trained_on: TrainingSet, spec: UseCase, settings: Settings
) -> None:
    table = open_catalog(settings).load_table(trained_on.table)
    assert table.refs()[trained_on.tag].snapshot_id == trained_on.snapshot_id
    columns = [item.name for item in spec.inputs] + [spec.label.name, "prediction_time", "split", "request"]
    frame = read_snapshot(table, trained_on.snapshot_id, columns).to_pandas()
    assert len(frame) == trained_on.rows > 2000
    spans = frame.groupby("split")["prediction_time"].agg(["min", "max"])
    assert spans.loc["train", "max"] < spans.loc["validation", "min"]
    assert spans.loc["validation", "max"] < spans.loc["test", "min"]
    assert spans["max"].max() < WEEK.end - spec.label.matures_after
    assert frame[spec.label.name].isin([0, 1]).all()
    assert frame["origin_departures_3h"].notna().mean() > 0.9
    assert frame["temperature_f"].notna().mean() > 0.9


def test_requests_in_the_training_set_parse_to_the_inputs_beside_them(
    trained_on: TrainingSet, spec: UseCase, settings: Settings
) -> None:
    table = open_catalog(settings).load_table(trained_on.table)
    own = [item.name for item in spec.inputs if item.request_field is not None]
    rows = read_snapshot(table, trained_on.snapshot_id, [*own, "request", "prediction_time"]).to_pylist()
    for row in rows[:: len(rows) // 200]:
        request = parse_request(spec, row["request"])
        inputs = assemble_inputs(spec, request, dict.fromkeys(spec.features))
        assert {name: inputs[name] for name in own} == {name: row[name] for name in own}
        assert request.prediction_time == row["prediction_time"]


def test_a_set_of_the_same_sources_and_code_is_made_once(
    trained_on: TrainingSet,
    spark: SparkSession,
    spec: UseCase,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = TrainingPolicy(
        **{**spec.training.model_dump(), "train_days": 2, "validation_days": 1, "test_days": 1}
    )
    made = []
    for commit in ("a" * 40, "a" * 40, "b" * 40, "b" * 40 + "-dirty", "b" * 40 + "-dirty"):
        monkeypatch.setattr(provenance, "_commit", lambda commit=commit: commit)
        made.append(training_set.build(spark, spec, policy, WEEK.end, settings))
    first, again, other, changed, changed_again = made
    assert again == first
    assert len({one.tag for one in (first, other, changed, changed_again)}) == 4
    assert {one.rows for one in made} == {first.rows}
    # The same days built again are other snapshots, and so is a view that is applied anew with another time.
    build_features(spark, spec, Interval(WEEK.end - ONE_DAY, WEEK.end))
    monkeypatch.setattr(provenance, "_commit", lambda: "a" * 40)
    rebuilt = training_set.build(spark, spec, policy, WEEK.end, settings)
    assert rebuilt.tag != first.tag
    store = open_store(settings)
    view = store.get_feature_view("tail_history")
    kept = view.ttl
    view.ttl = timedelta(hours=1)
    store.apply([view])
    shorter = training_set.build(spark, spec, policy, WEEK.end, settings)
    view.ttl = kept
    store.apply([view])
    assert shorter.tag != rebuilt.tag
    assert training_set.build(spark, spec, policy, WEEK.end, settings) == rebuilt
    longer = policy.model_copy(update={"train_days": 3})
    assert training_set.build(spark, spec, longer, WEEK.end, settings).rows > first.rows


def test_a_window_without_data_names_its_days(
    materialised: None, spark: SparkSession, spec: UseCase, settings: Settings
) -> None:
    policy = TrainingPolicy(**{**spec.training.model_dump(), "train_days": 20})
    with pytest.raises(HistoryError, match="run the features DAG"):
        training_set.build(spark, spec, policy, WEEK.end, settings)


def test_materialising_an_old_day_keeps_newer_values_online(
    materialised: None, spark: SparkSession, spec: UseCase, settings: Settings
) -> None:
    store = open_store(settings)
    ask = {"entity_rows": [{"origin": "JFK"}], "features": ["origin_weather:temperature_f"]}
    newest = store.get_online_features(**ask).to_dict()["temperature_f"]
    materialise(store, spec, Interval(WEEK.start + ONE_DAY, WEEK.start + 2 * ONE_DAY), settings)
    assert store.get_online_features(**ask).to_dict()["temperature_f"] == newest
    assert newest[0] is not None


def test_the_branch_is_named_by_its_interval() -> None:
    assert branch_of(WEEK) == "audit_20130304_20130311"
