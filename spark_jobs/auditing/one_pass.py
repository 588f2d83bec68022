"""A Great Expectations engine that answers a whole suite with one pass over the rows.

Belongs here: what can be measured in that pass, and the engine that makes Great Expectations use it. Does not
belong here: any expectation (`expectations`), or which tables have which (the use case's spec).

Great Expectations bundles what it can into one aggregation, with two sums or more for each expectation: for
40 expectations that code outgrows what the JVM compiles, and uniqueness, distributions and days cost a job
each.
Here every row is reduced to a few small numbers: one bit for each condition that it breaks, the days or hours
that it belongs to, and, for a sample, its keys and the columns that its values come from. Rows that agree in
all of them fall into one cell, `GROUP BY` counts the cells, and every answer is a sum over cells, made on the
driver.
"""

from __future__ import annotations

import operator
import zlib
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from great_expectations.core.metric_function_types import MetricPartialFunctionTypeSuffixes
from great_expectations.exceptions import MetricResolutionError
from great_expectations.execution_engine import SparkDFExecutionEngine
from great_expectations.validator.computed_metric import MetricValue
from great_expectations.validator.metric_configuration import MetricConfiguration
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

BITS = 60
"""How many bits of conditions share one number."""
COMPILED_BYTES = 8000
"""HotSpot interprets methods of more bytecode than this, which makes a pass several times slower."""
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
class Tested:
    """How many rows break `condition` (SQL), and for how many it is not null."""

    condition: str


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


Measure = Rows | Where | Tested | By | Sampled | Repeats | Newest


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


def measure(
    rows: DataFrame, wanted: Sequence[Measure], sampled: Slice, key: tuple[str, ...] = ()
) -> list[Any]:
    """The values of `wanted`, in order, from one pass over `rows`.

    Values are sampled by `key`, or else the first key of `wanted`, or else whole rows.
    """
    flags = _places([item for item in wanted if isinstance(item, Where | Tested)])
    codes = list(dict.fromkeys(item.expression for item in wanted if isinstance(item, By)))
    values = list(dict.fromkeys(item.expression for item in wanted if isinstance(item, Sampled)))
    keys = list(dict.fromkeys(item.key for item in wanted if isinstance(item, Repeats)))
    newest = list(dict.fromkeys(item.column for item in wanted if isinstance(item, Newest)))

    words: dict[int, list[Column]] = {}
    for item, (word, bit) in flags.items():
        words.setdefault(word, []).append(_flag(item, bit))
    parts = [reduce(Column.bitwiseOR, bits).alias(f"__word{word}") for word, bits in words.items()]
    parts += [F.expr(code).cast("long").alias(f"__code{n}") for n, code in enumerate(codes)]
    shown = [F.col(f"__word{word}") for word in words] + [F.col(f"__code{n}") for n in range(len(codes))]
    if keys or values:
        by = key or (keys[0] if keys else tuple(rows.columns))
        parts.append(_sample(rows, keys, values, by, sampled).alias("__sample"))
        shown += [F.col(f"__sample.__key{n}") for n in range(len(keys))]
        shown.append(F.col("__sample.__chosen"))
    counted = [F.count(F.lit(1)).alias("__rows")]
    counted += [F.max(F.unix_micros(F.col(name))).alias(f"__newest{n}") for n, name in enumerate(newest)]
    shown += [F.col("__rows"), *(F.col(f"__newest{n}") for n in range(len(newest)))]
    grouped = (rows.groupBy(*parts) if parts else rows).agg(*counted)
    if values:
        # Of the cells, not the rows: few are sampled, and code for the others' values slows the pass down.
        grouped = grouped.select("*", "__sample.*")
        shown += [F.expr(value).alias(f"__value{n}") for n, value in enumerate(values)]
    with _compiled(rows.sparkSession):
        cells = grouped.select(*shown).toArrow()

    weights = cells["__rows"]
    total = pc.sum(weights).as_py() or 0

    def with_bit(item: Where | Tested, offset: int) -> int:
        word, bit = flags[item]
        hit = pc.bit_wise_and(cells[f"__word{word}"], pa.scalar(1 << (bit + offset), pa.int64()))
        return pc.sum(pc.if_else(pc.not_equal(hit, 0), weights, 0)).as_py() or 0

    def answer(item: Measure) -> Any:
        match item:
            case Rows():
                return total
            case Where():
                return with_bit(item, 0)
            case Tested():
                return with_bit(item, 1), total - with_bit(item, 0)
            case By():
                return _tally(cells, f"__code{codes.index(item.expression)}")
            case Sampled():
                chosen = cells.filter(cells["__chosen"])
                return _tally(chosen, f"__value{values.index(item.expression)}")
            case Repeats():
                if sampled.count > 1 and total <= EXACT_ROWS:
                    return _all_repeats(rows, item.key)
                found = _tally(cells, f"__key{keys.index(item.key)}")
                found.pop(None, None)
                return sum(count - 1 for count in found.values())
            case Newest():
                return pc.max(cells[f"__newest{newest.index(item.column)}"]).as_py()

    return [answer(item) for item in wanted]


