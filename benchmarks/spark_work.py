"""What Spark did for a piece of work: jobs started, rows read from files.

Belongs here: that count, for benchmarks and tests. Does not belong here: any work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from pyspark.sql import SparkSession

T = TypeVar("T")


class Work(NamedTuple):
    """Spark jobs, and rows that they read."""

    jobs: int
    rows_read: int


def work_of(spark: SparkSession, work: Callable[[], T]) -> tuple[Work, T]:
    """What Spark does for `work`, and what that returns.

    Jobs of broadcasts are in groups of their own, so jobs are told from earlier ones by their numbers.
    """
    job_before, stage_before = _newest(spark)
    outcome = work()
    job_after, _ = _newest(spark)
    return Work(job_after - job_before, _rows_read_since(spark, stage_before)), outcome


# The status store is not in Spark Connect; jobs may not use it, a benchmark or test of a local session may.
# It lists the newest first and keeps only the last `spark.ui.retainedJobs` and `retainedStages`, so what it
# lists in all may be less after some work than before it.


def _newest(spark: SparkSession) -> tuple[int, int]:
    """Numbers of the newest job and stage, -1 before the first."""
    context = spark._jsc.sc()
    context.listenerBus().waitUntilEmpty()
    jobs = context.statusStore().jobsList(None)
    stages = _stages(spark)
    return (
        jobs.head().jobId() if jobs.nonEmpty() else -1,
        stages.head().stageId() if stages.nonEmpty() else -1,
    )


def _rows_read_since(spark: SparkSession, stage: int) -> int:
    stages = _stages(spark)
    read = 0
    for number in range(stages.size()):
        found = stages.apply(number)
        if found.stageId() <= stage:
            break
        read += found.inputRecords()
    return read


def _stages(spark: SparkSession) -> Any:
    no_quantiles = spark._sc._gateway.new_array(spark._jvm.double, 0)
    return spark._jsc.sc().statusStore().stageList(None, False, False, no_quantiles, None)
