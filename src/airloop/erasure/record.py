"""Job: a finished erasure becomes a record of the audit log.

    python -m airloop.erasure.record --plan JSON --done JSON --proof JSON --models JSON --reason TEXT

Belongs here: what of an erasure is kept for ever. Does not belong here: the log itself (`airloop.audit_log`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from airloop.airflow_run import run_id
from airloop.audit_log import append_record
from airloop.erasure import ErasureError
from airloop.jobs import run_job
from airloop.references import AuditEntry, ErasureDone, ErasureModels, ErasurePlan, ErasureProof
from airloop.settings import Settings
from airloop.training.arguments import parse_reference


def record(
    settings: Settings,
    plan: ErasurePlan,
    done: ErasureDone,
    proof: ErasureProof,
    models: ErasureModels,
    *,
    reason: str,
    who: str,
) -> AuditEntry:
    """Append the erasure to the audit log, once per run; raises `ErasureError` for mixed parts."""
    subjects = {plan.subject, done.subject, proof.subject, models.subject}
    if len(subjects) > 1:
        raise ErasureError(
            expected="plan, outcome, proof and models of one subject",
            found=f"those of {len(subjects)}",
            next_step="pass the results of one run",
        )
    return append_record(
        settings,
        kind="erasure proved",
        key=f"{run_id()} {plan.subject}",
        who=who,
        what={
            "reason": reason,
            "run": run_id(),
            "use_case": plan.use_case,
            "subject": plan.subject,
            "found": [table.model_dump(mode="json") for table in plan.tables],
            "erased": done.model_dump(mode="json", exclude={"subject", "use_case", "training_sets"}),
            "training_sets": [item.model_dump(mode="json") for item in done.training_sets],
            "models": models.model_dump(mode="json", exclude={"subject"}),
            "proof": proof.model_dump(mode="json", exclude={"subject"}),
        },
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = argparse.ArgumentParser(description="Write a finished erasure to the audit log.")
    for flag in ("plan", "done", "proof", "models"):
        parser.add_argument(f"--{flag}", required=True, help="reference of that step, JSON")
    parser.add_argument("--reason", required=True, help="why it was asked for; names no subject")
    parser.add_argument("--who", default="by-hand", help="who asked for it")

    def work(arguments: argparse.Namespace, settings: Settings) -> AuditEntry:
        return record(
            settings,
            parse_reference(ErasurePlan, arguments.plan, "--plan"),
            parse_reference(ErasureDone, arguments.done, "--done"),
            parse_reference(ErasureProof, arguments.proof, "--proof"),
            parse_reference(ErasureModels, arguments.models, "--models"),
            reason=arguments.reason,
            who=arguments.who,
        )

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
