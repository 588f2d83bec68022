"""Landing: one received batch into the raw tables and the quarantine, each message exactly once.

Belongs here: what is new, the order of the commits, what each commit says about itself. Does not belong
here: any broker, or how a message is read (`parsing`).

A batch may be landed again, in part or whole, after a kill at any point: each table takes in only what lies
behind the positions that it holds itself (`positions`). The quarantine is committed before the feeds, so
that a feed's positions never pass a malformed message that is not in quarantine yet; so a feed's own
positions say where its topic must be read from.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Final, NamedTuple

from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from airloop.erasure.suppression import allowed_text, read_list
from airloop.lakehouse import properties
from airloop.settings import Settings
from airloop.sources.contract import SOURCE, SOURCE_OFFSET, SOURCE_TIME, record_schema
from airloop.use_cases.spec import Feed
from spark_jobs.personal_data import protect, suppress
from spark_jobs.raw_tables import (
    QUARANTINE,
    QUARANTINE_SCHEMA,
    ensure_raw_table,
    raw_rows,
    raw_table,
    spark_schema,
)
from spark_jobs.streams.parsing import PAYLOAD, REASON, UNDECLARED, parsed
from spark_jobs.streams.positions import NOWHERE, State, commit_property, load_tables, states
from spark_jobs.streams.received import PLACE, POSITION, TOPIC
from spark_jobs.tables import ensure_table

log = logging.getLogger(__name__)

ROWS_PER_FILE: Final = 200_000
NAMES_LOGGED: Final = 20
"""Undeclared fields that a log line names."""


class Landing(NamedTuple):
    """Where one stream lands; plain values, so that it can be sent to where batches are run."""

    stream: str
    feeds: Mapping[str, Feed]
    """By topic."""
    settings: Settings
    signature: Mapping[str, str]
    """What each commit says about the run: `airloop.lakehouse.properties`."""

    @property
    def tables(self) -> list[str]:
        """The tables that the stream lands in, the quarantine last."""
        return [*(raw_table(feed) for feed in self.feeds.values()), QUARANTINE]


def prepare_tables(spark: SparkSession, landing: Landing) -> None:
    """Make the tables that are not there yet, or bring them to the spec's columns."""
    for feed in landing.feeds.values():
        empty = spark.createDataFrame([], spark_schema(record_schema(feed)))
        ensure_raw_table(spark, feed, raw_rows(_protected(empty, feed, landing), feed, landing.stream))
    ensure_table(spark, QUARANTINE, spark.createDataFrame([], spark_schema(QUARANTINE_SCHEMA)), None)


def taken_in(landing: Landing) -> dict[str, State]:
    """By topic, how far its feed's table (which `prepare_tables` made) has taken in the stream."""
    tables = load_tables(landing.settings, landing.tables)
    return {
        topic: states(tables[raw_table(feed)]).get(landing.stream, NOWHERE)
        for topic, feed in landing.feeds.items()
    }


def land(received: DataFrame, landing: Landing, read_until: Mapping[str, str] | None = None) -> int:
    """Land `received` (see `received.RECEIVED_SCHEMA`); returns how many messages were new.

    `read_until` is noted with the positions, for the places of it; a table that has no new message but whose
    places have such a note gets a commit without rows.
    """
    tables = load_tables(landing.settings, landing.tables)
    known = {name: states(table) for name, table in tables.items()}
    before = {name: known[name].get(landing.stream, NOWHERE) for name in landing.tables}
    received = received.persist()
    messages = {
        feed: parsed(
            received.where((F.col(TOPIC) == topic) & _behind(before[raw_table(feed)])), feed
        ).persist()
        for topic, feed in landing.feeds.items()
    }
    try:
        new = _summaries(messages, before[QUARANTINE])
        _log_undeclared(landing.stream, new)
        if any(summary.malformed for summary in new):
            _append_quarantined(messages, landing, before[QUARANTINE], known[QUARANTINE], new)
        for topic, feed in landing.feeds.items():
            places = [summary for summary in new if summary.feed == feed.name]
            notes = {p: t for p, t in (read_until or {}).items() if p.startswith(f"{topic}/")}
            if places or notes:
                table = raw_table(feed)
                state = before[table].advanced(State({s.place: s.last for s in places}, notes))
                _append_records(messages[feed], feed, landing, known[table], state, places)
        return sum(summary.messages for summary in new)
    finally:
        for frame in (*messages.values(), received):
            frame.unpersist()


