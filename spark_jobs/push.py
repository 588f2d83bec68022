"""Job: bring the newest feature values of the day so far to the online store, as each hour ends.

    python -m spark_jobs.push --use-case NAME --until 2026-11-20T14:00Z [--result FILE]

Belongs here: which data an hour's values are computed from, and the push. Does not belong here: landing that
data (`spark_jobs.ingest`, `spark_jobs.stream_ingest`), computing features (the use case's transform, the same
as for training), or the audited day (`feature_repo.materialise`), whose values take the place of these.

What was published counts for the days that have been; for the day so far, raw records, cleaned by the same
transform but not audited yet: an audit judges whole days, and a request cannot wait for one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pandas as pd
from feast import FeatureStore
from feast.data_source import PushMode
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.dotted import load
from airloop.errors import HistoryError, IntervalError
from airloop.intervals import ONE_DAY, Interval, day_interval, parse_instant
from airloop.jobs import run_job
from airloop.references import Pushed
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from feature_repo.store import open_store
from feature_repo.views import push_source_of
from spark_jobs.arguments import job_parser
from spark_jobs.clean import raw_records
from spark_jobs.features import conform
from spark_jobs.history import EVENT_TIMESTAMP
from spark_jobs.session import open_session
from spark_jobs.tables import CLEAN, first_of_each, read_table, within

ONE_HOUR = timedelta(hours=1)


def newest_values(spark: SparkSession, spec: UseCase, interval: Interval) -> dict[str, DataFrame]:
    """Of each table that is pushed, the newest row of each entity in the whole days of `interval`, up to its
    end, as the transform makes them of what is known by then."""
    known = _known(spark, spec, interval)
    # The transforms work on whole days; what lies after the end is empty, and left out.
    days = Interval(interval.start, day_interval(interval.end.date()).end)
    frames = load(spec.transform).features(known, days)
    found = {}
    for table in spec.own_feature_tables:
        if not table.pushed:
            continue
        rows = conform(frames[table.name], table, spec).where(
            F.col(EVENT_TIMESTAMP) <= F.lit(interval.end.isoformat()).cast("timestamp")
        )
        found[table.name] = first_of_each(rows, table.entities, F.desc(EVENT_TIMESTAMP))
    return found


def _known(spark: SparkSession, spec: UseCase, interval: Interval) -> dict[str, DataFrame]:
    """Clean rows up to the end of `interval`: what was published, then raw records cleaned the same way."""
    reach = Interval(interval.start - spec.lookback, interval.end)
    published = {table.name: read_table(spark, f"{CLEAN}.{table.name}") for table in spec.clean_tables}
    boundary = _published_until(spec, published, reach)
    fresh = Interval(boundary, interval.end)
    landed_by = use_case(spec.lender) if spec.lender is not None else spec
    cleaned = (
        load(landed_by.transform).clean(raw_records(spark, landed_by, fresh))
        if boundary < interval.end
        else {}
    )
    known = {}
    for table in spec.clean_tables:
        rows = published[table.name]
        if table.event_time is not None:
            rows = rows.where(within(table.event_time, Interval(reach.start, boundary)))
            if cleaned:
                rows = rows.unionByName(cleaned[table.name], allowMissingColumns=True)
        known[table.name] = rows
    return known


def _published_until(spec: UseCase, published: dict[str, DataFrame], reach: Interval) -> datetime:
    """The end of the last day that every clean table has rows of, within `reach`."""
    ends = []
    for table in spec.clean_tables:
        if table.event_time is None:
            continue
        last = (
            published[table.name]
            .where(within(table.event_time, reach))
            .agg(F.max(F.col(table.event_time)).cast("double"))
            .first()
        )
        if last is None or last[0] is None:
            raise HistoryError(
                expected=f"published rows of {CLEAN}.{table.name} from {reach.start:%Y-%m-%d} on",
                found="none",
                next_step=f"run {spec.name}_features over the days before first",
            )
        ends.append(day_interval(datetime.fromtimestamp(last[0], UTC).date()).end)
    return min([*ends, reach.end])


def push(
    spark: SparkSession, store: FeatureStore, spec: UseCase, until: datetime, settings: Settings
) -> Pushed:
    """Write the newest values known at `until`, a full hour, to the online store; a repeat changes nothing.

    It looks at the day before too, so that an hour that was missed is made up for. Raises `IntervalError`
    for another moment than a full hour, `HistoryError` where nothing was published yet.
    """
    if until != until.replace(minute=0, second=0, microsecond=0):
        raise IntervalError(
            expected="a full hour to push until",
            found=until.isoformat(),
            next_step="give --until as an hour, such as 2026-11-20T14:00Z",
        )
    store.apply(load(spec.feature_definitions).definitions(spec, settings))
    start = day_interval(until.date()).start - ONE_DAY
    rows = {}
    for name, frame in newest_values(spark, spec, Interval(start, until)).items():
        values = frame.toPandas()
        rows[name] = len(values)
        if values.empty:
            continue
        values[EVENT_TIMESTAMP] = pd.to_datetime(values[EVENT_TIMESTAMP]).dt.tz_localize("UTC")
        store.push(push_source_of(spec.feature_table(name)), values, to=PushMode.ONLINE)
    return Pushed(until=until.isoformat(), rows=rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = job_parser(__doc__, interval=False)
    parser.add_argument("--until", required=True, help="full hour, ISO 8601, UTC; nothing later is used")

    def work(arguments: argparse.Namespace, settings: Settings) -> Pushed:
        spec, until = use_case(arguments.use_case), parse_instant(arguments.until)
        spark = open_session(settings, f"{spec.name} push {until:%Y-%m-%dT%H}")
        return push(spark, open_store(settings), spec, until, settings)

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
