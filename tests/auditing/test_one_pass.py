"""Everything that one pass measures is what pandas finds, row by row, in the same rows."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.spark_work import work_of
from spark_jobs.auditing import one_pass
from spark_jobs.auditing.one_pass import (
    By,
    Newest,
    Repeats,
    Rows,
    Sampled,
    Slice,
    Tested,
    Where,
    measure,
    slice_for,
)

ALL = Slice()
ROWS = 2_000
FIRST = datetime(2013, 3, 4, tzinfo=UTC)
SCHEMA = pa.schema(
    {"id": pa.int64(), "code": pa.string(), "number": pa.int64(), "at": pa.timestamp("us", tz="UTC")}
)
DAY = "unix_micros(at) div 86400000000"


def random_rows(seed: int) -> pd.DataFrame:
    """Rows with nulls in every column, repeated keys, and timestamps over five days."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": random.integers(0, ROWS * 3, ROWS),
            "code": random.choice(["ab", "cd", "ef", ""], ROWS),
            "number": random.integers(-50, 50, ROWS),
            "at": FIRST + pd.to_timedelta(random.integers(0, 5 * 86_400, ROWS), unit="s"),
        }
    ).astype({"id": "Int64", "number": "Int64"})
    for column in frame:
        frame.loc[random.random(ROWS) < 0.1, column] = None
    return frame


def in_spark(spark: SparkSession, frame: pd.DataFrame) -> DataFrame:
    return spark.createDataFrame(pa.Table.from_pandas(frame, SCHEMA, preserve_index=False))


def tally(values: pd.Series[Any]) -> Counter[Any]:
    return Counter(None if pd.isna(value) else value for value in values)


@pytest.mark.parametrize("seed", range(3))
def test_measures_are_those_of_pandas(seed: int, spark: SparkSession) -> None:
    frame = random_rows(seed)
    number, code = frame["number"], frame["code"]
    days = tally((frame["at"].dropna() - datetime(1970, 1, 1, tzinfo=UTC)).dt.days)
    days[None] = int(frame["at"].isna().sum())
    found = measure(
        in_spark(spark, frame),
        [
            Rows(),
            Where(F.col("number") > 7),
            Where(F.col("code").isNull()),
            Tested("number > 7"),
            Tested("code = 'ab' OR number = 3"),
            By(DAY),
            Sampled("code"),
            Sampled("number div 10"),
            Repeats(("id",)),
            Repeats(("id", "code")),
            Newest("at"),
        ],
        ALL,
    )
    # Three-valued logic: a null decides nothing unless the other side of OR is true.
    either = (code == "ab").fillna(False) | (number == 3).fillna(False)
    unknown = ~either & (code.isna() | number.isna())
    tens = number.map(lambda value: int(value / 10), na_action="ignore")
    assert found == [
        ROWS,
        int((number > 7).sum()),
        int(code.isna().sum()),
        (int((number <= 7).sum()), int(number.notna().sum())),
        (int((~either & ~unknown).sum()), int((~unknown).sum())),
        days,
        tally(code),
        tally(tens),
        int(frame.duplicated("id").sum()),
        int(frame.duplicated(["id", "code"]).sum()),
        int(frame["at"].max().timestamp()) * 1_000_000,
    ]


def test_more_conditions_than_one_number_has_bits(spark: SparkSession) -> None:
    frame = random_rows(3)
    number = frame["number"].dropna()
    edges = range(-50, 50)
    wanted = [
        item
        for edge in edges
        for item in (Tested(f"number < {edge}"), Where(F.col("number").eqNullSafe(edge)))
    ]
    found = measure(in_spark(spark, frame), wanted, ALL)
    assert found[::2] == [(int((number >= edge).sum()), len(number)) for edge in edges]
    assert found[1::2] == [int((number == edge).sum()) for edge in edges]


def test_one_condition_asked_twice_is_answered_twice(spark: SparkSession) -> None:
    rows = in_spark(spark, random_rows(4))
    one, two, other = measure(rows, [Tested("number > 0"), Tested("number > 0"), Tested("number > 40")], ALL)
    assert one == two != other


def test_without_rows_nothing_is_counted(spark: SparkSession) -> None:
    rows = in_spark(spark, random_rows(5).head(0))
    wanted = [
        Rows(),
        Where(F.lit(True)),
        Tested("true"),
        By(DAY),
        Sampled("code"),
        Repeats(("id",)),
        Newest("at"),
    ]
    assert measure(rows, wanted, ALL) == [0, 0, (0, 0), Counter(), Counter(), 0, None]
    assert measure(rows, [Rows()], ALL) == [0]


