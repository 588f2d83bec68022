"""Job: how served requests and their answers were spread over a profile's cells, hour by hour.

    python -m spark_jobs.count_predictions --use-case NAME --version 3 --run-id ... --start ... --end ...

Belongs here: counting the prediction log on Spark. Does not belong here: the profile, or what counts say
(`airloop.monitoring`).

Counts add up: an hour is counted once, and any longer window is a sum of its hours. What comes back is as
small for a hundred million predictions as for a hundred: a row for each hour, feature and cell.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.intervals import ONE_HOUR, Interval, whole_hours_past
from airloop.jobs import run_job
from airloop.lakehouse.catalog import open_catalog
from airloop.monitoring.cells import Cells
from airloop.monitoring.counts import ANSWERED, FAILED, REQUESTS, replace_hours, table_name, uncounted
from airloop.monitoring.logged import logged_answers, logged_inputs
from airloop.monitoring.monitored import PREDICTION, watched_inputs, watched_values
from airloop.monitoring.profile import Profile, kept_profile
from airloop.monitoring.windows import needed
from airloop.prediction_log import record, variants
from airloop.prediction_log.answers import COLUMN
from airloop.references import CountedPredictions
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from spark_jobs.arguments import interval_of, job_parser
from spark_jobs.session import open_session
from spark_jobs.tables import within

log = logging.getLogger(__name__)

HOUR, FEATURE, CELL, ROWS = "hour", "feature", "cell", "rows"
COUNTED_AGAIN = 3
"""The last hours are counted in every run, and at midnight the whole day: records that landed late count."""
_SCHEMA = f"{HOUR} timestamp, {FEATURE} string, {CELL} int, {ROWS} long"


def count(
    spark: SparkSession, use_case: UseCase, profile: Profile, version: int, span: Interval
) -> DataFrame:
    """Rows of `hour`, `feature`, `cell` (a number of the profile's) and `rows`, for the hours of `span`.

    Features are those of every request that a client made, whichever version answered: they are of the world.
    The prediction is that of `version` alone, a shadow's copies included: it is the model's.
    """
    rows = spark.table(record.TABLE).where(
        within("predicted_at", span) & (F.col("use_case") == use_case.name)
    )
    answered = rows.where(F.col("error").isNull())
    hour = F.date_trunc("hour", "predicted_at").alias(HOUR)

    def inputs(batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        return watched_values(use_case, logged_inputs(use_case, batch["request"], batch["features"]))

    def given(text: str) -> set[str]:
        """The watched features that a version was given whose record has the features `text`."""
        names = {
            *json.loads(text),
            *(item.name for item in use_case.inputs if item.request_field is not None),
        }
        return {name for name, needs in watched_inputs(use_case).items() if needs <= names}

    def prediction(batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        return {PREDICTION: logged_answers(use_case, batch[COLUMN])}

    features = (
        answered.where(F.col("variant") != variants.SHADOW)
        .select(hour, "request", "features", "version")
        .mapInArrow(_counter([one.cells for one in profile.features], inputs, given), _SCHEMA)
    )
    predictions = (
        answered.where(F.col("version") == version)
        .select(hour, COLUMN)
        .mapInArrow(_counter([profile.prediction.cells], prediction, None), _SCHEMA)
    )
    requests = rows.where(F.col("variant") != variants.SHADOW).select(
        hour,
        F.lit(REQUESTS).alias(FEATURE),
        F.when(F.col("error").isNull(), ANSWERED).otherwise(FAILED).alias(CELL),
        F.lit(1).cast("long").alias(ROWS),
    )
    counted = features.unionByName(predictions).unionByName(requests)
    return counted.groupBy(HOUR, FEATURE, CELL).agg(F.sum(ROWS).alias(ROWS))


def _counter(
    every: Sequence[Cells],
    values_of: Callable[[pa.RecordBatch], Mapping[str, np.ndarray]],
    given: Callable[[str], set[str]] | None,
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Counts each batch's values by hour and cell; of `given` features alone, version by version.

    What an older version was never given is not missing, and what the spec no longer has is not counted.
    """

    def counted(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for whole in batches:
            for batch in [whole] if given is None else _by_version(whole):
                if not batch.num_rows:
                    continue
                values, hour = values_of(batch), batch[HOUR].cast(pa.int64()).to_numpy()
                names = set(values) if given is None else given(batch["features"][0].as_py())
                for cells in every:
                    if cells.feature not in names:
                        continue
                    hours, counts = cells.count_by(hour, values[cells.feature])
                    at, cell = counts.nonzero()
                    yield pa.RecordBatch.from_arrays(
                        [
                            pa.array(hours[at], pa.timestamp("us", tz="UTC")),
                            pa.array([cells.feature] * len(at), pa.string()),
                            pa.array(cell, pa.int32()),
                            pa.array(counts[at, cell], pa.int64()),
                        ],
                        names=[HOUR, FEATURE, CELL, ROWS],
                    )

    return counted


def _by_version(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    versions = batch["version"].to_numpy()
    for version in np.unique(versions):
        yield batch.filter(pa.array(versions == version))


def count_needed(
    settings: Settings, spec: UseCase, profile: Profile, version: int, span: Interval
) -> CountedPredictions:
    """Count, for the version of `profile`, what the windows that end in `span` need and is not counted yet.

    A longer span than an hour is counted again whole: somebody asked for it, after records landed late, say.
    Safe to repeat and to kill: hours are replaced, all in one commit.
    """
    catalog = open_catalog(settings)
    asked = needed(spec.monitoring, span)
    again = 24 if span.end.hour == 0 else COUNTED_AGAIN
    since = min([*uncounted(catalog, spec, profile.run_id, asked), span.end - again * ONE_HOUR])
    if span.end - span.start > ONE_HOUR:
        since = asked.start
    hours = Interval(since, span.end)
    spark = open_session(settings, f"{spec.name} monitoring {span.end:%Y-%m-%dT%H}")
    rows = pa.table({HOUR: [], FEATURE: [], CELL: [], ROWS: []})
    if spark.catalog.tableExists(record.TABLE):
        rows = count(spark, spec, profile, version, hours).toArrow()
    written = replace_hours(catalog, spec, profile.run_id, hours, rows)
    log.info("%s to %s counted for version %d: %d rows", *hours, version, written)
    return CountedPredictions(
        table=table_name(spec),
        run_id=profile.run_id,
        start=hours.start.isoformat(),
        end=hours.end.isoformat(),
        hours=hours.hours,
        rows=written,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> CountedPredictions:
        spec, span = use_case(arguments.use_case), whole_hours_past(interval_of(arguments, whole_days=False))
        profile = kept_profile(settings, spec.name, arguments.run_id)
        return count_needed(settings, spec, profile, arguments.version, span)

    parser = job_parser(__doc__)
    parser.add_argument("--version", type=int, required=True, help="the version that is watched")
    parser.add_argument("--run-id", required=True, help="the MLflow run that made it")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
