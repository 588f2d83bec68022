"""The training set: labelled examples with their features as of each prediction time, pinned by a tag.

Belongs here: the windows, Feast's point-in-time join, the split, the tagged snapshot. Does not belong here:
which examples there are (the use case's transform), or training.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from feast import FeatureStore
from feast.on_demand_feature_view import OnDemandFeatureView
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from airloop.dotted import load
from airloop.errors import HistoryError
from airloop.intervals import ONE_DAY, Interval, resolve_as_of
from airloop.jobs import run_job
from airloop.lakehouse.properties import COMMIT, FEATURE_VIEWS, RUN_ID, SOURCES, json_text
from airloop.lakehouse.provenance import signature
from airloop.prediction_request import ON_DEMAND_TIME, on_demand_fields
from airloop.references import TableSnapshot, TrainingSet
from airloop.settings import Settings
from airloop.training.provenance import is_reproducible
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import LOCAL_SUFFIX, ModelInput, OnDemandView, UseCase
from airloop.use_cases.training_policy import TrainingPolicy
from feature_repo.store import open_store
from spark_jobs.arguments import job_parser
from spark_jobs.history import EVENT_TIMESTAMP, clean_history
from spark_jobs.request_columns import label_column, request_column
from spark_jobs.session import open_session
from spark_jobs.tables import (
    CLEAN,
    FEATURES,
    TRAINING,
    append_aside,
    ensure_table,
    fast_forward,
    read_table,
    snapshot_of,
    tag_snapshot,
    tagged,
    within,
    write_aside,
)

CHUNK_DAYS = 42
SPLIT = "split"
SPLITS = ("train", "validation", "test")
_ARROW_TYPES = {"double": pa.float64(), "long": pa.int64(), "string": pa.string()}


def windows(policy: TrainingPolicy, spec: UseCase, as_of: datetime) -> dict[str, Interval]:
    """The three windows of prediction times, one after the other; the last ends when labels are mature."""
    end = as_of - spec.label.matures_after
    found: dict[str, Interval] = {}
    for name, days in (
        ("test", policy.test_days),
        ("validation", policy.validation_days),
        ("train", policy.train_days),
    ):
        start = end - days * ONE_DAY
        found[name] = Interval(start, end)
        end = start
    return {name: found[name] for name in SPLITS}


def model_columns(spec: UseCase) -> list[Column]:
    """The model's inputs as the serving signature has them, from examples joined with features."""
    return [_model_column(item).alias(item.name) for item in spec.inputs]


def _model_column(item: ModelInput) -> Column:
    """One input; missing is "" for a string, null for a double, 0 for an instant or local time."""
    source = item.request_field or item.name
    if item.type == "string":
        return F.coalesce(F.col(source), F.lit(""))
    if item.type == "double":
        return F.col(source).cast("double")
    if item.type == "local_time":
        # The session is in UTC, so a wall-clock time cast as if it were UTC counts wall-clock seconds.
        return F.coalesce(F.col(f"{source}{LOCAL_SUFFIX}").cast("timestamp").cast("long"), F.lit(0))
    return F.coalesce(F.col(source).cast("long"), F.lit(0))


def split_column(spans: dict[str, Interval]) -> Column:
    """The name of the window that the prediction time lies in."""
    column = F.lit(None).cast("string")
    for name, span in spans.items():
        start, end = (F.lit(moment.isoformat()).cast("timestamp") for moment in span)
        here = (F.col(EVENT_TIMESTAMP) >= start) & (F.col(EVENT_TIMESTAMP) < end)
        column = F.when(here, name).otherwise(column)
    return column


def chunks(span: Interval) -> list[Interval]:
    """`span` cut into pieces of at most `CHUNK_DAYS`.

    Feast joins every example with every feature row of its entity before it looks at the time; only the
    sources are cut to the examples' range. Short ranges keep that product small: measured, half a year in one
    piece takes minutes; shorter pieces than this pay more for planning than they save.
    """
    found, start = [], span.start
    while start < span.end:
        end = min(start + CHUNK_DAYS * ONE_DAY, span.end)
        found.append(Interval(start, end))
        start = end
    return found


def join_features(
    store: FeatureStore, spec: UseCase, examples: DataFrame, *, prediction_time: str = EVENT_TIMESTAMP
) -> DataFrame:
    """`examples` with every feature as it was known at `event_timestamp`, by Feast.

    A missing entity key becomes "", which no feature row has: Feast's join drops rows with a null key. What
    is computed on demand is computed of what the join found, by Feast's own views, batch by batch, as of the
    column `prediction_time`.
    """
    given = {
        name: column
        for view in spec.on_demand
        for name, column in _on_demand_columns(spec, view, prediction_time)
    }
    asked = examples.fillna("", list(spec.entities)).withColumns(given)
    frame: DataFrame = asked
    if spec.feature_tables:
        service = store.get_feature_service(spec.feature_service)
        frame = store.get_historical_features(entity_df=asked, features=service).to_spark_df()
    for view in spec.on_demand:
        frame = computed(frame, store.get_on_demand_feature_view(view.name), view)
    return frame.drop(*given)


