"""How served requests and their answers were spread over a profile's cells, hour by hour.

Belongs here: counting the prediction log on Spark. Does not belong here: the profile, or what counts say
(`airloop.monitoring`).

Counts add up: an hour is counted once, and any longer window is a sum of its hours. What comes back is as
small for a hundred million predictions as for a hundred: a row for each hour, feature and cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

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
    hour = F.date_trunc("hour", "predicted_at").alias(HOUR)
    asked = log.where(~F.col("variant").isin(variants.SHADOW) & F.col("error").isNull())
    cells = {one.cells.feature: one.cells for one in profile.features}
    features = asked.select(hour, "request", "features").mapInArrow(_counter(use_case, cells), _SCHEMA)
    answers = log.where((F.col("version") == version) & F.col("error").isNull())
    edges = F.array(*(F.lit(edge) for edge in profile.prediction.cells.edges))
    # The first cell whose edge is not below the answer, rounded as the profile's are.
    cell = F.size(F.filter(edges, lambda edge: edge < F.col("probability").cast("float").cast("double")))
    predictions = answers.select(
        hour,
        F.lit(PREDICTION).alias(FEATURE),
        cell.cast("int").alias(CELL),
        F.lit(1).cast("long").alias(ROWS),
    )
    return features.unionByName(predictions).groupBy(HOUR, FEATURE, CELL).agg(F.sum(ROWS).alias(ROWS))


def _counter(
    use_case: UseCase, cells: Mapping[str, Cells]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def counted(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            values = watched_values(use_case, logged_inputs(use_case, batch["request"], batch["features"]))
            hours, place = np.unique(batch[HOUR].cast(pa.int64()).to_numpy(), return_inverse=True)
            for name, one in cells.items():
                width = len(one.names)
                counts = np.bincount(place * width + one.places(values[name]), minlength=len(hours) * width)
                (used,) = counts.nonzero()
                yield pa.RecordBatch.from_arrays(
                    [
                        pa.array(hours[used // width], pa.timestamp("us", tz="UTC")),
                        pa.array([name] * len(used), pa.string()),
                        pa.array(used % width, pa.int32()),
                        pa.array(counts[used], pa.int64()),
                    ],
                    names=[HOUR, FEATURE, CELL, ROWS],
                )

    return counted
