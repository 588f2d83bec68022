"""The stream job within this process: for what needs no process of its own, so no new JVM for each run."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any, NamedTuple

from pyspark.sql import SparkSession

from airloop.connections import Connection
from airloop.references import StreamIngested
from airloop.settings import Settings
from airloop.sources.streams import stream_of
from airloop.use_cases.catalogue import use_case
from spark_jobs.session import open_session
from spark_jobs.stream_ingest import stream_ingest


def session_for(settings: Settings) -> SparkSession:
    """A session on the tables of `settings`, beside whatever session this process has already."""
    there = SparkSession.getActiveSession() or open_session(settings, "stream tests")
    session = there.newSession()
    settings.warehouse.mkdir(parents=True, exist_ok=True)
    settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    catalog = f"spark.sql.catalog.{settings.catalog_name}"
    session.conf.set(f"{catalog}.uri", f"jdbc:sqlite:{settings.catalog_database}?busy_timeout=60000")
    session.conf.set(f"{catalog}.warehouse", settings.warehouse.as_uri())
    return session


class Landed(NamedTuple):
    """One stream of `flight_delay`, landed by calls."""

    spark: SparkSession
    settings: Settings
    stream: str
    connection: Connection

    def to_tip(self, **options: Any) -> StreamIngested:
        """Land everything up to the tip."""
        spec = use_case("flight_delay")
        stream = stream_of(spec, self.stream)
        return stream_ingest(self.spark, spec, stream, self.connection, self.settings, **options)

    def in_background(self, stop: threading.Event) -> threading.Thread:
        """Land continuously until `stop` is set."""
        every = timedelta(seconds=0.2)
        thread = threading.Thread(target=self.to_tip, kwargs={"every": every, "stop": stop})
        thread.start()
        return thread