def _places(items: Iterable[Where | Tested]) -> dict[Where | Tested, tuple[int, int]]:
    """For each item the number that it shares, and its first bit there."""
    places: dict[Where | Tested, tuple[int, int]] = {}
    word = bit = 0
    for item in dict.fromkeys(items):
        width = 2 if isinstance(item, Tested) else 1
        if bit + width > BITS:
            word, bit = word + 1, 0
        places[item] = (word, bit)
        bit += width
    return places


def _flag(item: Where | Tested, bit: int) -> Column:
    """What a row adds to its number: `bit` where it meets `Where`; for `Tested`, `bit` where the condition is
    null, and the next one where it is broken."""
    nothing, first, second = (F.lit(number).cast("long") for number in (0, 1 << bit, 2 << bit))
    if isinstance(item, Where):
        return F.when(item.condition, first).otherwise(nothing)
    condition = F.expr(item.condition)
    return F.when(condition, nothing).when(condition.isNull(), first).otherwise(second)


def _sample(
    rows: DataFrame,
    keys: Sequence[tuple[str, ...]],
    values: Sequence[str],
    by: tuple[str, ...],
    sampled: Slice,
) -> Column:
    """What is kept of a row that is in the sample of one of `keys`, or of `by`; null for any other.

    All in one column: a wide `GROUP BY` costs every row more than these columns cost the few.
    """
    hashed = {key: F.xxhash64(*(F.col(name) for name in key)) for key in (*keys, by)}
    held = {key: sampled.holds(number) for key, number in hashed.items()}
    text = " ".join(values).lower()
    kept = F.struct(
        *(F.when(held[key], hashed[key]).alias(f"__key{n}") for n, key in enumerate(keys)),
        held[by].alias("__chosen"),
        *(F.col(name) for name in rows.columns if name.lower() in text),
    )
    return F.when(reduce(operator.or_, held.values()), kept)


@contextmanager
def _compiled(spark: SparkSession) -> Iterator[None]:
    """Have Spark split what HotSpot would not compile as a whole."""
    name = "spark.sql.codegen.hugeMethodLimit"
    before = spark.conf.get(name)
    spark.conf.set(name, str(COMPILED_BYTES))
    try:
        yield
    finally:
        spark.conf.set(name, before)


def _tally(cells: pa.Table, column: str) -> Counter[Hashable]:
    """Rows by value of `column`, over the cells."""
    grouped = cells.select([column, "__rows"]).group_by(column).aggregate([("__rows", "sum")])
    return Counter(dict(zip(grouped[column].to_pylist(), grouped["__rows_sum"].to_pylist(), strict=True)))


def _all_repeats(rows: DataFrame, key: tuple[str, ...]) -> int:
    """Rows beyond the first of their key, over all of them: a pass of its own."""
    hashed = rows.groupBy(F.xxhash64(*(F.col(name) for name in key)).alias("key")).count()
    found = hashed.where("count > 1").agg(F.sum(F.col("count") - 1)).collect()[0][0]
    return found or 0


NOT_COUNTED: Final = object()
"""Stands for the number of rows until the pass has counted them; no arithmetic takes it."""
ROW_COUNT: Final = "table.row_count"
EXPRESSIONS: Final = tuple(f".{suffix.value}" for suffix in MetricPartialFunctionTypeSuffixes)
"""What the names of metrics end with that are a part of a query, not a value."""