@pytest.mark.parametrize("key", [(), ("id",)], ids=["whole rows", "id"])
def test_slices_share_the_rows_out(key: tuple[str, ...], spark: SparkSession) -> None:
    frame = random_rows(6)
    rows = in_spark(spark, frame)
    tallies = [measure(rows, [Sampled("code")], Slice(4, index), key)[0] for index in range(4)]
    assert sum(tallies, Counter()) == tally(frame["code"])
    assert all(0.15 * ROWS < found.total() < 0.35 * ROWS for found in tallies)


def test_values_are_sampled_by_the_first_key_whatever_else_is_asked(spark: SparkSession) -> None:
    rows = in_spark(spark, random_rows(7))
    only = measure(rows, [Repeats(("id",)), Sampled("code")], Slice(5, 2))[1]
    more = [Sampled("number"), Sampled("code"), Repeats(("id",)), Repeats(("code", "at")), By(DAY)]
    assert measure(rows, more, Slice(5, 2))[1] == only
    assert measure(rows, [Sampled("code")], Slice(5, 2), ("id",))[0] == only


def test_up_to_exact_rows_a_sample_misses_no_repeat(spark: SparkSession) -> None:
    frame = random_rows(8)
    expected = [int(frame.duplicated("id").sum()), int(frame.duplicated(["id", "code"]).sum())]
    found = measure(in_spark(spark, frame), [Repeats(("id",)), Repeats(("id", "code"))], Slice(9, 1))
    assert found == expected


def test_above_exact_rows_each_slice_finds_its_own_repeats(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_pass, "EXACT_ROWS", ROWS - 1)
    frame = random_rows(9)
    rows = in_spark(spark, frame)
    wanted = [Repeats(("id",)), Repeats(("number", "code"))]
    found = [measure(rows, wanted, Slice(6, index)) for index in range(6)]
    assert [sum(column) for column in zip(*found, strict=True)] == [
        int(frame.duplicated("id").sum()),
        int(frame.duplicated(["number", "code"]).sum()),
    ]


def test_any_number_of_measures_reads_the_rows_once(spark: SparkSession, tmp_path: Path) -> None:
    in_spark(spark, random_rows(10)).coalesce(1).write.parquet(str(tmp_path / "rows"))

    def work(wanted: list[one_pass.Measure]) -> tuple[int, int]:
        rows = spark.read.parquet(str(tmp_path / "rows"))
        return work_of(spark, lambda: measure(rows, wanted, ALL))[0]

    few = work([Tested("number > 0")])
    many = work(
        [
            *(Tested(f"number > {edge}") for edge in range(40)),
            *(Sampled(f"number + {edge}") for edge in range(10)),
            *(Repeats(("id",)), Repeats(("id", "code")), By(DAY), By("number div 3"), Newest("at"), Rows()),
        ]
    )
    assert many == few
    assert many.rows_read == ROWS


def test_the_session_is_left_as_it_was(spark: SparkSession) -> None:
    name = "spark.sql.codegen.hugeMethodLimit"
    before = spark.conf.get(name)
    rows = in_spark(spark, random_rows(11).head(5))
    measure(rows, [Rows(), Tested("number > 0")], ALL)
    with pytest.raises(Exception, match="no_such_column"):
        measure(rows, [Tested("no_such_column > 0")], ALL)
    with pytest.raises(Exception, match="DIVIDE_BY_ZERO"):
        measure(rows, [Tested("1 / (id - id) > 0")], ALL)
    assert spark.conf.get(name) == before


def test_copies_of_a_key_are_in_one_slice(spark: SparkSession) -> None:
    keys = spark.range(200).crossJoin(spark.range(3).withColumnRenamed("id", "copy"))
    held = F.sum(sum(Slice(7, index).holds(F.xxhash64("id")).cast("int") for index in range(7)))
    assert keys.groupBy("id").agg(held.alias("held")).where("held <> 3").isEmpty()
    third = keys.where(Slice(7, 3).holds(F.xxhash64("id")))
    assert third.groupBy("id").count().where("count <> 3").isEmpty()
    assert 0 < third.count() < 300


def test_a_slice_leaves_about_so_many_rows() -> None:
    assert slice_for(0, "a") == slice_for(one_pass.SAMPLE_ROWS, "b") == Slice(1, 0)
    for rows in (one_pass.SAMPLE_ROWS + 1, 5_000_000, 10**9):
        found = slice_for(rows, "flights 20130304_20130305")
        assert one_pass.SAMPLE_ROWS / 2 <= rows / found.count <= one_pass.SAMPLE_ROWS
        assert 0 <= found.index < found.count
        assert found == slice_for(rows, "flights 20130304_20130305")
    assert len({slice_for(5_000_000, f"flights {day}").index for day in range(50)}) > 20
