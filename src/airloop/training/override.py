"""Job: accept a rejected candidate, in the name of a person who says why.

    python -m airloop.training.override --use-case NAME --run-id ID --by NAME --reason TEXT [--who USER]
    [--result FILE]

Belongs here: who may not, and the record of who did. Does not belong here: the rules (`airloop.verdict`), or
registering (`airloop.training.register`, which takes what this job returns). The rules of the verdict stay as
they are; what changes is the outcome, and whose it is.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from airloop.airflow_run import run_id as airflow_run_id
from airloop.approval import require_approver
from airloop.audit_log import append_record
from airloop.errors import AirloopError, RegistryError
from airloop.jobs import run_job
from airloop.references import Evaluated
from airloop.settings import Settings
from airloop.training.evaluate import load_model
from airloop.training.model_card import CardFacts
from airloop.training.publication import publish, read_facts, read_verdict
from airloop.training.tracking import TrainingRuns
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.verdict import Override, Verdict, overridden, rule_names
from airloop.work_folders import work_folder

RECORD: Final = "verdict overridden"
"""Kind of the record in the audit log."""
LAST_WORD: Final = frozenset({"undefined_measures", "all_test_rows_measured"})
"""Rules that nobody overrides: without measures of all test rows there is nothing to weigh."""


class OverrideError(AirloopError):
    """The verdict cannot be overridden, or not like this."""


def override(
    settings: Settings, spec: UseCase, run_id: str, *, by: str, reason: str, now: datetime, who: str = ""
) -> Evaluated:
    """Accept the rejected candidate of run `run_id`; verdict, pages, tags and audit log say who and why.

    `who` is the user of Airflow who started the run, as Airflow knows it; on record beside the name that they
    gave. Repeating it with the same name and reason changes nothing. The record is in the audit log before
    the verdict says accepted. Raises `ApprovalError` where the settings name approvers and `who` is none,
    `OverrideError` for an empty name or reason, for a verdict on another use case, an accepted one, one that
    somebody else overrode, and one with a failed rule of `LAST_WORD`; and `RegistryError` when the run is not
    complete or not evaluated, or its model is missing or cannot be asked.
    """
    by, reason = by.strip(), reason.strip()
    if not by or not reason:
        raise OverrideError(
            expected="the name of the person who accepts the candidate, and a reason",
            found=f"name {by!r}, reason {reason!r}",
            next_step="pass both; they are recorded",
        )
    if settings.approvers:
        require_approver(settings, who, f"the candidate of run {run_id}")
    runs = TrainingRuns(settings, spec)
    runs.complete_run(run_id)
    verdict = read_verdict(settings, run_id)
    if (verdict.use_case, verdict.run_id) != (spec.name, run_id):
        raise OverrideError(
            expected=f"the verdict on run {run_id} of {spec.name}",
            found=f"one on run {verdict.run_id} of {verdict.use_case}",
            next_step="pass the use case that the run was trained for",
        )
    with work_folder(settings, "override") as scratch:
        load_model(settings, spec, run_id, scratch)
    if verdict.override is None:
        verdict = _overridden(settings, verdict, by, reason, now, who)
    elif (verdict.override.by, verdict.override.reason) != (by, reason):
        raise OverrideError(
            expected=f"a verdict on run {run_id} that nobody overrode",
            found=f"{verdict.override.by} overrode it on {verdict.override.at}: {verdict.override.reason}",
            next_step="nothing is left to do; the candidate is accepted",
        )
    return publish(settings, spec, runs, verdict, _facts(settings, run_id))


def _overridden(
    settings: Settings, verdict: Verdict, by: str, reason: str, now: datetime, who: str
) -> Verdict:
    failed = verdict.failed
    if not failed or verdict.accepted:
        raise OverrideError(
            expected=f"a rejected candidate of run {verdict.run_id}",
            found="one that every rule accepts",
            next_step="register it (airloop.training.register, or the training DAG)",
        )
    if missing := sorted({rule.name for rule in failed} & LAST_WORD):
        raise OverrideError(
            expected="a verdict whose measures are there",
            found=f"failed: {', '.join(missing)}",
            next_step="find out why the model could not be measured; nobody can know what it would do",
        )
    rules, at = rule_names(failed), now.isoformat(timespec="seconds")
    judged = verdict.model_dump_json()
    digest = hashlib.sha256("\n".join((judged, by, reason)).encode()).hexdigest()
    entry = append_record(
        settings,
        kind=RECORD,
        # Another verdict on the same run, or another person, is another decision.
        key=f"{verdict.run_id} {digest}",
        who=by,
        what={
            "reason": reason,
            "run": airflow_run_id(),
            "use_case": verdict.use_case,
            "mlflow_run": verdict.run_id,
            "training_set": verdict.training_set.tag,
            "rules": list(rules),
            "verdict_sha256": hashlib.sha256(judged.encode()).hexdigest(),
            **({"airflow_user": who} if who else {}),
        },
    )
    return overridden(
        verdict, Override(by=by, reason=reason, at=at, rules=rules, audit_record=entry.sequence)
    )


def _facts(settings: Settings, run_id: str) -> CardFacts | None:
    """None for a run without a card."""
    try:
        return read_facts(settings, run_id)
    except RegistryError:
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Accept a rejected candidate, by name and with a reason.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--run-id", required=True, help="MLflow run of the candidate")
    parser.add_argument("--by", required=True, help="name of the person who accepts it")
    parser.add_argument("--reason", required=True, help="why; names no subject of the data")
    parser.add_argument("--who", default="", help="user of Airflow who started the run")

    def work(arguments: argparse.Namespace, settings: Settings) -> Evaluated:
        return override(
            settings,
            use_case(arguments.use_case),
            arguments.run_id,
            by=arguments.by,
            who=arguments.who,
            reason=arguments.reason,
            now=datetime.now(UTC),
        )

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
