"""Labels: what became of the events of past days, for predictions to be joined to.

Belongs here: the table of labels, and the name of a row's event. Does not belong here: which events have a
label (the use case's `examples`), or the join (`airloop.prediction_log.labels`).

A label belongs to the day of its prediction time, and is written once it is mature: by the run whose interval
ends `matures_after` later. What an event is called is what the gateway calls it in the prediction log.
"""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.dotted import load
from airloop.intervals import Interval
from airloop.lakehouse.provenance import signature
from airloop.prediction_log.labels import table_name
from airloop.references import TableSnapshot
from airloop.use_cases.spec import UseCase
from spark_jobs.history import EVENT_TIMESTAMP, clean_history
from spark_jobs.request_columns import event_column, label_number, request_column
from spark_jobs.tables import ensure_table, fast_forward, write_aside


def build_labels(spark: SparkSession, spec: UseCase, interval: Interval, branch: str) -> TableSnapshot:
    """Replace the labels that mature in `interval`, by way of `branch`."""
    mature = spec.label.matures_after
    span = Interval(interval.start - mature, interval.end - mature)
    clean = clean_history(spark, spec, Interval(span.start, interval.end))
    rows = labels(load(spec.transform).examples(clean, span, spec.prediction_lead), spec)
    table = table_name(spec)
    ensure_table(spark, table, rows, "prediction_time")
    write_aside(spark, rows, table, "prediction_time", span, branch, signature(spec.name, span))
    return fast_forward(spark, table, branch)


def labels(examples: DataFrame, spec: UseCase) -> DataFrame:
    """`event`, `prediction_time`, `label`, `outcome` (null where the spec has none) and `request`."""
    outcome = spec.label.outcome
    return examples.select(
        event_column(spec).alias("event"),
        F.col(EVENT_TIMESTAMP).alias("prediction_time"),
        label_number(spec.label).alias("label"),
        (F.col(outcome.name) if outcome else F.lit(None)).cast("double").alias("outcome"),
        request_column(spec).alias("request"),
    )
