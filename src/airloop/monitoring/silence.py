"""Job: a person silences a cause until a date, and says why.

    python -m airloop.monitoring.silence --use-case NAME --cause drift --until 2026-12-01 --by Ada
        --reason "..." --at 2026-11-20T12:20

Belongs here: taking a silence down, in its table and in the audit log. Does not belong here: what it keeps
quiet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from airloop.airflow_run import run_id
from airloop.audit_log import append_record
from airloop.errors import MonitoringError
from airloop.intervals import parse_instant
from airloop.jobs import run_job
from airloop.lakehouse.catalog import open_catalog
from airloop.monitoring.silences import ALERTS, Silence, add_silence
from airloop.references import Silenced
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase

LONGEST: Final = timedelta(days=90)
"""What is to be quiet for longer belongs in the spec, where others read it."""


def silence(settings: Settings, spec: UseCase, at: datetime, asked: Silence) -> Silenced:
    """Keep `asked`, said at `at`; one that ends by then lifts what was silenced. Safe to repeat.

    Raises `MonitoringError` for an unknown cause, for a missing reason or name, and beyond `LONGEST`.
    """
    if not asked.reason.strip() or not asked.who.strip():
        raise MonitoringError(
            expected="a reason, and the name of who silences it",
            found="an empty one",
            next_step="say both: who is on call next has to know",
        )
    if asked.until - at > LONGEST:
        raise MonitoringError(
            expected=f"an end within {LONGEST.days} days",
            found=f"{asked.until:%Y-%m-%d}",
            next_step="choose an earlier end; to be quiet for good, change `monitoring` or `retraining` in "
            "the use case's spec",
        )
    add_silence(open_catalog(settings), spec, at, asked)
    append_record(
        settings,
        kind="silence",
        key=f"{spec.name} {run_id()} {at.isoformat()}",
        who=asked.who,
        what={
            "use_case": spec.name,
            "cause": asked.cause,
            "until": asked.until.isoformat(),
            "reason": asked.reason,
            "run": run_id(),
        },
    )
    return Silenced(cause=asked.cause, until=asked.until.isoformat(), lifted=asked.until <= at)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> Silenced:
        asked = Silence(arguments.cause, parse_instant(arguments.until), arguments.reason, arguments.by)
        return silence(settings, use_case(arguments.use_case), parse_instant(arguments.at), asked)

    parser = argparse.ArgumentParser(description="Silence a cause until a date.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--cause", required=True, help=f"{', '.join(ALERTS)} or 'drift of <feature>'")
    parser.add_argument("--until", required=True, help="ISO 8601, UTC; a past moment lifts a silence")
    parser.add_argument("--reason", required=True, help="why")
    parser.add_argument("--by", required=True, help="who silences it")
    parser.add_argument("--at", required=True, help="the present moment, ISO 8601, UTC")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
