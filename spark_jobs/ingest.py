"""Ingestion: what the sources deliver for an interval becomes the raw tables' content for it.

Belongs here: reading the adapters piece by piece, the contract check, quarantine, the one commit per table.
Does not belong here: typing or judging the data (`clean`, `audit`), or streams (`stream_ingest`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.connections import require_connection
from airloop.erasure.suppression import SuppressionList, allowed_text, read_list, without_suppressed
from airloop.errors import SourceError
from airloop.intervals import Interval
from airloop.jobs import run_job
from airloop.lakehouse.properties import SOURCE_OFFSETS, json_text
from airloop.lakehouse.provenance import signature
from airloop.pseudonyms import find_key, protect, protected_payload, protected_reason
from airloop.references import Ingested, TableSnapshot
from airloop.settings import Settings
from airloop.sources.catalogue import adapter_class
from airloop.sources.contract import (
    SOURCE,
    SOURCE_OFFSET,
    SOURCE_TIME,
    Malformed,
    SourceAdapter,
    check_contract,
    record_schema,
)
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import Feed, Source, UseCase
from airloop.work_folders import work_folder
from spark_jobs.arguments import interval_of, job_parser
from spark_jobs.raw_tables import (
    IDENTITY,
    QUARANTINE_SCHEMA,
    ensure_raw_table,
    quarantine,
    raw_rows,
    raw_table,
)
from spark_jobs.session import open_session
from spark_jobs.tables import (
    append,
    despite_conflicts,
    snapshot_of,
    statements_saying,
    within,
)

EXAMPLES = 3
"""Malformed records that an error shows."""


class Staged(NamedTuple):
    """What a source delivered of one feed, written aside."""

    source: Source
    feed: Feed
    records: Path
    """Parquet, in the shape of `record_schema`; each piece is one row group."""
    malformed: Path
    rows: int
    malformed_rows: int
    offsets: Mapping[str, str]
    """The first and the last offset delivered, as texts order them; empty without records."""


class Landing(NamedTuple):
    """What is done with every record before it reaches a table: nothing personal passes in the clear."""

    key: bytes | None
    erased: SuppressionList

    def of(self, records: pa.Table, feed: Feed) -> pa.Table:
        """`records` without erased subjects, personal columns hashed or dropped."""
        return protect(without_suppressed(records, feed, self.erased), feed, self.key)

    def shown(self, record: Malformed, feed: Feed) -> Malformed:
        """`record` as quarantine and errors may show it: no personal value, and nothing of the erased."""
        reason = allowed_text(protected_reason(record.reason, feed), self.erased)
        payload = allowed_text(protected_payload(record.payload, feed), self.erased)
        return record._replace(reason=reason, payload=payload)


def stage(
    adapter: SourceAdapter,
    source: Source,
    feed: Feed,
    interval: Interval,
    folder: Path,
    landing: Landing,
) -> Staged:
    """Write what `adapter` delivers to `folder`, a piece at a time, so that memory does not grow with it.

    Raises `SourceError` when the source breaks its contract, or when more of its records are malformed than
    the source's `max_malformed_share`: then the feed changed, and few of its records can be believed.
    """
    records, malformed = folder / f"{feed.name}.parquet", folder / f"{feed.name}.malformed.parquet"
    rows, bad, examples = 0, 0, list[Malformed]()
    first, last = list[str](), list[str]()
    with (
        pq.ParquetWriter(records, landing.of(record_schema(feed).empty_table(), feed).schema) as good_writer,
        pq.ParquetWriter(malformed, QUARANTINE_SCHEMA) as bad_writer,
    ):
        for delivery in adapter.read(feed, interval):
            piece = landing.of(check_contract(feed, delivery.records), feed)
            if piece.num_rows:
                good_writer.write_table(piece)
                ends = pc.min_max(piece[SOURCE_OFFSET]).as_py()
                first, last = [min([*first, ends["min"]])], [max([*last, ends["max"]])]
            if delivery.malformed:
                bad_records = [landing.shown(item, feed) for item in delivery.malformed]
                bad_writer.write_table(_quarantined(source, feed, bad_records))
                examples += bad_records[: EXAMPLES - len(examples)]
            rows, bad = rows + piece.num_rows, bad + len(delivery.malformed)
    if bad > source.max_malformed_share * (rows + bad):
        shown = "; ".join(f"{item.reason} (at {item.offset})" for item in examples)
        raise SourceError(
            expected=f"at most {source.max_malformed_share:.1%} of feed {feed.name!r} to be malformed",
            found=f"{bad} of {rows + bad} records: {shown}",
            next_step="mend the source or the feed's columns in the spec; nothing was ingested",
        )
    offsets = {"first": first[0], "last": last[0]} if rows else {}
    return Staged(source, feed, records, malformed, rows, bad, offsets)


def _quarantined(source: Source, feed: Feed, malformed: Sequence[Malformed]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "feed": feed.name,
                SOURCE: source.name,
                SOURCE_OFFSET: item.offset,
                SOURCE_TIME: item.time,
                "reason": item.reason,
                "payload": item.payload,
            }
            for item in malformed
        ],
        schema=QUARANTINE_SCHEMA,
    )


def ingest(spark: SparkSession, spec: UseCase, interval: Interval, settings: Settings) -> Ingested:
    """Make each raw table hold exactly what the sources deliver for `interval`.

    New records are appended, and records that a source delivered before and does not any more are withdrawn,
    in one commit per table; what is there already stays, so a second delivery of the same changes nothing.
    All feeds are read and checked before the first is written. Raises `SourceError` when a source breaks its
    contract.
    """
    with work_folder(settings, f"ingest_{spec.name}_{interval.key}") as folder:
        staged = list(stage_all(spec, interval, settings, folder))
        landed = [_land(spark, item, interval, spec) for item in staged]
        bad = [str(item.malformed) for item in staged if item.malformed_rows]
        quarantined = quarantine(spark, spark.read.parquet(*bad)) if bad else 0
    return Ingested(
        snapshots=tuple(item.snapshot for item in landed),
        duplicates=sum(item.duplicates for item in landed),
        withdrawn=sum(item.withdrawn for item in landed),
        quarantined=quarantined,
    )


def stage_all(spec: UseCase, interval: Interval, settings: Settings, folder: Path) -> Iterator[Staged]:
    """What every source of `spec` delivers for `interval`, feed by feed, written to `folder`."""
    landing = Landing(find_key(spec.feeds), read_list(settings))
    for source in spec.sources:
        connection = require_connection(source.connection) if source.connection else None
        adapter = adapter_class(source.adapter)(settings, source.options, connection)
        for feed in source.feeds:
            yield stage(adapter, source, feed, interval, folder, landing)


class _Landed(NamedTuple):
    snapshot: TableSnapshot
    duplicates: int
    withdrawn: int


def _land(spark: SparkSession, staged: Staged, interval: Interval, spec: UseCase) -> _Landed:
    """Bring the raw table of one feed to what was staged."""
    source, feed = staged.source, staged.feed
    table = raw_table(feed)
    delivered = raw_rows(spark.read.parquet(str(staged.records)), feed, source.name).dropDuplicates(IDENTITY)
    ensure_raw_table(spark, feed, delivered)
    offsets = {source.name: {**staged.offsets, "records": staged.rows}}
    properties = {**signature(spec.name, interval), SOURCE_OFFSETS: json_text(offsets)}
    scope = F.col(SOURCE) == source.name
    if feed.event_time is not None:
        scope = scope & within(feed.event_time, interval)
    there = spark.table(table).where(scope)
    before, fresh, withdrawn = _differences(delivered, there)
    if withdrawn:
        with statements_saying(spark, properties):
            despite_conflicts(lambda: _replace(spark, delivered, feed, table, source, interval))
    elif fresh:
        new = delivered.join(there.select(*IDENTITY), IDENTITY, "left_anti") if before else delivered
        append(new.select(*delivered.columns), table, properties)
    snapshot = snapshot_of(spark, table).model_copy(update={"rows": fresh})
    return _Landed(snapshot, duplicates=staged.rows - fresh, withdrawn=withdrawn)


def _differences(delivered: DataFrame, there: DataFrame) -> tuple[int, int, int]:
    """How many records were there before, how many delivered ones are new, how many old ones are gone."""
    if there.isEmpty():
        return 0, delivered.count(), 0
    old = there.select(*IDENTITY).withColumn("_old", F.lit(True))
    both = delivered.select(*IDENTITY).withColumn("_new", F.lit(True)).join(old, IDENTITY, "full_outer")
    counts = both.select(
        F.count("_old"),
        F.count(F.when(F.col("_old").isNull(), 1)),
        F.count(F.when(F.col("_new").isNull(), 1)),
    ).first()
    assert counts is not None  # an aggregate has a row
    return int(counts[0]), int(counts[1]), int(counts[2])


def _replace(
    spark: SparkSession, delivered: DataFrame, feed: Feed, table: str, source: Source, interval: Interval
) -> None:
    """Append what is new and withdraw what is not delivered any more, in one commit."""
    scope = f"t.{SOURCE} = '{source.name}'"
    if feed.event_time is not None:
        start, end = (moment.isoformat() for moment in interval)
        scope += (
            f" AND t.{feed.event_time} >= TIMESTAMP '{start}' AND t.{feed.event_time} < TIMESTAMP '{end}'"
        )
    same = " AND ".join(f"t.{name} = d.{name}" for name in IDENTITY)
    spark.sql(
        f"MERGE INTO {table} t USING {{delivered}} d ON {same} AND {scope} "
        f"WHEN NOT MATCHED THEN INSERT * WHEN NOT MATCHED BY SOURCE AND {scope} THEN DELETE",
        delivered=delivered,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> Ingested:
        spec, interval = use_case(arguments.use_case), interval_of(arguments, whole_days=False)
        spark = open_session(settings, f"{spec.name} ingest {interval.key}")
        return ingest(spark, spec, interval, settings)

    return run_job(job_parser(__doc__), work, argv)


if __name__ == "__main__":
    sys.exit(main())
