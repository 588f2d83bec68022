"""Job: which version is watched, and the profile that it is compared with, where other jobs can read it.

    python -m airloop.monitoring.reference --use-case NAME --end 2026-11-20T12:00

Belongs here: finding the champion of a moment, and its profile. Does not belong here: making a profile
(`profile`), or comparing with it (`windows`).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import datetime

from airloop.intervals import parse_instant
from airloop.jobs import run_job
from airloop.monitoring.profile import ARTIFACT, Profile, profile_file
from airloop.references import Watched
from airloop.registry import download_artifacts, has_artifact, run_of
from airloop.serving_history import serving_history
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.whole_files import write_whole

log = logging.getLogger(__name__)


def reference(settings: Settings, spec: UseCase, end: datetime) -> Watched:
    """The version that was the champion just before `end`.

    `skipped` says why where there is none to watch, or it has no profile.
    """
    periods = serving_history(settings, spec.name).periods
    version = next(
        (period.version for period in reversed(periods) if period.start is None or period.start < end), None
    )
    if version is None:
        return Watched(
            use_case=spec.name,
            skipped=f"no version of {spec.name} was champion before {end.isoformat()}: nothing to watch",
        )
    run_id = run_of(settings, spec.model_name, version)
    if not has_artifact(settings, run_id, ARTIFACT):
        # Nothing that this run could mend: failing would page every hour until the next model serves.
        return Watched(
            use_case=spec.name,
            skipped=f"version {version} cannot be watched: its run {run_id} has no {ARTIFACT}, for it was "
            f"evaluated before there were any; clear `evaluate` in the {spec.name}_training run that made "
            "it, or promote another version",
        )
    kept = profile_file(settings, spec.name, run_id)
    with_run = download_artifacts(settings, run_id, ARTIFACT, kept.parent / run_id)
    write_whole(kept, Profile.model_validate_json(with_run.read_text("utf-8")).model_dump_json())
    log.info("version %d (run %s) is watched", version, run_id)
    return Watched(use_case=spec.name, version=version, run_id=run_id)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> Watched:
        return reference(settings, use_case(arguments.use_case), parse_instant(arguments.end))

    parser = argparse.ArgumentParser(description="The version to watch, and what it is compared with.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--end", required=True, help="end of the window, ISO 8601, UTC")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
