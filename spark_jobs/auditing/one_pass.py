"""A Great Expectations engine that answers a whole suite with one pass over the rows.

Belongs here: what can be measured in that pass, and the engine that makes Great Expectations use it. Does not
belong here: any expectation (`expectations`), or which tables have which (the use case's spec).

Great Expectations bundles what it can into one aggregation, with two sums or more for each expectation: for
40 expectations that code outgrows what the JVM compiles, and uniqueness, distributions and days cost a job
each.
Here every row is reduced to a few small numbers: one bit for each condition that it breaks, the days or hours
that it belongs to, and, for a sample, its key and its values. Rows that agree in all of them fall into one
cell, `GROUP BY` counts the cells, and every answer is a sum over cells, made on the driver.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from great_expectations.execution_engine import SparkDFExecutionEngine
from great_expectations.validator.computed_metric import MetricValue
from great_expectations.validator.metric_configuration import MetricConfiguration
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

BITS = 60
"""Conditions that share one number."""
SAMPLE_ROWS = 1 << 16
"""About as many rows are sampled for values at most; fewer rows than this are all in the sample."""
EXACT_ROWS = 1_000_000
"""Up to here every key is compared with every other; above, all keys of the sampled slice are."""


@dataclass(frozen=True)
class Rows:
    """How many rows there are."""


@dataclass(frozen=True, eq=False)
class Where:
    """How many rows meet `condition` (a null does not)."""

    condition: Column


@dataclass(frozen=True)
class By:
    """How many rows have each value of the whole number `expression` (SQL), of which there are few."""

    expression: str


@dataclass(frozen=True)
class Sampled:
    """How many rows of the sample have each value of `expression` (SQL), nulls too."""

    expression: str


@dataclass(frozen=True)
class Repeats:
    """How many rows repeat the `key` of another."""

    key: tuple[str, ...]


@dataclass(frozen=True)
class Newest:
    """The greatest timestamp in `column`, in microseconds since the epoch; None without any."""

    column: str


Measure = Rows | Where | By | Sampled | Repeats | Newest


@dataclass(frozen=True)
class Slice:
    """Which rows are sampled: those whose hashed key falls into slice `index` of `count`.

    All copies of a key fall into one slice, so that repeats within the sample are real ones and none is
    missed there; `index` comes from the interval, so that reruns agree and other intervals look elsewhere.
    """

    count: int = 1
    index: int = 0

    def holds(self, hashed: Column) -> Column:
        """Whether the row with the `hashed` key is in the slice."""
        if self.count == 1:
            return F.lit(True)
        return F.pmod(hashed, F.lit(self.count)) == self.index


def slice_for(rows: int, seed: str) -> Slice:
    """The slice that leaves about `SAMPLE_ROWS` of so many `rows`."""
    count = max(1, -(-rows // SAMPLE_ROWS))
    return Slice(count, zlib.crc32(seed.encode()) % count)


def measure(rows: DataFrame, wanted: Sequence[Measure], sampled: Slice) -> list[Any]:
    """The values of `wanted`, in order, from one pass over `rows`."""
    conditions = [item for item in wanted if isinstance(item, Where)]
    codes = list(dict.fromkeys(item.expression for item in wanted if isinstance(item, By)))
    values = list(dict.fromkeys(item.expression for item in wanted if isinstance(item, Sampled)))
    keys = list(dict.fromkeys(item.key for item in wanted if isinstance(item, Repeats)))
    newest = list(dict.fromkeys(item.column for item in wanted if isinstance(item, Newest)))

    columns = [
        _bits([condition.condition for condition in conditions[first : first + BITS]]).alias(f"bits{first}")
        for first in range(0, len(conditions), BITS)
    ]
    columns += [F.expr(code).cast("long").alias(f"code{n}") for n, code in enumerate(codes)]
    hashes = [F.xxhash64(*(F.col(name) for name in key)) for key in keys]
    columns += [F.when(sampled.holds(hashed), hashed).alias(f"key{n}") for n, hashed in enumerate(hashes)]
    if values:
        by = hashes[0] if hashes else F.xxhash64(*(F.col(name) for name in rows.columns))
        columns += [
            F.when(sampled.holds(by), F.expr(value)).alias(f"value{n}") for n, value in enumerate(values)
        ]
        columns.append(sampled.holds(by).alias("sampled"))
    counted = [F.count(F.lit(1)).alias("rows")]
    counted += [F.max(F.unix_micros(F.col(name))).alias(f"newest{n}") for n, name in enumerate(newest)]
    cells = (rows.groupBy(*columns) if columns else rows).agg(*counted).toArrow()

    weights = cells["rows"]
    total = pc.sum(weights).as_py() or 0

    def answer(item: Measure) -> Any:
        match item:
            case Rows():
                return total
            case Where():
                word, bit = divmod(conditions.index(item), BITS)
                hit = pc.bit_wise_and(cells[f"bits{word * BITS}"], pa.scalar(1 << bit, pa.int64()))
                return pc.sum(pc.if_else(pc.not_equal(hit, 0), weights, 0)).as_py() or 0
            case By():
                return _tally(cells, f"code{codes.index(item.expression)}")
            case Sampled():
                chosen = cells.filter(cells["sampled"])
                return _tally(chosen, f"value{values.index(item.expression)}")
            case Repeats():
                if sampled.count > 1 and total <= EXACT_ROWS:
                    return _all_repeats(rows, item.key)
                found = _tally(cells, f"key{keys.index(item.key)}")
                found.pop(None, None)
                return sum(count - 1 for count in found.values())
            case Newest():
                return pc.max(cells[f"newest{newest.index(item.column)}"]).as_py()

    return [answer(item) for item in wanted]


def _bits(conditions: Sequence[Column]) -> Column:
    """A number with bit n set where condition n holds."""
    parts = [
        F.when(condition, F.lit(1 << n).cast("long")).otherwise(F.lit(0).cast("long"))
        for n, condition in enumerate(conditions)
    ]
    return reduce(lambda one, other: one.bitwiseOR(other), parts)


def _tally(cells: pa.Table, column: str) -> Counter[Hashable]:
    """Rows by value of `column`, over the cells."""
    grouped = cells.select([column, "rows"]).group_by(column).aggregate([("rows", "sum")])
    return Counter(dict(zip(grouped[column].to_pylist(), grouped["rows_sum"].to_pylist(), strict=True)))


def _all_repeats(rows: DataFrame, key: tuple[str, ...]) -> int:
    """Rows beyond the first of their key, over all of them: a pass of its own."""
    hashed = rows.groupBy(F.xxhash64(*(F.col(name) for name in key)).alias("key")).count()
    found = hashed.where("count > 1").agg(F.sum(F.col("count") - 1)).collect()[0][0]
    return found or 0


class OnePassEngine(SparkDFExecutionEngine):
    """Answers what a suite asks for in one pass; what is no `Measure` goes to Great Expectations' own way."""

    def __init__(self, *, sampled: Slice = Slice(), **options: Any) -> None:
        # Great Expectations would otherwise cache the whole batch, which costs more than the pass.
        super().__init__(persist=False, **options)
        self.sampled = sampled
        self.conditions: dict[Any, Column] = {}
        """What a row meets when it breaks an expectation, by the id of the metric that counts such rows."""

    def resolve_metrics(
        self,
        metrics_to_resolve: Iterable[MetricConfiguration],
        metrics: dict[Any, MetricValue] | None = None,
        runtime_configuration: dict[str, Any] | None = None,
    ) -> dict[Any, MetricValue]:
        """See the base class. The pass waits until everything that it can answer has been asked."""
        asked = list(metrics_to_resolve)
        # Values that break an expectation cost a job each, and most have none: they are read where it failed.
        values = [metric for metric in asked if metric.metric_name.endswith(".unexpected_values")]
        asked = [metric for metric in asked if metric not in values]
        direct = [metric for metric in asked if "metric_partial_fn" not in metric.metric_dependencies]
        resolved = dict(
            super().resolve_metrics(direct or asked, metrics, runtime_configuration) if asked else {}
        )
        resolved |= {metric.id: [] for metric in values}
        for metric in direct:
            if metric.metric_name.endswith(".aggregate_fn"):
                resolved[metric.id] = self._as_measure(metric, resolved[metric.id], metrics or {})
        return resolved

    def _as_measure(self, metric: MetricConfiguration, value: Any, metrics: Mapping[Any, Any]) -> Any:
        """The partial metric `value` (what, where, accessors), its first part a `Measure` where one fits."""
        condition = metric.metric_dependencies.get("unexpected_condition")
        if condition is not None and metric.metric_name.endswith(".unexpected_count.aggregate_fn"):
            breaks = metrics[condition.id][0]
            self.conditions[(metric.metric_name.removesuffix(".aggregate_fn"), *metric.id[1:])] = breaks
            return Where(breaks), *value[1:]
        if metric.metric_name == "table.row_count.aggregate_fn":
            return Rows(), *value[1:]
        return value

    def resolve_metric_bundle(self, metric_fn_bundle: Iterable[Any]) -> dict[Any, MetricValue]:
        """See the base class."""
        bundle = list(metric_fn_bundle)
        ours = [item for item in bundle if isinstance(item.metric_fn, Measure)]
        domains: dict[Any, list[Any]] = {}
        for item in ours:
            domains.setdefault(_domain(item.compute_domain_kwargs), []).append(item)
        theirs = [item for item in bundle if not isinstance(item.metric_fn, Measure)]
        resolved = super().resolve_metric_bundle(theirs)
        for items in domains.values():
            rows = self.get_domain_records(items[0].compute_domain_kwargs)
            found = measure(rows, [item.metric_fn for item in items], self.sampled)
            resolved |= {
                item.metric_configuration.id: value for item, value in zip(items, found, strict=True)
            }
        return resolved


def _domain(kwargs: Mapping[str, Any]) -> str:
    """What tells which rows are meant; the column is an accessor, not part of it."""
    return repr(sorted((k, repr(v)) for k, v in kwargs.items() if v is not None and k != "column"))
