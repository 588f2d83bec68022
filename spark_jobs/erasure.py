"""Erasure: one subject out of every table, branch, tag and snapshot, the online store, logs and reports.

    python -m spark_jobs.erasure --use-case NAME --step plan|erase|prove --subject-file FILE [--result FILE]

Belongs here: the order of the steps, and the command line. Does not belong here: how each is done
(`airloop.erasure`, `feature_repo.erase_online`), models (`airloop.erasure.models`). It stands with the Spark
jobs because it rewrites what they write, through the same catalog; it needs no session itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from airloop.airflow_run import run_id
from airloop.audit_log import append_record
from airloop.erasure import ErasureError
from airloop.erasure.lakehouse import erase_tables, erased_training_sets, remove_strays, survey_tables
from airloop.erasure.proof import conclude, scan_everything
from airloop.erasure.subject import digest_of, erasure_key, read_subject
from airloop.erasure.suppression import suppress_subject
from airloop.erasure.texts import erase_texts, mentioning
from airloop.erasure.traces import Traces
from airloop.jobs import run_job
from airloop.pseudonyms import all_keys, find_key
from airloop.references import ErasureDone, ErasurePlan, ErasureProof
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import Erasure, UseCase
from feature_repo.erase_online import online_traces

GRACE_MINUTES = 180
"""Longer than a job may run: an older file that no table knows has no writer any more."""


class Request(NamedTuple):
    """Whose data, by which rules."""

    spec: UseCase
    erasure: Erasure
    subject: str
    traces: Traces
    digest: str


def make_request(spec: UseCase, subject: str, settings: Settings) -> Request:
    """The request to erase `subject`; raises `ErasureError` where the spec says nothing of erasing, and
    `SettingsError` when the key of its pseudonyms is missing."""
    if spec.erasure is None:
        raise ErasureError(
            expected=f"use case {spec.name} to say in its spec how a subject is erased",
            found="nothing",
            next_step="add erasure=Erasure(...) to its module under src/airloop/use_cases/",
        )
    find_key(spec.feeds)
    digest = digest_of(subject, erasure_key(settings))
    return Request(spec, spec.erasure, subject, Traces.of(subject, all_keys()), digest)


def plan(request: Request, settings: Settings) -> ErasurePlan:
    """What there is of the subject. Changes nothing."""
    tables, training_sets = survey_tables(settings, request.erasure, request.traces, request.digest)
    return ErasurePlan(
        subject=request.digest,
        use_case=request.spec.name,
        tables=tables,
        online_entries=online_traces(settings, request.traces).count(),
        texts=sum(1 for _ in mentioning(settings, request.traces)),
        training_sets=training_sets,
    )


def erase(request: Request, settings: Settings, grace_minutes: int = GRACE_MINUTES) -> ErasureDone:
    """Erase the subject; killed at any point, it is finished by being run again.

    First ingestion is told to keep the subject out, so that nothing comes back behind the erasure.
    """
    suppress_subject(settings, request.erasure, request.subject)
    append_record(
        settings,
        kind="erasure started",
        key=f"{run_id()} {request.digest}",
        what={"use_case": request.spec.name, "subject": request.digest, "run": run_id()},
    )
    tables = erase_tables(settings, request.erasure, request.traces, request.digest)
    online = online_traces(settings, request.traces).erase()
    masked, staged = erase_texts(settings, request.traces, grace_minutes)
    return ErasureDone(
        subject=request.digest,
        use_case=request.spec.name,
        tables=tables,
        online_entries=online,
        texts_masked=masked,
        strays_removed=staged + remove_strays(settings, request.traces, grace_minutes),
        training_sets=erased_training_sets(settings, request.digest),
    )


def prove(request: Request, settings: Settings, *, accept_similar: bool = False) -> ErasureProof:
    """Scan everything; raises `ErasureError` when anything of the subject is left."""
    scan = scan_everything(settings, request.traces)
    entries = online_traces(settings, request.traces).scan(scan)
    return conclude(request.digest, scan, entries, accept_similar)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--step", required=True, choices=("plan", "erase", "prove"))
    parser.add_argument("--subject-file", required=True, type=Path, help="file with the subject, one line")
    parser.add_argument(
        "--grace-minutes",
        type=int,
        default=GRACE_MINUTES,
        help="age from which on a file that no table knows has no writer",
    )
    parser.add_argument(
        "--accept-similar",
        choices=("true", "false"),
        default="false",
        help="true: longer names that contain the subject's are other subjects'",
    )

    def work(arguments: argparse.Namespace, settings: Settings) -> ErasurePlan | ErasureDone | ErasureProof:
        request = make_request(use_case(arguments.use_case), read_subject(arguments.subject_file), settings)
        if arguments.step == "plan":
            return plan(request, settings)
        if arguments.step == "erase":
            return erase(request, settings, arguments.grace_minutes)
        return prove(request, settings, accept_similar=arguments.accept_similar == "true")

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
