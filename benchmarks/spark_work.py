"""What Spark did for a piece of work: jobs started, rows read from files.

Belongs here: that count, for benchmarks and tests. Does not belong here: any work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

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
    before = _done(spark)
    outcome = work()
    after = _done(spark)
    return Work(after.jobs - before.jobs, after.rows_read - before.rows_read), outcome


def _done(spark: SparkSession) -> Work:
    # Neither is in Spark Connect; jobs may not use it, a benchmark or test of a local session may.
    context = spark._jsc.sc()
    context.listenerBus().waitUntilEmpty()
    store = context.statusStore()
    stages = store.stageList(None, False, False, spark._sc._gateway.new_array(spark._jvm.double, 0), None)
    read = sum(stages.apply(number).inputRecords() for number in range(stages.size()))
    return Work(store.jobsList(None).size(), read)
