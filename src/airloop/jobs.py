"""The contract of a job's command line: typed flags in, one result file out, a telling exit status.

Belongs here: what every job shares at its edge. Does not belong here: what a job does, or who starts it.
A person can run any job with the same flags as Airflow: `python -m <module> --help`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from airloop.errors import EXIT_PERMANENT, AirloopError
from airloop.references import Reference
from airloop.settings import Settings, load_settings

log = logging.getLogger(__name__)


def run_job(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace, Settings], Reference],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse `argv`, run `work`, and write what it returns to `--result` (and print it).

    Returns the exit status: 0, or `EXIT_PERMANENT` after an `AirloopError`, whose document is then in the
    result file under `error`. Any other exception is left to Python (status 1, traceback): it may be
    temporary. The result file appears whole or not at all.
    """
    parser.add_argument("--result", type=Path, help="file to write the resulting reference to, as JSON")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        outcome = work(arguments, load_settings()).model_dump(mode="json")
        status = 0
    except AirloopError as error:
        log.error("%s: %s", type(error).__name__, error)
        outcome = {"error": error.as_document()}
        status = EXIT_PERMANENT
    text = json.dumps(outcome)
    if arguments.result is not None:
        write_whole(arguments.result, text)
    print(text, flush=True)
    return status


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
