"""The expectations that Great Expectations lacks, each answered within the one pass over the rows.

Belongs here: what they ask for and when they hold. Does not belong here: how it is measured (`one_pass`), the
figures they compare with (`reference`), or which table has which (the use case's spec).

Their arguments name columns of the audited rows, or Spark SQL over them. An expectation that compares with
published history has its figures in `reference`; without any it holds, and says `NOT_JUDGED`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from statistics import NormalDist
from typing import Any, ClassVar, Final

from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.core.metric_function_types import MetricPartialFunctionTypes
from great_expectations.expectations.expectation import BatchExpectation
from great_expectations.expectations.metrics.metric_provider import metric_partial
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider

from spark_jobs.auditing.one_pass import By, Measure, Newest, OnePassEngine, Repeats, Sampled, Tested

NOT_JUDGED: Final = "not judged: no reference yet"
NOTHING_TO_JUDGE: Final = "not judged: null for every row"
OTHER: Final = "other"
"""The bin of values that are rare in the reference, or not in it."""
CHANCE: Final = 1e-4
"""How often sampling alone may carry a distribution over its threshold."""


def _metric(name: str, keys: tuple[str, ...], measure_of: Any) -> None:
    """Register the metric `name`: the `Measure` that `measure_of` makes of the arguments called `keys`."""

    def partial(
        cls: Any,
        execution_engine: OnePassEngine,
        metric_domain_kwargs: dict[str, Any],
        metric_value_kwargs: dict[str, Any],
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any],
    ) -> tuple[Measure, dict[str, Any], dict[str, Any]]:
        return measure_of(*(metric_value_kwargs[key] for key in keys)), metric_domain_kwargs, {}

    decorated = metric_partial(
        engine=OnePassEngine,
        partial_fn_type=MetricPartialFunctionTypes.AGGREGATE_FN,
        domain_type=MetricDomainTypes.TABLE,
    )(partial)
    type(
        f"Metric_{name}", (TableMetricProvider,), {"metric_name": name, "value_keys": keys, "_one": decorated}
    )


_metric("rows.tested", ("condition",), Tested)
_metric("rows.repeated", ("columns",), lambda columns: Repeats(tuple(columns)))
_metric("rows.by_code", ("code",), By)
_metric("rows.sampled", ("expression",), Sampled)
_metric("rows.newest", ("column",), Newest)


class _OnePass(BatchExpectation):
    """Base: what all of them share with Great Expectations."""

    domain_keys: ClassVar[tuple[str, ...]] = ("batch_id",)

    def _outcome(self, success: bool, observed: Any, **details: Any) -> dict[str, Any]:
        return {"success": success, "result": {"observed_value": observed, **details}}


class ExpectRowsToSatisfy(_OnePass):
    """Of the rows for which `condition` (SQL) is not null, at least the share `mostly` meets it."""

    condition: str
    mostly: float = 1.0
    metric_dependencies = ("rows.tested",)
    success_keys = ("condition", "mostly")

    def _validate(self, metrics: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        breaking, judged = metrics["rows.tested"]
        share = 1 - breaking / judged if judged else None
        observed = NOTHING_TO_JUDGE if share is None else f"{breaking} of {judged} rows break it"
        return self._outcome(
            share is None or share >= self.mostly, observed, unexpected_count=breaking, judged_count=judged
        )


class ExpectReferencesToExist(ExpectRowsToSatisfy):
    """At least the share `mostly` of the values of `column` are in `to_table`, where they can be by now."""

    column: str
    to_table: str
    success_keys = ("condition", "mostly", "column", "to_table")


class ExpectKeyToBeUnique(_OnePass):
    """No two rows have the same values in `columns`."""

    columns: list[str]
    metric_dependencies = ("rows.repeated",)
    success_keys = ("columns",)

    def _validate(self, metrics: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        repeated = metrics["rows.repeated"]
        return self._outcome(not repeated, f"{repeated} rows repeat another's key", unexpected_count=repeated)


class ExpectSchemaToMatch(_OnePass):
    """The table has exactly `columns`, by name and Spark type."""

    columns: dict[str, str]
    metric_dependencies = ("table.column_types",)
    success_keys = ("columns",)

    def _validate(self, metrics: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        found = {
            item["name"]: item["type"].simpleString()
            for item in metrics["table.column_types"]
            if not item["name"].startswith("_")
        }
        differences = [
            f"{name}: expected {self.columns.get(name, 'no such column')}, found {found.get(name, 'none')}"
            for name in sorted(self.columns.keys() | found.keys())
            if self.columns.get(name) != found.get(name)
        ]
        return self._outcome(not differences, differences or "as declared")


class ExpectNewestRowToBeRecent(_OnePass):
    """The greatest `column` is not before `not_before` (ISO 8601)."""

    column: str
    not_before: str
    metric_dependencies = ("rows.newest",)
    success_keys = ("column", "not_before")

    def _validate(self, metrics: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        micros = metrics["rows.newest"]
        if micros is None:
            return self._outcome(False, "no rows")
        newest = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros)
        return self._outcome(newest >= datetime.fromisoformat(self.not_before), newest.isoformat())


class ExpectPeriodsToBeComplete(_OnePass):
    """Of the periods from `first` to before `last`, at most `missing` have no row.

    `code` (SQL) is the number of a row's period: a day or hour since 1970. With `of_day`, only those hours of
    a day count.
    """

    code: str
    first: int
    last: int
    of_day: list[int] | None = None
    missing: int = 0
    names: str = "%Y-%m-%d"
    """How to show a period, whose number counts days or hours since 1970."""
    period_seconds: int = 86_400
    metric_dependencies = ("rows.by_code",)
    success_keys = ("code", "first", "last", "of_day", "missing")

    def _validate(self, metrics: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        expected = (n for n in range(self.first, self.last) if not self.of_day or n % 24 in self.of_day)
        absent = [code for code in expected if not metrics["rows.by_code"].get(code)]
        shown = [_period(code, self.period_seconds, self.names) for code in absent]
        return self._outcome(len(absent) <= self.missing, f"{len(absent)} without a row: {shown[:5]}")


class ExpectVolumeToBeUsual(_OnePass):
    """Rows of each day from `first` to before `last` are `low` to `high` times the median published day's.

    `code` (SQL) is the number of a row's day since 1970.
    """

    code: str
    first: int
    last: int
    low: float
    high: float
    reference: float | None = None
    """The median; None without enough published days."""
    metric_dependencies = ("rows.by_code",)
    success_keys = ("code", "first", "last", "low", "high", "reference")

    def _validate(self, metrics: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        counts = metrics["rows.by_code"]
        if self.reference is None:
            return self._outcome(True, NOT_JUDGED)
        ratios = {day: counts.get(day, 0) / self.reference for day in range(self.first, self.last)}
        unusual = {
            _period(day, 86_400, "%Y-%m-%d"): f"{counts.get(day, 0)} rows, {ratio:.2f} times the usual"
            for day, ratio in ratios.items()
            if not self.low <= ratio <= self.high
        }
        return self._outcome(
            not unusual,
            dict(list(unusual.items())[:5]) or f"{min(ratios.values()):.2f} times the usual or more",
        )


class ExpectValuesToVary(_OnePass):
    """`expression` (SQL) has at least `distinct` values that are not null, and none has more than `share`."""

    expression: str
    distinct: int
    share: float = 1.0
    metric_dependencies = ("rows.sampled",)
    success_keys = ("expression", "distinct", "share")

    def _validate(self, metrics: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        found = {value: rows for value, rows in metrics["rows.sampled"].items() if value is not None}
        rows = sum(found.values())
        value, most = max(found.items(), key=lambda item: item[1], default=(None, 0))
        observed = f"{len(found)} values; the most frequent, {value!r}, in {most} of {rows} rows"
        holds = len(found) >= self.distinct and most <= self.share * rows
        return self._outcome(holds, observed)


class ExpectMeanToBeUsual(_OnePass):
    """The mean of `expression` (SQL) is at most `difference` away from the published rows' before."""

    expression: str
    difference: float
    reference: float | None = None
    metric_dependencies = ("rows.sampled",)
    success_keys = ("expression", "difference", "reference")

    def _validate(self, metrics: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        mean = mean_of(metrics["rows.sampled"])
        if self.reference is None:
            return self._outcome(True, NOT_JUDGED)
        if mean is None:
            return self._outcome(False, "no values")
        return self._outcome(
            abs(mean - self.reference) <= self.difference, f"mean {mean:.4g}, usually {self.reference:.4g}"
        )


class ExpectDistributionToBeUsual(_OnePass):
    """The population stability index of `expression` (SQL) against the published rows before is small.

    PSI = sum over bins of (p - q) ln(p / q). Above 0.25 counts as a major shift by convention (Siddiqi,
    Credit Risk Scorecards, 2006). Between two samples of one distribution, PSI times the harmonic size of the
    samples is chi-squared with bins - 1 degrees of freedom (Yurdakul, 2018), so a day of few rows gets that
    much on top.
    """

    expression: str
    threshold: float = 0.25
    reference: dict[str, int] | None = None
    """Published rows per bin (a value, or `OTHER`)."""
    metric_dependencies = ("rows.sampled",)
    success_keys = ("expression", "threshold", "reference")

    def _validate(self, metrics: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        if self.reference is None:
            return self._outcome(True, NOT_JUDGED)
        now: dict[str, int] = dict.fromkeys(self.reference, 0)
        now.setdefault(OTHER, 0)
        for value, rows in metrics["rows.sampled"].items():
            now[str(value) if str(value) in self.reference else OTHER] += rows
        if not sum(now.values()):
            return self._outcome(False, "no rows")
        index, shifts = stability(now, self.reference)
        allowed = self.threshold + chance_stability(now, self.reference)
        worst = sorted(shifts, key=lambda name: -shifts[name][2])[:3]
        moved = ", ".join(f"{name!r} from {shifts[name][0]:.1%} to {shifts[name][1]:.1%}" for name in worst)
        return self._outcome(
            index <= allowed, f"stability index {index:.3f}, allowed {allowed:.3f}; most moved: {moved}"
        )


def mean_of(tally: Mapping[Any, int]) -> float | None:
    """The mean of the values of `tally`, which counts the rows of each; nulls do not count."""
    known = {value: rows for value, rows in tally.items() if value is not None}
    rows = sum(known.values())
    return sum(float(value) * count for value, count in known.items()) / rows if rows else None


def stability(
    now: Mapping[str, int], before: Mapping[str, int]
) -> tuple[float, dict[str, tuple[float, float, float]]]:
    """The population stability index, and per bin the share before, the share now, and what it adds.

    An empty bin counts as half a row, as is usual, so that one row in it is no infinite surprise.
    """
    n, m = sum(now.values()), sum(before.values())
    parts = {}
    for name in now.keys() | before.keys():
        q, p = max(before.get(name, 0), 0.5) / m, max(now.get(name, 0), 0.5) / n
        floor = 0.5 / min(n, m)
        q, p = max(q, floor), max(p, floor)
        parts[name] = (q, p, (p - q) * math.log(p / q))
    return sum(part[2] for part in parts.values()), parts


def chance_stability(now: Mapping[str, int], before: Mapping[str, int]) -> float:
    """The index that sampling alone exceeds with the probability `CHANCE`."""
    degrees = max(1, len(now.keys() | before.keys()) - 1)
    # Wilson and Hilferty's approximation of the chi-squared quantile.
    z = NormalDist().inv_cdf(1 - CHANCE)
    spread = 2 / (9 * degrees)
    quantile = degrees * (1 - spread + z * math.sqrt(spread)) ** 3
    return quantile * (1 / sum(now.values()) + 1 / sum(before.values()))


def _period(code: int, seconds: int, form: str) -> str:
    return (datetime.fromtimestamp(0, UTC) + timedelta(seconds=code * seconds)).strftime(form)
