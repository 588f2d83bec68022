"""Job: how good a version's answers were, hour by hour and slice by slice, as far as labels are in.

    python -m spark_jobs.count_scores --use-case NAME --version 3 --run-id ... --start ... --end ...

Belongs here: joining the prediction log to labels on Spark, and adding up. Does not belong here: the sums
themselves (`airloop.monitoring.scores`), or what they say (`airloop.monitoring.decay`).

A label is what a client told of a request, or else what the lakehouse knows of its event. A request id that
was used for several requests names none of them, and two events of one name with different labels have none:
as in a rollout (`serving.observations`).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from airloop.intervals import ONE_DAY, ONE_HOUR, Interval, whole_hours_past
from airloop.jobs import run_job
from airloop.lakehouse.catalog import open_catalog
from airloop.monitoring import judge_quality
from airloop.monitoring.logged import logged_inputs
from airloop.monitoring.profile import Profile, kept_profile
from airloop.monitoring.score_table import counted_labels, days_needed, replace_scores, table_name
from airloop.monitoring.scores import EVERYTHING, Scores, scoring_of
from airloop.prediction_log import labels, outcome, record, variants
from airloop.prediction_log.answers import COLUMN, numbers_of
from airloop.references import CountedScores
from airloop.settings import Settings
from airloop.training.slices import slices_of
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from spark_jobs.arguments import interval_of, job_parser
from spark_jobs.session import open_session
from spark_jobs.tables import within

log = logging.getLogger(__name__)

_REQUEST = ["request_id", "instance"]


def count_scores(
    spark: SparkSession, spec: UseCase, profile: Profile, version: int, span: Interval
) -> DataFrame:
    """Rows of `hour`, `slice` (all answers, and each of the spec's slices), `cell` and the sums."""
    rows = answers_with_labels(spark, spec, version, span)
    target = spec.label.target
    scoring = scoring_of(target)

    def added(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if not batch.num_rows:
                continue
            hours = batch["hour"].cast(pa.int64()).to_numpy()
            answers = numbers_of(batch[COLUMN], target)
            known = batch["label"].cast(pa.float64()).to_numpy(zero_copy_only=False)
            columns = logged_inputs(spec, batch["request"], batch["features"])
            parts = [(EVERYTHING, np.ones(batch.num_rows, bool))]
            parts += [(part.name, part.rows) for part in slices_of(spec, columns)]
            for hour in np.unique(hours):
                for name, inside in parts:
                    rows = np.flatnonzero(inside & (hours == hour))
                    if len(rows):
                        yield _batch(
                            int(hour), name, scoring.scores_of(answers[rows], known[rows], profile.usual)
                        )

    sums = ", ".join(f"{name} double" for name in scoring.sums)
    partial = rows.mapInArrow(added, f"hour timestamp, slice string, cell int, {sums}")
    return partial.groupBy("hour", "slice", "cell").agg(*(F.sum(name).alias(name) for name in scoring.sums))


def answers_with_labels(spark: SparkSession, spec: UseCase, version: int, span: Interval) -> DataFrame:
    """`hour`, `answer`, `request`, `features` and `label` (null where none is known) of each answer.

    Of a day's answers about one event the last: a flight that is asked about a hundred times has one outcome,
    and not a hundred independent ones.
    """
    day_before = Interval(span.start - ONE_DAY, span.end)
    asked = spark.table(record.TABLE).where(
        within("predicted_at", day_before)
        & (F.col("use_case") == spec.name)
        & F.col("error").isNull()
        & (F.size(COLUMN) == len(spec.label.target.answers))
        & (F.col("variant") != variants.SHADOW)
    )
    day = F.date_trunc("day", "predicted_at")
    about = F.coalesce("event", F.concat_ws("/", "request_id", "instance"))
    last = Window.partitionBy(about, day).orderBy(F.col("predicted_at").desc(), "writer", "sequence")
    uses = F.count("*").over(Window.partitionBy(*_REQUEST))
    of_version = asked.withColumn("_uses", uses).where(
        within("predicted_at", span) & (F.col("version") == version)
    )
    answers = (
        of_version.withColumn("_place", F.row_number().over(last))
        .where("_place = 1")
        .select(
            *_REQUEST,
            F.date_trunc("hour", "predicted_at").alias("hour"),
            *(COLUMN, "request", "features", "event", "_uses"),
        )
    )
    told = _told(spark, spec, span)
    known = _known(spark, spec)
    joined = answers.join(told, _REQUEST, "left").join(known, "event", "left")
    label = F.coalesce(F.when(F.col("_uses") == 1, F.col("_told")), F.col("_known"))
    return joined.select("hour", COLUMN, "request", "features", label.alias("label"))


def _told(spark: SparkSession, spec: UseCase, span: Interval) -> DataFrame:
    """The label that was told last of each request."""
    if not spark.catalog.tableExists(outcome.TABLE):
        return spark.createDataFrame([], "request_id string, instance int, _told double")
    rows = spark.table(outcome.TABLE).where(
        (F.col("use_case") == spec.name) & (F.col("received_at") >= F.lit(span.start.isoformat()))
    )
    order = F.struct("received_at", "writer", "sequence")
    return rows.groupBy(*_REQUEST).agg(F.max_by("label", order).alias("_told"))


def _known(spark: SparkSession, spec: UseCase) -> DataFrame:
    """The lakehouse's label of each event."""
    name = labels.table_name(spec)
    if not spark.catalog.tableExists(name):
        return spark.createDataFrame([], "event string, _known double")
    found = (
        spark.table(name).groupBy("event").agg(F.min("label").alias("_known"), F.max("label").alias("_most"))
    )
    return found.where("_known = _most").drop("_most")


def _batch(hour: int, name: str, scores: Scores) -> pa.RecordBatch:
    """The cells that have answers."""
    cells = np.flatnonzero(scores["answers"])
    return pa.RecordBatch.from_arrays(
        [
            pa.array([hour] * len(cells), pa.timestamp("us", tz="UTC")),
            pa.array([name] * len(cells), pa.string()),
            pa.array(cells, pa.int32()),
            *(pa.array(sums[cells], pa.float64()) for sums in scores.sums.values()),
        ],
        names=["hour", "slice", "cell", *scores.sums],
    )


def count_and_keep(
    settings: Settings, spec: UseCase, profile: Profile, version: int, asked: Interval
) -> CountedScores:
    """Count the days whose labels may have come in during `asked`, in place of what the table had of them.

    Skipped where no label came in since they were counted last, but not for a longer span than an hour: who
    asks for one wants it done again.
    """
    catalog, span = open_catalog(settings), days_needed(spec, asked)
    counted = f"version {version} until {span.end:%Y-%m-%d}: {_labels_now(catalog, spec)}"
    # By both: where days could not be judged, they are still to be.
    done = {counted_labels(catalog, name) for name in (table_name(spec), judge_quality.table_name(spec))}
    if asked.end - asked.start <= ONE_HOUR and done == {counted}:
        return CountedScores(skipped=f"no label came in since {counted}")
    spark = open_session(settings, f"{spec.name} scores {span.end:%Y-%m-%d}")
    if not spark.catalog.tableExists(record.TABLE):
        return CountedScores(skipped="nothing was ever predicted: there is no log to join labels to")
    found = count_scores(spark, spec, profile, version, span).toArrow()
    written = replace_scores(catalog, spec, version, span, found, counted)
    log.info("%s to %s: scores of version %d, %d rows", *span, version, written)
    return CountedScores(
        table=table_name(spec),
        start=span.start.isoformat(),
        end=span.end.isoformat(),
        hours=span.hours,
        rows=written,
    )


def _labels_now(catalog: Catalog, spec: UseCase) -> str:
    """The snapshots of the tables that labels come from."""
    found = []
    for name in (labels.table_name(spec), outcome.TABLE):
        snapshot = catalog.load_table(name).current_snapshot() if catalog.table_exists(name) else None
        found.append(f"{name} {snapshot.snapshot_id if snapshot else 'empty'}")
    return ", ".join(found)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> CountedScores:
        spec, span = use_case(arguments.use_case), whole_hours_past(interval_of(arguments, whole_days=False))
        profile = kept_profile(settings, spec.name, arguments.run_id)
        return count_and_keep(settings, spec, profile, arguments.version, span)

    parser = job_parser(__doc__)
    parser.add_argument("--version", type=int, required=True, help="the version that is watched")
    parser.add_argument("--run-id", required=True, help="its MLflow run")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
