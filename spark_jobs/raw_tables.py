"""The raw tables: what a landed record looks like, whether it came in a batch or from a stream.

Belongs here: the columns that landing adds, a record's identity, the quarantine table. Does not belong here:
reading a source, or judging data.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from airloop.sources.contract import SOURCE, SOURCE_KEY, SOURCE_OFFSET, SOURCE_TIME
from airloop.use_cases.spec import Feed
from spark_jobs.tables import RAW, ensure_table

IDENTITY: Final = [SOURCE, SOURCE_KEY, SOURCE_OFFSET]
"""Columns that make two deliveries the same record; a correction stands at another offset."""

QUARANTINE: Final = f"{RAW}.quarantine"
"""Table of the records that could not be typed, of all feeds."""

QUARANTINE_SCHEMA: Final = pa.schema(
    [
        ("feed", pa.string()),
        (SOURCE, pa.string()),
        (SOURCE_OFFSET, pa.string()),
        (SOURCE_TIME, pa.timestamp("us", tz="UTC")),
        ("reason", pa.string()),
        ("payload", pa.string()),
    ]
)


def raw_table(feed: Feed) -> str:
    """The name of the feed's raw table."""
    return f"{RAW}.{feed.name}"


def spark_schema(schema: pa.Schema) -> StructType:
    """`schema` as Spark has it in a table: a time without a zone stays one, which is not Spark's default."""
    return from_arrow_schema(schema, prefer_timestamp_ntz=True)


def ensure_raw_table(spark: SparkSession, feed: Feed, rows: DataFrame) -> None:
    """Make the feed's raw table for rows like `rows`, or bring it to their columns; see `ensure_table`."""
    renamed = {column.name: column.renamed_from for column in feed.landed if column.renamed_from}
    ensure_table(spark, raw_table(feed), rows, feed.event_time, renamed)


def raw_rows(records: DataFrame, feed: Feed, source: str) -> DataFrame:
    """`records` of `feed` (its landed columns, offset and time) as its raw table has them."""
    key = F.concat_ws("|", *(F.col(name).cast("string") for name in feed.key))
    return records.select(
        *(column.name for column in feed.landed),
        F.lit(source).alias(SOURCE),
        key.alias(SOURCE_KEY),
        SOURCE_OFFSET,
        SOURCE_TIME,
    )


def quarantine(spark: SparkSession, malformed: DataFrame) -> int:
    """Append `malformed` (of `QUARANTINE_SCHEMA`) to the quarantine table; returns how many were new."""
    ensure_table(spark, QUARANTINE, malformed, None)
    identity = ["feed", SOURCE, SOURCE_OFFSET]
    new = malformed.dropDuplicates(identity).join(
        spark.table(QUARANTINE).select(*identity), identity, "left_anti"
    )
    new = new.select(*QUARANTINE_SCHEMA.names).cache()
    rows = new.count()
    if rows:
        new.writeTo(QUARANTINE).append()
    new.unpersist()
    return rows