class OnePassEngine(SparkDFExecutionEngine):
    """Answers what a suite asks for in one pass; what is no `Measure` goes to Great Expectations' own way."""

    def __init__(self, *, sampled: Slice = Slice(), **options: Any) -> None:
        # Great Expectations would otherwise cache the whole batch, which costs more than the pass.
        super().__init__(persist=False, **options)
        self.sampled = sampled
        self.conditions: dict[Any, Column] = {}
        """What a row meets when it breaks an expectation, by the id of the metric that counts such rows."""
        self._promised: list[MetricConfiguration] = []
        self._answers: dict[Any, Any] = {}

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
        resolved: dict[Any, MetricValue] = {metric.id: [] for metric in values}
        direct = [metric for metric in asked if "metric_partial_fn" not in metric.metric_dependencies]
        bundled = [metric for metric in asked if metric not in direct]
        if direct and not any(map(self._waits_for_count, direct)):
            resolved |= super().resolve_metrics(direct, metrics, runtime_configuration)
            for metric in direct:
                if metric.metric_name.endswith(".aggregate_fn"):
                    resolved[metric.id] = self._as_measure(metric, resolved[metric.id], metrics or {})
            return resolved
        # Conditions on columns wait for the number of rows and make no use of it: counting first would be a
        # pass of its own. The last call comes with nothing left to ask, so the promise is always kept.
        counts = [metric for metric in bundled if metric.metric_name == ROW_COUNT]
        if counts and not direct:
            self._promised += counts
            return resolved | {metric.id: NOT_COUNTED for metric in counts}
        bundled += self._promised
        if bundled:
            try:
                resolved |= super().resolve_metrics(bundled, metrics, runtime_configuration)
            except MetricResolutionError as error:
                raise self._first_of(error) from error
            self._promised = []
        return resolved

    def _first_of(self, error: MetricResolutionError) -> MetricResolutionError:
        """`error` for the first metric that failed: together, all would get the last one's message."""
        for metric in error.failed_metrics:
            reason = self._answers.get(metric.id)
            if isinstance(reason, Exception):
                return MetricResolutionError(message=str(reason), failed_metrics=(metric,))
        return error

    def _waits_for_count(self, metric: MetricConfiguration) -> bool:
        """Whether `metric` is computed from a number of rows that is not counted yet."""
        promised = {count.id for count in self._promised}
        return not metric.metric_name.endswith(EXPRESSIONS) and any(
            other.id in promised for other in metric.metric_dependencies.values()
        )

    def _as_measure(self, metric: MetricConfiguration, value: Any, metrics: Mapping[Any, Any]) -> Any:
        """The partial metric `value` (what, where, accessors), its first part a `Measure` where one fits."""
        condition = metric.metric_dependencies.get("unexpected_condition")
        if condition is not None and metric.metric_name.endswith(".unexpected_count.aggregate_fn"):
            breaks = metrics[condition.id][0]
            self.conditions[(metric.metric_name.removesuffix(".aggregate_fn"), *metric.id[1:])] = breaks
            return Where(breaks), *value[1:]
        if metric.metric_name == f"{ROW_COUNT}.aggregate_fn":
            return Rows(), *value[1:]
        return value

    def resolve_metric_bundle(self, metric_fn_bundle: Iterable[Any]) -> dict[Any, MetricValue]:
        """See the base class."""
        bundle = list(metric_fn_bundle)
        ours = [item for item in bundle if isinstance(item.metric_fn, Measure)]
        domains: dict[Any, list[Any]] = {}
        # In an order of their own, so that the next audit's query is the same and compiled already.
        for item in sorted(ours, key=lambda item: repr(item.metric_configuration.id)):
            if item.metric_configuration.id not in self._answers:
                domains.setdefault(_domain(item.compute_domain_kwargs), []).append(item)
        for items in domains.values():
            self._answer(self.get_domain_records(items[0].compute_domain_kwargs), items)
        resolved = {}
        for item in ours:
            answer = self._answers[item.metric_configuration.id]
            if isinstance(answer, Exception):
                raise answer
            resolved[item.metric_configuration.id] = answer
        return resolved | super().resolve_metric_bundle([item for item in bundle if item not in ours])

    def _answer(self, rows: DataFrame, items: Sequence[Any]) -> None:
        """Measure `items`, or keep the error of each that cannot be.

        Great Expectations would then ask for every item by itself, three times. Halving finds the one among
        forty in a few passes, and nothing is asked twice.
        """
        try:
            found = measure(rows, [item.metric_fn for item in items], self.sampled)
        except Exception as error:
            if len(items) == 1:
                self._answers[items[0].metric_configuration.id] = error
                return
            middle = len(items) // 2
            self._answer(rows, items[:middle])
            self._answer(rows, items[middle:])
            return
        for item, value in zip(items, found, strict=True):
            self._answers[item.metric_configuration.id] = value


def _domain(kwargs: Mapping[str, Any]) -> str:
    """What tells which rows are meant; the column is an accessor, not part of it."""
    return repr(sorted((k, repr(v)) for k, v in kwargs.items() if v is not None and k != "column"))
