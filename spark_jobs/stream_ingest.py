"""Stream ingestion: what a broker holds and the raw tables do not, landed exactly once; then stop, or go on.

Belongs here: the command line, one run at a time, and the report. Does not belong here: the brokers
(`streams.kafka`, `streams.kinesis`) or the landing (`streams.landing`).

By default the job reads to the tip as it is at the start and ends, as the hourly DAG wants it; with
`--continuous` the same job goes on until it is stopped (SIGTERM ends it after the batch in hand). It may be
killed at any point: the next run goes on from what the tables hold.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from pyspark.sql import SparkSession

from airloop.airflow_run import run_id
from airloop.connections import Connection, require_connection
from airloop.errors import SourceError
from airloop.jobs import run_job
from airloop.lakehouse import properties
from airloop.references import StreamIngested, TableSnapshot
from airloop.settings import REPOSITORY, Settings
from airloop.sources.streams import feeds_by_topic, stream_of
from airloop.training.provenance import code_commit
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import Stream, UseCase
from spark_jobs.arguments import job_parser
from spark_jobs.raw_tables import QUARANTINE, raw_table
from spark_jobs.session import open_session
from spark_jobs.streams.kafka import ingest_kafka
from spark_jobs.streams.kinesis import ingest_kinesis
from spark_jobs.streams.landing import Landing, prepare_tables
from spark_jobs.streams.positions import acknowledge, commits_since_acknowledged, load_tables

log = logging.getLogger(__name__)

MOST_DAYS = 400
"""Days that a report names; more than a year's worth of late records is a backfill."""


def stream_ingest(
    spark: SparkSession,
    spec: UseCase,
    stream: Stream,
    connection: Connection,
    settings: Settings,
    *,
    every: timedelta | None = None,
    max_messages: int = 100_000,
    accept_loss: bool = False,
    stop: threading.Event | None = None,
) -> StreamIngested:
    """Land `stream` up to its tip, or with `every` (the time between batches) until `stop` is set.

    Raises `SourceError` when messages were lost at the broker before they could be landed (see
    `accept_loss`), or when another run of the same stream is at work on this machine.
    """
    signature = {
        properties.USE_CASE: spec.name,
        properties.RUN_ID: run_id(),
        properties.COMMIT: code_commit(REPOSITORY),
    }
    landing = Landing(stream.name, feeds_by_topic(spec, stream), settings, signature)
    checkpoint = settings.state_dir / "checkpoints" / spec.name / stream.name
    ingest = ingest_kafka if stream.broker == "kafka" else ingest_kinesis
    with only_run(checkpoint.with_name(f"{stream.name}.lock"), stream):
        prepare_tables(spark, landing)
        ingest(
            spark,
            landing,
            connection,
            checkpoint,
            every=every,
            max_messages=max_messages,
            accept_loss=accept_loss,
            stop=stop or threading.Event(),
        )
        return report(landing)


@contextmanager
def only_run(lock: Path, stream: Stream) -> Iterator[None]:
    """Hold `lock` meanwhile; the system lets go of it when the process ends, however it ends.

    Two runs of one stream would each land what the other has not committed yet.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SourceError(
                expected=f"one run of stream {stream.name!r} at a time",
                found="another one at work",
                next_step="let it end, or stop it; a stream that a continuous job lands needs no hourly DAG",
            ) from None
        yield


def report(landing: Landing) -> StreamIngested:
    """What the stream committed and no run reported yet; and note in the tables that it is reported now."""
    tables = load_tables(landing.settings, landing.tables)
    rows, snapshots, days = {}, [], set()
    for name, table in tables.items():
        commits = commits_since_acknowledged(table, landing.stream)
        rows[name] = sum(commit.rows for commit in commits)
        days |= {day for commit in commits for day in commit.days}
        if commits:
            snapshots.append(TableSnapshot(table=name, snapshot_id=commits[-1].snapshot_id, rows=rows[name]))
        acknowledge(table, landing.stream)
    listed = sorted(days)[-MOST_DAYS:]
    return StreamIngested(
        stream=landing.stream,
        rows={feed.name: rows[raw_table(feed)] for feed in landing.feeds.values()},
        quarantined=rows[QUARANTINE],
        days=tuple(listed),
        days_omitted=len(days) - len(listed),
        snapshots=tuple(snapshots),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = job_parser(__doc__, interval=False)
    parser.add_argument("--stream", required=True, help="name of the stream in the use case's spec")
    parser.add_argument("--continuous", action="store_true", help="go on until stopped, not only to the tip")
    parser.add_argument("--trigger-seconds", type=float, default=60.0, help="between batches, if continuous")
    parser.add_argument("--max-messages", type=int, default=100_000, help="of one batch, about")
    parser.add_argument(
        "--accept-loss",
        nargs="?",
        const="yes",
        choices=("yes", "no"),
        help="go on although messages are gone from the broker that were never landed",
    )

    def work(arguments: argparse.Namespace, settings: Settings) -> StreamIngested:
        spec = use_case(arguments.use_case)
        stream = stream_of(spec, arguments.stream)
        connection = require_connection(stream.connection)
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        return stream_ingest(
            open_session(settings, f"{spec.name} stream {stream.name}"),
            spec,
            stream,
            connection,
            settings,
            every=timedelta(seconds=arguments.trigger_seconds) if arguments.continuous else None,
            max_messages=arguments.max_messages,
            accept_loss=arguments.accept_loss == "yes",
            stop=stop,
        )

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
