"""Job: sign an accepted candidate and register it as the challenger.

    python -m airloop.training.register --use-case NAME --evaluated JSON [--result FILE]

Belongs here: checking the verdict at its source, then signing and registering. Does not belong here: judging
(`airloop.verdict`), or serving the version (the rollout).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from airloop.errors import RegistryError
from airloop.jobs import run_job
from airloop.references import Evaluated, RegisteredModel
from airloop.registry import (
    CHALLENGER,
    FEATURE_SERVICE,
    SAVED_MODEL,
    SIGNATURE_DIGEST,
    register_version,
    set_alias,
)
from airloop.settings import Settings
from airloop.signed_models import sign_run
from airloop.training.arguments import parse_reference
from airloop.training.publication import read_verdict
from airloop.training.tracking import CODE_COMMIT, VERDICT_FILE, TrainingRuns
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase

_FROM_RUN: Final = {"feature_service": FEATURE_SERVICE, "code_commit": CODE_COMMIT}
"""Tags of a version that are copied from its run."""


def register(settings: Settings, spec: UseCase, evaluated: Evaluated) -> RegisteredModel:
    """Sign and register the run's SavedModel, once however often this is run; it gets the alias challenger.

    What counts is the verdict document in MLflow, not the reference's word. Raises `RegistryError` when it
    is missing, unreadable, another run's, or a rejection, or when the run is registered already and its model
    is not as it was signed then; nothing is registered then. Raises `SettingsError` without a usable key.
    """
    runs = TrainingRuns(settings, spec)
    run = runs.complete_run(evaluated.run_id)
    verdict = read_verdict(settings, evaluated.run_id)
    if (verdict.use_case, verdict.run_id) != (spec.name, evaluated.run_id):
        raise _refused(
            f"the verdict to be on run {evaluated.run_id} of {spec.name}",
            f"one on run {verdict.run_id} of {verdict.use_case}",
        )
    if not verdict.accepted or not (evaluated.accepted or verdict.overridden_by):
        raise _refused(
            "an accepted candidate", "; ".join(verdict.reasons) or "a reference that says rejected"
        )
    if (failed := verdict.reasons) and verdict.overridden_by is None:
        raise _refused("a verdict whose rules all passed", "; ".join(failed))
    signature_digest = sign_run(settings, spec.model_name, evaluated.run_id)
    said_by_run = {name: run.data.tags[tag] for name, tag in _FROM_RUN.items() if tag in run.data.tags}
    version = register_version(
        settings,
        name=spec.model_name,
        run_id=evaluated.run_id,
        source=runs.artifact_uri(evaluated.run_id, SAVED_MODEL),
        tags={
            "verdict": "accepted",
            "as_of": verdict.training_set.as_of,
            "training_set": verdict.training_set.tag,
            "snapshot_id": str(verdict.training_set.snapshot_id),
            "verdict_uri": runs.artifact_uri(evaluated.run_id, VERDICT_FILE),
            **said_by_run,
            SIGNATURE_DIGEST: signature_digest,
        },
    )
    set_alias(settings, spec.model_name, CHALLENGER, version)
    return RegisteredModel(name=spec.model_name, version=version, run_id=evaluated.run_id)


def _refused(expected: str, found: str) -> RegistryError:
    return RegistryError(
        expected=expected,
        found=found,
        next_step="read the run's verdict.json in MLflow; evaluate it again, or train a better candidate",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Sign an accepted candidate and register it as the challenger."
    )
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--evaluated", required=True, help="Evaluated reference, JSON")

    def work(arguments: argparse.Namespace, settings: Settings) -> RegisteredModel:
        return register(
            settings,
            use_case(arguments.use_case),
            parse_reference(Evaluated, arguments.evaluated, "--evaluated"),
        )

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
