"""Log lines: their form, and where those of a program or a job go.

Belongs here: the handlers of the standard library's logging, once for a process. Does not belong here: what
is logged, and what Airflow's own programs write (Airflow has a setting for that).

With the setting `log_format` at `json`, each line is one JSON object in the Elastic Common Schema, with the
trace's ids, an exception in fields of its own, and, of a job, its use case and Airflow run. A server's lines
go to standard error. A job's lines stay text there, because people read them in Airflow's task log; a JSON
copy goes to a file a day under the state folder, from where Filebeat takes them.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from ecs_logging import StdlibFormatter
from opentelemetry import trace

from airloop.settings import Settings

JSON: Final = "json"
SERVER_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
JOB_TEXT: Final = "%(levelname)s %(name)s: %(message)s"
JOB: Final = "job"
"""`service.name` of all jobs; `airloop.job` tells which."""
# The message is there already (uvicorn's in colours too); a thread or file tells no more than the logger.
_LEFT_OUT: Final = (
    "log.original",
    "log.origin",
    "process.name",
    "process.thread",
    "taskName",
    "color_message",
)

log = logging.getLogger(__name__)


class EcsLines(StdlibFormatter):
    """Elastic's formatter, with the current span's ids and `fields` that every line has."""

    def __init__(self, service: str, fields: Mapping[str, Any] | None = None, hidden: str = "") -> None:
        """`hidden` names an attribute of records that is no field."""
        left_out = (*_LEFT_OUT, hidden) if hidden else _LEFT_OUT
        super().__init__(extra={"service.name": service, **(fields or {})}, exclude_fields=left_out)

    def format_to_ecs(self, record: logging.LogRecord) -> dict[str, Any]:
        """The line's fields; those with a dot in their name are nested objects, as Elasticsearch has them."""
        found: dict[str, Any] = super().format_to_ecs(record)
        current = trace.get_current_span().get_span_context()
        if current.is_valid:
            found["trace"] = {"id": f"{current.trace_id:032x}"}
            found["span"] = {"id": f"{current.span_id:016x}"}
        return found


def configure_server(service: str, log_format: str) -> None:
    """Have a server's lines go to standard error: as text, or as JSON of `service`, uncaught errors too."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == JSON:
        handler.setFormatter(EcsLines(service))
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught
        threading.excepthook = _log_uncaught_in_thread
    else:
        handler.setFormatter(logging.Formatter(SERVER_TEXT))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def configure_job() -> None:
    """Have a job's lines go to standard error as text, unless this process logs somewhere already."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=JOB_TEXT)


@contextmanager
def copied_as_json(settings: Settings, fields: Mapping[str, Any]) -> Iterator[None]:
    """Have a job's lines, with `fields`, go to the day's file too, where the settings ask for JSON.

    So does the exception that ends it, which Python itself prints as text. A file that cannot be written
    costs the copy, never the job.
    """
    handler = _file_handler(settings, fields) if settings.log_format == JSON else None
    if handler is None:
        yield
        return
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    except Exception as error:
        handler.handle(_uncaught(type(error), error, error.__traceback__))
        raise
    finally:
        root.removeHandler(handler)
        handler.stream.close()


def remove_job_logs_before(settings: Settings, before: datetime) -> int:
    """Remove the days' files that nothing was written to since `before`; returns how many. Safe to repeat."""
    removed = 0
    for file in settings.job_logs_dir.glob("*.jsonl"):
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < before.timestamp():
                file.unlink()
                removed += 1
    return removed


def _file_handler(
    settings: Settings, fields: Mapping[str, Any]
) -> logging.StreamHandler[TextIOWrapper] | None:
    file = settings.job_logs_dir / f"{datetime.now(UTC):%Y-%m-%d}.jsonl"
    try:
        stream = _append_lines(file)
    except OSError as error:
        log.warning("No JSON copy of this log: %s: %s", file, error.strerror)
        return None
    handler = logging.StreamHandler(stream)
    handler.setFormatter(EcsLines(JOB, fields))
    return handler


def _append_lines(file: Path) -> TextIOWrapper:
    """`file`, to which several processes append at a time: each line must be one write, never two."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return TextIOWrapper(file.open("ab", buffering=0), encoding="utf-8", write_through=True)


def _uncaught(
    kind: type[BaseException], error: BaseException | None, where: TracebackType | None
) -> logging.LogRecord:
    message, record = f"ended by {kind.__name__}", logging.getLogger("airloop").makeRecord
    exception = (kind, error or kind(), where)
    return record("airloop", logging.CRITICAL, "", 0, message, (), exception)


def _log_uncaught(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
        return
    logging.getLogger("airloop").handle(_uncaught(kind, error, where))


def _log_uncaught_in_thread(ended: threading.ExceptHookArgs) -> None:
    if not issubclass(ended.exc_type, SystemExit):
        logging.getLogger("airloop").handle(_uncaught(ended.exc_type, ended.exc_value, ended.exc_traceback))