class _Summary(NamedTuple):
    """What is new of one place."""

    feed: str
    place: str
    last: str
    messages: int
    records: int
    malformed: int
    """Malformed messages that are not in quarantine yet."""
    days: list[str]
    undeclared: int
    undeclared_names: list[str]


def _behind(state: State) -> Column:
    """Whether a message lies behind the positions of `state`."""
    if not state.positions:
        return F.lit(True)
    positions = F.from_json(F.lit(json.dumps(dict(state.positions))), "map<string,string>")
    last = F.try_element_at(positions, F.col(PLACE))
    return last.isNull() | (F.col(POSITION) > last)


def _summaries(messages: Mapping[Feed, DataFrame], quarantined: State) -> list[_Summary]:
    """One pass over the batch: what is new, by place."""
    parts = []
    for feed, frame in messages.items():
        good = F.col(REASON).isNull()
        day = F.date_format(feed.event_time, "yyyy-MM-dd") if feed.event_time else F.lit(None).cast("string")
        parts.append(
            frame.select(
                F.lit(feed.name).alias("feed"),
                PLACE,
                POSITION,
                good.alias("good"),
                (~good & _behind(quarantined)).alias("malformed"),
                F.when(good, day).alias("day"),
                UNDECLARED,
            )
        )
    names = F.array_distinct(F.flatten(F.collect_set(UNDECLARED)))
    rows: list[Row] = (
        reduce(DataFrame.unionAll, parts)
        .groupBy("feed", PLACE)
        .agg(
            F.max(POSITION),
            F.count("*"),
            F.count_if("good"),
            F.count_if("malformed"),
            F.collect_set("day"),
            F.coalesce(F.sum(F.size(F.coalesce(UNDECLARED, F.array().cast("array<string>")))), F.lit(0)),
            F.slice(names, 1, NAMES_LOGGED),
        )
        .collect()
    )
    return [_Summary(*row) for row in rows]


def _append_records(
    messages: DataFrame,
    feed: Feed,
    landing: Landing,
    known: Mapping[str, State],
    state: State,
    places: Iterable[_Summary],
) -> None:
    days = {day for summary in places for day in summary.days}
    records = sum(summary.records for summary in places)
    good = messages.where(F.col(REASON).isNull())
    rows = raw_rows(_protected(good, feed, landing), feed, landing.stream)
    _append(rows, raw_table(feed), landing, commit_property(landing.stream, known, state, days), records)


def _append_quarantined(
    messages: Mapping[Feed, DataFrame],
    landing: Landing,
    before: State,
    known: Mapping[str, State],
    new: Iterable[_Summary],
) -> None:
    new = list(new)
    erased = read_list(landing.settings)
    without_erased = F.udf(lambda text: allowed_text(text, erased)) if erased.digests else F.col
    parts = [
        frame.where(F.col(REASON).isNotNull() & _behind(before)).select(
            F.lit(feed.name).alias("feed"),
            F.lit(landing.stream).alias(SOURCE),
            SOURCE_OFFSET,
            SOURCE_TIME,
            without_erased(REASON).alias("reason"),
            without_erased(PAYLOAD).alias("payload"),
        )
        for feed, frame in messages.items()
        if any(summary.feed == feed.name and summary.malformed for summary in new)
    ]
    state = before.advanced(State({summary.place: summary.last for summary in new}))
    offsets = commit_property(landing.stream, known, state, ())
    malformed = sum(summary.malformed for summary in new)
    log.warning("%d malformed messages of stream %s go to quarantine", malformed, landing.stream)
    _append(reduce(DataFrame.unionAll, parts), QUARANTINE, landing, offsets, malformed)


def _append(rows: DataFrame, table: str, landing: Landing, offsets: str, count: int) -> None:
    """One commit: `count` rows and the positions that they bring the table to."""
    writer = rows.coalesce(max(1, math.ceil(count / ROWS_PER_FILE))).writeTo(table)
    for name, value in {**landing.signature, properties.SOURCE_OFFSETS: offsets}.items():
        writer = writer.option(f"snapshot-property.{name}", value)
    writer.append()


def _protected(frame: DataFrame, feed: Feed, landing: Landing) -> DataFrame:
    """`frame` without the records of erased subjects, its personal columns hashed or dropped."""
    return protect(suppress(frame, feed, landing.settings), feed, landing.settings)


def _log_undeclared(stream: str, new: Iterable[_Summary]) -> None:
    for summary in new:
        if summary.undeclared:
            log.warning(
                "%d values of stream %s in fields that feed %s does not declare were left out: %s",
                summary.undeclared,
                stream,
                summary.feed,
                ", ".join(summary.undeclared_names),
            )
