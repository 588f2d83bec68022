"""How a Spark job's own lineage events are made: what its session is told about OpenLineage's listener.

Belongs here: the listener's options, and when it is on. Does not belong here: sessions
(`spark_jobs.session`), or the events of tasks (`events`).

The listener adds what only Spark knows (columns and what each was computed from, the files and bytes of each
write) below the task's events. It is on only in jobs that a task with lineage events started, so that a job
by hand, an endless stream among them, and a test pay nothing and leave nothing.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from airloop.lineage.parent import parents
from airloop.settings import Settings

JAR: Final = "io.openlineage_openlineage-spark_"
_LOG: Final = Path(__file__).with_name("listener_log.properties")
JAVA_OPTIONS: Final = f"-Dlog4j2.configurationFile=org/apache/spark/log4j2-defaults.properties,{_LOG}"
"""The driver's options beside `listener_options`: Spark's own logging, with less from the listener."""
MOST_SECONDS: Final = 10
"""That a job waits at its end for events that are still to be sent."""

log = logging.getLogger(__name__)


def listener_options(settings: Settings, jars: Sequence[Path]) -> Mapping[str, str]:
    """Spark's options that put OpenLineage's listener on; none where nothing asks for it, or without its jar.

    Events go to a file of this process's own, because Spark writes long lines in pieces, which two processes
    would mix; and to the endpoint if one is set and answers. What goes wrong with an event, a broken listener
    too, stays in the listener's own thread: it costs events, never the job.
    """
    above = parents()
    if above is None or not any(jar.name.startswith(JAR) for jar in jars):
        return {}
    task, dag = above
    file = _folder(settings) / f"{task.job}.{os.getpid()}.jsonl"
    options = {
        "namespace": task.namespace,
        # Jobs are the same from run to run: the session's name has the run's days in it.
        "appName": f"{task.job}.spark",
        "parentJobNamespace": task.namespace,
        "parentJobName": task.job,
        "parentRunId": task.run_id,
        "rootParentJobNamespace": dag.namespace,
        "rootParentJobName": dag.job,
        "rootParentRunId": dag.run_id,
        "circuitBreaker.type": "asyncTaskQueue",
        "circuitBreaker.threadCount": "1",
        "circuitBreaker.queueSize": "10000",
        # Row counts are those of the statement at hand only while Spark's bus waits for its event.
        "circuitBreaker.blockingTimeInSeconds": "5",
        "circuitBreaker.shutdownTimeoutSeconds": str(MOST_SECONDS),
        "columnLineage.datasetLineageEnabled": "true",
        # A write to an audit branch would say the version of `main`. The task's event has the right one.
        "facets.version.disabled": "true",
        "facets.environment-properties.disabled": "true",
        "facets.spark_properties.disabled": "true",
        "filter.rddEventsDisabled": "true",
        # It would replace a part of Iceberg's catalog.
        "vendors.iceberg.metricsReporterDisabled": "true",
        **_transport(file, settings.openlineage_url),
    }
    return {
        "spark.extraListeners": "io.openlineage.spark.agent.OpenLineageSparkListener",
        **{f"spark.openlineage.{name}": value for name, value in options.items()},
        # To the listener, a catalog in a database is one of Hive's, whose address must have a host
        # (OpenLineage#4677). Spark itself does not read this.
        "spark.sql.hive.metastore.uris": f"thrift://{settings.catalog_name}",
    }


def _transport(file: Path, url: str | None) -> dict[str, str]:
    to_file = {"type": "file", "location": str(file)}
    if url is None or not _answers(url):
        return {f"transport.{name}": value for name, value in to_file.items()}
    transports = {
        "file": to_file,
        "endpoint": {"type": "http", "url": url.rstrip("/"), "timeoutInMillis": "1000"},
    }
    return {
        "transport.type": "composite",
        "transport.continueOnFailure": "true",
        **{
            f"transport.transports.{name}.{key}": value
            for name, transport in transports.items()
            for key, value in transport.items()
        },
    }


def _answers(url: str) -> bool:
    """Whether something accepts connections there: asked once, as each of many events would wait for it."""
    address = urlsplit(url)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=2).close()
    except OSError as error:
        log.warning("Spark's lineage events go to the file only: %s:%s (%s)", address.hostname, port, error)
        return False
    return True


def remove_events_before(settings: Settings, before: datetime) -> int:
    """Remove the files of jobs that ended before `before`; returns how many. Safe to repeat."""
    removed = 0
    for file in _folder(settings).glob("*.jsonl"):
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < before.timestamp():
                file.unlink()
                removed += 1
    return removed


def _folder(settings: Settings) -> Path:
    return settings.lineage_events.with_name("spark")
