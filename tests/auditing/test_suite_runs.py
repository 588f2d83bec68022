"""A suite costs one pass whatever its size; an expectation that cannot be evaluated fails, alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from airloop.errors import SpecError
from airloop.intervals import Interval
from airloop.use_cases.spec import CleanTable, Expectation
from benchmarks.spark_work import work_of
from spark_jobs.audit import Audited, audit_table
from spark_jobs.auditing.reference import Reference
from spark_jobs.auditing.suite import suite_of

DAY = Interval(datetime(2013, 3, 4, tzinfo=UTC), datetime(2013, 3, 5, tzinfo=UTC))
ROWS = 500


@pytest.fixture(scope="module")
def path(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("rows") / "rows"
    columns = ("id", "id % 7 AS n", "concat('c', id % 3) AS code", "IF(id % 10 = 0, NULL, id) AS some")
    spark.range(ROWS).selectExpr(*columns).coalesce(1).write.parquet(str(folder))
    return str(folder)


@pytest.fixture
def rows(spark: SparkSession, path: str) -> DataFrame:
    return spark.read.parquet(path)


def expect(type: str, **arguments: Any) -> Expectation:
    return Expectation(type=type, arguments=arguments, why=f"{type} says so")


def satisfying(condition: str, mostly: float = 1.0) -> Expectation:
    return expect("ExpectRowsToSatisfy", condition=condition, mostly=mostly)


def table_of(*expectations: Expectation, least: int = 1) -> CleanTable:
    return CleanTable(name="small", event_time=None, min_rows_per_day=least, expectations=expectations)


def audited(rows: DataFrame, *expectations: Expectation, least: int = 1) -> Audited:
    return audit_table(rows, table_of(*expectations, least=least), DAY, Reference(), ROWS)


def outcomes(found: Audited) -> list[bool]:
    """In the suite's order, which need not be the results'; the table's row count comes first."""

    def named(configuration: Any) -> str:
        return f"{configuration.type} {sorted(configuration.kwargs.items(), key=repr)}"

    results = {named(result.expectation_config): bool(result.success) for result in found.result.results}
    return [results[named(expectation.configuration)] for expectation in found.suite.expectations]


def test_a_suite_of_any_size_is_one_pass(spark: SparkSession, rows: DataFrame) -> None:
    few = [expect("ExpectColumnValuesToNotBeNull", column="id")]
    many = [
        *(expect("ExpectColumnValuesToNotBeNull", column=column) for column in ("id", "n", "code")),
        *(
            expect("ExpectColumnValuesToBeBetween", column="n", min_value=0, max_value=high)
            for high in range(6, 20)
        ),
        expect("ExpectColumnValuesToBeInSet", column="code", value_set=["c0", "c1", "c2"]),
        expect("ExpectColumnValuesToMatchRegex", column="code", regex="^c[0-9]$"),
        expect("ExpectColumnValueLengthsToEqual", column="code", value=2),
        *(satisfying(f"id < {ROWS + edge}") for edge in range(20)),
        expect("ExpectKeyToBeUnique", columns=["id"]),
        expect("ExpectKeyToBeUnique", columns=["n", "id"]),
        *(expect("ExpectValuesToVary", expression=f"n + {n}", distinct=7) for n in range(5)),
        expect("ExpectDistributionToBeUsual", expression="code"),
    ]
    small, _ = work_of(spark, lambda: audited(rows, *few))
    large, found = work_of(spark, lambda: audited(rows, *many))
    assert len(found.result.results) == len(many) + 1 >= 40
    assert not found.failures
    assert large == small
    assert large.rows_read == ROWS


def test_each_expectation_gets_its_own_answer(rows: DataFrame) -> None:
    cases = [
        (expect("ExpectColumnValuesToNotBeNull", column="some"), False),
        (expect("ExpectColumnValuesToNotBeNull", column="some", mostly=0.9), True),
        (expect("ExpectColumnValuesToNotBeNull", column="some", mostly=0.91), False),
        (expect("ExpectColumnValuesToBeBetween", column="n", min_value=0, max_value=6), True),
        (expect("ExpectColumnValuesToBeBetween", column="n", min_value=1, max_value=6), False),
        (satisfying("some >= 0"), True),
        # Of the 450 that are not null, 225 are above 250.
        (satisfying("some > 250", mostly=0.5), True),
        (satisfying("some > 250", mostly=0.51), False),
        (satisfying("CAST(NULL AS boolean)"), True),
        (expect("ExpectKeyToBeUnique", columns=["id"]), True),
        (expect("ExpectKeyToBeUnique", columns=["n", "code"]), False),
        (expect("ExpectValuesToVary", expression="n", distinct=7), True),
        (expect("ExpectValuesToVary", expression="n", distinct=8), False),
        # The most frequent n is in 72 of the 500 rows.
        (expect("ExpectValuesToVary", expression="n", distinct=7, share=0.143), False),
        (expect("ExpectValuesToVary", expression="n", distinct=7, share=0.145), True),
    ]
    found = audited(rows, *(expectation for expectation, _ in cases), least=ROWS)
    assert outcomes(found) == [True, *(holds for _, holds in cases)]
    assert len(found.failures) == sum(not holds for _, holds in cases)


