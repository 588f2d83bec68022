"""How served requests and their answers were spread over a profile's cells, hour by hour.

Belongs here: counting the prediction log on Spark. Does not belong here: the profile, or what counts say
(`airloop.monitoring`).

Counts add up: an hour is counted once, and any longer window is a sum of its hours. What comes back is as
small for a hundred million predictions as for a hundred: a row for each hour, feature and cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.intervals import Interval
from airloop.monitoring.cells import Cells
from airloop.monitoring.logged import logged_inputs
from airloop.monitoring.monitored import PREDICTION, watched_values
from airloop.monitoring.profile import Profile
from airloop.prediction_log import record, variants
from airloop.use_cases.spec import UseCase
from spark_jobs.tables import within

HOUR, FEATURE, CELL, ROWS = "hour", "feature", "cell", "rows"
_SCHEMA = f"{HOUR} timestamp, {FEATURE} string, {CELL} int, {ROWS} long"


def count(
    spark: SparkSession, use_case: UseCase, profile: Profile, version: int, span: Interval
) -> DataFrame:
    """Rows of `hour`, `feature`, `cell` (a number of the profile's) and `rows`, for the hours of `span`.

    Features are those of every request that a client made, whichever version answered: they are of the world.
    The prediction is that of `version` alone, a shadow's copies included: it is the model's.
    """
    log = spark.table(record.TABLE).where(within("predicted_at", span) & (F.col("use_case") == use_case.name))
    answered = log.where(F.col("error").isNull())
    hour = F.date_trunc("hour", "predicted_at").alias(HOUR)

    def inputs(batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        return watched_values(use_case, logged_inputs(use_case, batch["request"], batch["features"]))

    def prediction(batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        return {PREDICTION: batch["probability"].to_numpy(zero_copy_only=False)}

    features = (
        answered.where(F.col("variant") != variants.SHADOW)
        .select(hour, "request", "features")
        .mapInArrow(_counter([one.cells for one in profile.features], inputs), _SCHEMA)
    )
    predictions = (
        answered.where(F.col("version") == version)
        .select(hour, "probability")
        .mapInArrow(_counter([profile.prediction.cells], prediction), _SCHEMA)
    )
    return features.unionByName(predictions).groupBy(HOUR, FEATURE, CELL).agg(F.sum(ROWS).alias(ROWS))


def _counter(
    every: Sequence[Cells], values_of: Callable[[pa.RecordBatch], Mapping[str, np.ndarray]]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Counts each batch's values by hour and cell."""

    def counted(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            values, hour = values_of(batch), batch[HOUR].cast(pa.int64()).to_numpy()
            for cells in every:
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
