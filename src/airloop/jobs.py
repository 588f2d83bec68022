"""The contract of a job's command line: typed flags in, one result file out, a telling exit status.

Belongs here: what every job shares at its edge. Does not belong here: what a job does, or who starts it.
A person can run any job with the same flags as Airflow: `python -m <module> --help`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from airloop.airflow_run import task_fields
from airloop.errors import EXIT_PERMANENT, AirloopError
from airloop.logs import JOB, configure_job, copied_as_json
from airloop.outages import reason_of
from airloop.references import Reference
from airloop.settings import Settings, load_settings
from airloop.traces import begin, fail, from_environment, tracing
from airloop.whole_files import write_whole

log = logging.getLogger(__name__)

_ABOUT = {
    "airloop.use_case": "use_case",
    "airloop.interval_start": "start",
    "airloop.interval_end": "end",
    "airloop.as_of": "as_of",
}
"""Fields of log lines and spans, and the flags that say them."""


def run_job(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace, Settings], Reference],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse `argv`, run `work`, and write what it returns to `--result` (and print it).

    Returns the exit status: 0, or `EXIT_PERMANENT` after an `AirloopError`, whose document is then in the
    result file under `error`. Any other exception is left to Python (status 1, traceback): it may be
    temporary. The file then has its one line under `failure`, if the file can be written. The result file
    appears whole or not at all.
    """
    parser.add_argument("--result", type=Path, help="file to write the resulting reference to, as JSON")
    arguments = parser.parse_args(argv)
    configure_job()
    try:
        settings = load_settings()
    except AirloopError as error:
        outcome, status = _refused(error)
    else:
        try:
            outcome, status = _observed(work, arguments, settings)
        except Exception as error:
            _leave_reason(arguments, error)
            raise
    text = json.dumps(outcome)
    if arguments.result is not None:
        write_whole(arguments.result, text)
    print(text, flush=True)
    return status


def _observed(
    work: Callable[[argparse.Namespace, Settings], Reference],
    arguments: argparse.Namespace,
    settings: Settings,
) -> tuple[dict[str, Any], int]:
    """What `work` came to and the exit status: within the job's span, and with its log lines copied."""
    about = _about(work, arguments)
    fields = {**about, **{f"airflow.{name}": value for name, value in task_fields().items()}}
    with (
        tracing(settings, JOB) as tracer,
        begin(tracer, f"job {about['airloop.job']}", from_environment(), attributes=fields) as span,
        copied_as_json(settings, fields),
    ):
        try:
            return work(arguments, settings).model_dump(mode="json"), 0
        except AirloopError as error:
            fail(span, type(error).__name__)
            return _refused(error)


def _leave_reason(arguments: argparse.Namespace, error: Exception) -> None:
    if arguments.result is None:
        return
    # The disk that is full may be this one's; the traceback is told all the same.
    with suppress(OSError):
        write_whole(arguments.result, json.dumps({"failure": reason_of(error)}))


def _refused(error: AirloopError) -> tuple[dict[str, Any], int]:
    log.error("%s: %s", type(error).__name__, error)
    return {"error": error.as_document()}, EXIT_PERMANENT


def _about(work: Callable[..., Reference], arguments: argparse.Namespace) -> dict[str, str]:
    """What lines and spans say of a job: its module, its use case and the time that it is about."""
    # Run as `python -m`, a module's functions say that they are of "__main__".
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    module = main.name if main is not None and work.__module__ == "__main__" else work.__module__
    given = {name: getattr(arguments, flag, None) for name, flag in _ABOUT.items()}
    return {"airloop.job": module, **{name: str(value) for name, value in given.items() if value}}