def test_the_number_of_rows_is_counted_whatever_waits_for_it(rows: DataFrame) -> None:
    not_null = expect("ExpectColumnValuesToNotBeNull", column="id")
    assert not audited(rows, expect("ExpectSchemaToMatch", columns=dict(rows.dtypes)), least=ROWS).failures
    (short,) = audited(rows, not_null, least=ROWS + 1).failures
    assert f"observed {ROWS}" in short
    # Stock metrics that are computed from the number of rows.
    for number in (
        expect(
            "ExpectColumnProportionOfUniqueValuesToBeBetween", column="n", min_value=0.014, max_value=0.014
        ),
        expect("ExpectColumnMedianToBeBetween", column="id", min_value=249.5, max_value=249.5),
    ):
        assert not audited(rows, number, not_null, least=ROWS).failures


BROKEN = {
    "unknown column": ("no_such > 0", "no_such"),
    "not SQL": ("id >", "PARSE_SYNTAX_ERROR"),
    "error in a row": ("100 / (id - 250) < 1000", "DIVIDE_BY_ZERO"),
    "no truth value": ("id + 1", "DATATYPE_MISMATCH"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_expectation_that_errors_fails_and_the_others_are_judged(
    name: str, spark: SparkSession, rows: DataFrame
) -> None:
    condition, says = BROKEN[name]
    sound = [satisfying(f"id >= -{edge}") for edge in range(30)]
    work, found = work_of(
        spark, lambda: audited(rows, *sound, satisfying(condition), satisfying("n < 6"), least=ROWS)
    )
    assert outcomes(found) == [True] * 31 + [False, False]
    assert not found.result.success
    (error,) = (failure for failure in found.failures if "observed an error" in failure)
    assert says in error
    # Not a pass for each of the others: a few to find the one, and one for the other failure's sample.
    assert work.rows_read <= 15 * ROWS


def test_each_error_is_reported_by_its_own_message(rows: DataFrame) -> None:
    found = audited(rows, satisfying("no_such > 0"), satisfying("100 / (id - 250) < 1000"))
    assert len(found.failures) == 2
    for failure in found.failures:
        assert ("UNRESOLVED_COLUMN" in failure) == ("no_such" in failure)
        assert ("DIVIDE_BY_ZERO" in failure) == ("id - 250" in failure)


def test_a_missing_column_fails_what_is_about_it(rows: DataFrame) -> None:
    found = audited(
        rows,
        expect("ExpectColumnValuesToNotBeNull", column="gone"),
        expect("ExpectColumnValuesToNotBeNull", column="id"),
        expect("ExpectKeyToBeUnique", columns=["gone"]),
        expect("ExpectValuesToVary", expression="gone", distinct=1),
    )
    assert outcomes(found) == [True, False, True, False, False]
    assert all("gone" in failure for failure in found.failures)


def test_without_rows_what_needs_rows_fails(rows: DataFrame) -> None:
    found = audited(
        rows.selectExpr("*", "timestamp_seconds(id) AS at").where("false"),
        satisfying("id >= 0"),
        expect("ExpectValuesToVary", expression="n", distinct=1),
        expect("ExpectNewestRowToBeRecent", column="at", not_before="2013-03-04T00:00:00+00:00"),
    )
    assert outcomes(found) == [False, True, False, False]
    assert not [failure for failure in found.failures if "observed an error" in failure]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (expect("ExpectNothingOfTheKind", column="id"), "no expectation ExpectNothingOfTheKind"),
        (expect("ExpectRowsToSatisfy", mostly=0.5), "condition"),
        (expect("ExpectColumnValuesToBeInSet", column="id", value_set=[1], mostly=2), "mostly"),
    ],
    ids=["unknown type", "missing argument", "impossible argument"],
)
def test_a_spec_that_expects_what_is_unknown_is_an_error(wrong: Expectation, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        suite_of(table_of(satisfying("true"), wrong), DAY, Reference())
    assert wrong.type in str(caught.value)
    assert says in str(caught.value)
    assert "clean table small" in str(caught.value)
