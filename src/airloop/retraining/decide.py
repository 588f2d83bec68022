"""Job: whether a candidate is to be trained now, and why.

    python -m airloop.retraining.decide --use-case NAME --at 2026-11-20T12:20

Belongs here: from what monitoring found and what was trained before to a decision, which is kept. Does not
belong here: the rule (`decision`), or requesting the training (the DAG).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import datetime

from airloop.intervals import parse_instant
from airloop.jobs import run_job
from airloop.lakehouse.catalog import open_catalog
from airloop.monitoring.silences import silences_of
from airloop.references import RetrainingDecision
from airloop.retraining.causes import causes
from airloop.retraining.decision import Past, Refusal, decide
from airloop.retraining.past import trainings_of
from airloop.retraining.requests import keep_decision, other_decisions
from airloop.serving_history import recorded_champion
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase

log = logging.getLogger(__name__)

NEEDS_A_PERSON = (Refusal.STOPPED, Refusal.BUDGET)


def decide_at(settings: Settings, spec: UseCase, at: datetime) -> RetrainingDecision:
    """Decide at the moment `at`, and write it down.

    `skipped` says why where there is no champion yet: the first training is a person's, or the schedule's.
    """
    version = recorded_champion(settings, spec.name)
    if version is None:
        return RetrainingDecision(skipped=f"nothing serves {spec.name} yet, so there is nothing to replace")
    catalog = open_catalog(settings)
    before = other_decisions(catalog, spec, at)
    past = Past(before.last_request, trainings_of(settings, spec, at))
    known = [training.as_of for training in past.trainings if training.as_of and training.outcome != "failed"]
    found = causes(catalog, spec, version, max(known, default=None), at, silences_of(catalog, spec).at(at))
    decision = decide(spec.retraining, at, found, past)
    keep_decision(catalog, spec, version, at, decision)
    log.info("%s", decision.said)
    return RetrainingDecision(
        version=version,
        requested=decision.requested,
        causes=tuple(cause.name for cause in decision.causes),
        refusal=decision.refusal,
        said=decision.said,
        # Once, not every hour until the next request.
        needs_a_person=decision.refusal in NEEDS_A_PERSON and decision.refusal not in before.refusals,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> RetrainingDecision:
        return decide_at(settings, use_case(arguments.use_case), parse_instant(arguments.at))

    parser = argparse.ArgumentParser(description="Whether a candidate is to be trained now, and why.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--at", required=True, help="the moment to decide at, ISO 8601, UTC")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