def _on_demand_columns(
    spec: UseCase, view: OnDemandView, prediction_time: str
) -> Iterator[tuple[str, Column]]:
    """What the function of `view` is given of each example, as of a request."""
    yield ON_DEMAND_TIME, F.col(prediction_time).cast("long")
    for name, kind in on_demand_fields(spec, view).items():
        if kind == "seconds":
            # The session is in UTC, so the wall clock counts as if it were UTC.
            yield name, F.col(name.removesuffix("_seconds")).cast("timestamp").cast("long")


def computed(frame: DataFrame, feast_view: OnDemandFeatureView, view: OnDemandView) -> DataFrame:
    """`frame` with the features of `view`, by Feast's function for them."""
    schema = StructType([field for field in frame.schema if field.name not in view.features])
    for name, type_ in view.features.items():
        schema.add(name, type_)

    def transform(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            made = feast_view.transform_arrow(rows)
            for name, type_ in view.features.items():
                rows = rows.append_column(name, made[name].cast(_ARROW_TYPES[type_]))
            yield from rows.to_batches()

    return frame.mapInArrow(transform, schema)


def training_rows(joined: DataFrame, spec: UseCase, spans: dict[str, Interval]) -> DataFrame:
    """Joined examples as the training table has them."""
    outcome = [F.col(spec.label.outcome.name).cast("double")] if spec.label.outcome else []
    return joined.select(
        *model_columns(spec),
        label_column(spec.label).alias(spec.label.name),
        *outcome,
        F.col(EVENT_TIMESTAMP).alias("prediction_time"),
        split_column(spans).alias(SPLIT),
        request_column(spec).alias("request"),
    )


def build(
    spark: SparkSession, spec: UseCase, policy: TrainingPolicy, as_of: datetime, settings: Settings
) -> TrainingSet:
    """The pinned training set as of `as_of`; the same arguments and sources give the same rows.

    One that the same commit of the code pinned from the same snapshots of its sources, by the same Feast
    views, is taken as it is: a training that is started twice, or again after its set was pinned, is then
    one training.

    Raises `HistoryError` when published data does not reach over every window and on to `as_of`, and
    `TimeoutError` when the sources changed meanwhile.
    """
    spans = windows(policy, spec, as_of)
    whole = Interval(spans["train"].start, spans["test"].end)
    _require_published(spark, spec, as_of)
    sources = _source_snapshots(spark, spec)
    made_from = {source.table: source.snapshot_id for source in sources}
    store = open_store(settings)
    properties = {
        **signature(spec.name, whole),
        SOURCES: json_text(made_from),
        FEATURE_VIEWS: json_text(_applied(store, spec)),
    }
    table, tag = f"{TRAINING}.{spec.name}", tag_of(policy, as_of)
    found = _pinned_before(spark, table, tag, properties)
    if found is not None:
        pinned, snapshot_id = found
        counts = _check_coverage(spark.read.option("versionAsOf", snapshot_id).table(table), spans)
        return _reference(table, pinned, snapshot_id, counts, as_of, sources)
    examples = (
        load(spec.transform)
        .examples(clean_history(spark, spec, Interval(whole.start, as_of)), whole, spec.prediction_lead)
        .cache()
    )
    branch = f"build_{tag}"
    for number, chunk in enumerate(chunks(whole)):
        part = examples.where(within(EVENT_TIMESTAMP, chunk)).cache()
        if part.isEmpty():
            raise HistoryError(
                expected=f"examples from {chunk.start:%Y-%m-%d} to {chunk.end:%Y-%m-%d}",
                found="none",
                next_step="run the features DAG over those days, then train again",
            )
        rows = training_rows(join_features(store, spec, part), spec, spans)
        if number == 0:
            ensure_table(spark, table, rows, None)
            write_aside(spark, rows, table, None, whole, branch, properties)
        else:
            append_aside(spark, rows, table, branch)
        part.unpersist()
    counts = _check_coverage(spark.read.option("branch", branch).table(table), spans)
    if _source_snapshots(spark, spec) != sources:
        raise TimeoutError(f"the sources of {table} changed meanwhile; the next try reads the new ones")
    written = fast_forward(spark, table, branch)
    # Its own, for ever: another set of the same day must not take the rows of a model's from under it.
    pinned = f"{tag}_{written.snapshot_id}"
    tag_snapshot(spark, table, pinned, written.snapshot_id)
    return _reference(table, pinned, written.snapshot_id, counts, as_of, sources)


def _applied(store: FeatureStore, spec: UseCase) -> dict[str, Any]:
    """The views that the join reads as they were last applied, which may be of another commit."""
    if not spec.feature_tables:
        return {}
    service = store.get_feature_service(spec.feature_service)
    stored = {table.name for table in spec.feature_tables}
    return {
        view.name: {
            "features": [feature.name for feature in view.features],
            "seconds": store.get_feature_view(view.name).ttl.total_seconds() if view.name in stored else None,
        }
        for view in service.feature_view_projections
    }


def _pinned_before(
    spark: SparkSession, table: str, tag: str, properties: Mapping[str, str]
) -> tuple[str, int] | None:
    if not is_reproducible(properties[COMMIT]):
        return None
    same = {name: value for name, value in properties.items() if name != RUN_ID}
    return tagged(spark, table, f"{tag}_", same)


def _reference(
    table: str,
    tag: str,
    snapshot_id: int,
    counts: Mapping[str, int],
    as_of: datetime,
    sources: tuple[TableSnapshot, ...],
) -> TrainingSet:
    return TrainingSet(
        table=table,
        tag=tag,
        snapshot_id=snapshot_id,
        rows=sum(counts.values()),
        train_rows=counts["train"],
        validation_rows=counts["validation"],
        test_rows=counts["test"],
        as_of=as_of.isoformat(),
        sources=sources,
    )


def tag_of(policy: TrainingPolicy, as_of: datetime) -> str:
    """How the tag of a training set begins: its as-of day and the lengths of its windows."""
    return f"as_of_{as_of:%Y%m%d}_{policy.train_days}_{policy.validation_days}_{policy.test_days}"


def _require_published(spark: SparkSession, spec: UseCase, as_of: datetime) -> None:
    """Raises `HistoryError` unless the last day before `as_of` is published.

    Its outcomes are labels of the day before. Of a flight that lands after midnight, only a late one's is
    missing: a set without them would say that the last evening's flights were on time.
    """
    last = Interval(as_of - ONE_DAY, as_of)
    for table in spec.clean_tables:
        if table.event_time is None:
            continue
        if read_table(spark, f"{CLEAN}.{table.name}").where(within(table.event_time, last)).isEmpty():
            raise HistoryError(
                expected=f"published rows of {CLEAN}.{table.name} up to {as_of:%Y-%m-%d}",
                found=f"none of {last.start:%Y-%m-%d}",
                next_step=f"wait until {spec.name}_features has published that day (or see why its audit "
                "failed), then clear this task; or train as of an earlier day",
            )


def _source_snapshots(spark: SparkSession, spec: UseCase) -> tuple[TableSnapshot, ...]:
    names = [f"{CLEAN}.{table.name}" for table in spec.clean_tables]
    names += [f"{FEATURES}.{table.name}" for table in spec.feature_tables]
    for name in names:
        if not spark.catalog.tableExists(name):
            raise HistoryError(
                expected=f"the table {name}",
                found="none",
                next_step=f"run {spec.name}_features over the training windows first",
            )
    return tuple(snapshot_of(spark, name) for name in names)


def _check_coverage(rows: DataFrame, spans: dict[str, Interval]) -> dict[str, int]:
    """Rows per split; raises `HistoryError` naming the days of the windows without an example."""
    days = {
        (row[0], row[1]): row[2]
        for row in rows.groupBy(SPLIT, F.date_format("prediction_time", "yyyy-MM-dd")).count().collect()
    }
    wanted = {
        (name, f"{span.start + n * ONE_DAY:%Y-%m-%d}")
        for name, span in spans.items()
        for n in range(span.days)
    }
    missing = sorted(day for _, day in wanted - set(days))
    if missing:
        raise HistoryError(
            expected="examples on each day from "
            f"{spans['train'].start:%Y-%m-%d} to {spans['test'].end:%Y-%m-%d}",
            found=f"none on {len(missing)} of them, the first {missing[0]} and the last {missing[-1]}",
            next_step="run the features DAG over those days (its start_date and end_date), then train again",
        )
    return {name: sum(count for (split, _), count in days.items() if split == name) for name in SPLITS}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = job_parser(__doc__, interval=False)
    parser.add_argument("--as-of", required=True, help="midnight to look back from, ISO 8601, UTC")
    for name in ("train_days", "validation_days", "test_days"):
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=int, help="instead of the spec's window length"
        )

    def work(arguments: argparse.Namespace, settings: Settings) -> TrainingSet:
        spec = use_case(arguments.use_case)
        given = {
            name: value
            for name in ("train_days", "validation_days", "test_days")
            if (value := getattr(arguments, name)) is not None
        }
        policy = TrainingPolicy(**{**json.loads(spec.training.model_dump_json()), **given})
        as_of = resolve_as_of(as_of=arguments.as_of, data_interval=None, run_after=datetime.min)
        spark = open_session(settings, f"{spec.name} training set {tag_of(policy, as_of)}")
        return build(spark, spec, policy, as_of, settings)

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
