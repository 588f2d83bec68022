"""A job of the least kind, run as a process: it logs, and ends as it is told to."""

from __future__ import annotations

import argparse
import logging
import sys
import threading

from airloop.errors import IntervalError
from airloop.jobs import run_job
from airloop.references import Reference
from airloop.settings import Settings

log = logging.getLogger("small_job")


class Looked(Reference):
    """What the process has at its end."""

    threads: int
    has_sdk: bool


def work(arguments: argparse.Namespace, _settings: Settings) -> Looked:
    """Log a line, then end as `--end-as` says."""
    log.info("begun with %s", "an argument")
    match arguments.end_as:
        case "refused":
            raise IntervalError(expected="a day", found="none", next_step="give one")
        case "broken":
            raise ZeroDivisionError("planted failure\nof two lines")
    return Looked(threads=threading.active_count(), has_sdk="opentelemetry.sdk.trace" in sys.modules)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for flag in ("--use-case", "--start", "--end", "--end-as"):
        parser.add_argument(flag)
    sys.exit(run_job(parser, work))
