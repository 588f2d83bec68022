"""Job: the models that an erased subject's rows trained, and what their specs say is to become of them.

    python -m airloop.erasure.models (--plan JSON | --done JSON) [--result FILE]

Belongs here: finding the runs and versions by their training set's tag, marking them, revoking. Does not
belong here: training again (the DAG raises the request), or changing what serves (the rollout).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from airloop.errors import SpecError
from airloop.jobs import run_job
from airloop.references import ErasureDone, ErasureModel, ErasureModels, ErasurePlan, ErasureTrainingSet
from airloop.registry import drop_alias, open_registry
from airloop.settings import Settings
from airloop.training.arguments import parse_reference
from airloop.training.tracking import TRAINING_SET
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase

ERASED: Final = "airloop.erased"
"""Tag of a run and a version: digests of the subjects that were erased from their training set, by comma."""
ERASED_SNAPSHOT: Final = "airloop.snapshot_id_after_erasure"
"""Tag of a run: what its training set's tag pins since, in place of the expired `airloop.snapshot_id`."""
REVOKED: Final = "airloop.revoked"
"""Tag of a version that must not serve any more; says why."""
_RUNS: Final = 500


def affected_models(settings: Settings, erasure: ErasurePlan | ErasureDone) -> ErasureModels:
    """The models of the training sets that have or had the subject.

    After an `ErasureDone` they are marked, and revoked where the spec says so; a plan only lists them. What
    interrupted trainings of the use case left (weights that learnt from its rows) goes then too.
    Marking is safe to repeat. Revoking takes the version's aliases; the model server keeps what it has loaded
    until a rollout of another version.
    """
    client = open_registry(settings)
    models: list[ErasureModel] = []
    for training_set in erasure.training_sets:
        try:
            spec = use_case(training_set.use_case)
        except SpecError:
            continue  # the table of a use case that is gone
        if isinstance(erasure, ErasureDone):
            shutil.rmtree(settings.checkpoints_dir / spec.name, ignore_errors=True)
        for model in _models_of(client, spec, training_set):
            models.append(model)
            if isinstance(erasure, ErasureDone):
                _mark(client, settings, spec, training_set, model, erasure.subject)
    ordered = tuple(sorted(set(models), key=lambda item: (item.use_case, item.training_set, item.run_id)))
    retrain = tuple(sorted({item.use_case for item in ordered if item.action == "retrain"}))
    return ErasureModels(
        subject=erasure.subject, models=ordered, retrain=retrain, next_step=_next_step(ordered, retrain)
    )


def _models_of(
    client: MlflowClient, spec: UseCase, training_set: ErasureTrainingSet
) -> Iterator[ErasureModel]:
    action: Literal["retrain", "revoke", "none"] = spec.erasure.models if spec.erasure is not None else "none"
    experiment = client.get_experiment_by_name(spec.name)
    if experiment is None:
        return
    aliases = _aliases(client, spec.model_name)
    versions: dict[str, list[ModelVersion]] = {}
    for version in client.search_model_versions(f"name='{spec.model_name}'"):
        versions.setdefault(str(version.run_id), []).append(version)
    for run in client.search_runs(
        [experiment.experiment_id], f"tags.`{TRAINING_SET}` = '{training_set.tag}'", max_results=_RUNS
    ):
        registered = versions.get(run.info.run_id)
        numbers = [int(version.version) for version in registered] if registered else [None]
        for number in numbers:
            yield ErasureModel(
                use_case=spec.name,
                run_id=run.info.run_id,
                version=number,
                training_set=training_set.tag,
                aliases=tuple(sorted(name for name, to in aliases.items() if to == number)),
                action=action,
            )


def _aliases(client: MlflowClient, name: str) -> dict[str, int]:
    for model in client.search_registered_models(f"name='{name}'"):
        return {alias: int(version) for alias, version in model.aliases.items()}
    return {}


def _mark(
    client: MlflowClient,
    settings: Settings,
    spec: UseCase,
    training_set: ErasureTrainingSet,
    model: ErasureModel,
    subject: str,
) -> None:
    run_tags = client.get_run(model.run_id).data.tags
    digests = sorted({*filter(None, run_tags.get(ERASED, "").split(",")), subject})
    client.set_tag(model.run_id, ERASED, ",".join(digests))
    client.set_tag(model.run_id, ERASED_SNAPSHOT, str(training_set.snapshot_id))
    if model.version is None:
        return
    client.set_model_version_tag(spec.model_name, str(model.version), ERASED, ",".join(digests))
    if model.action == "revoke":
        client.set_model_version_tag(
            spec.model_name, str(model.version), REVOKED, "trained on the rows of an erased subject"
        )
        for alias in model.aliases:
            drop_alias(settings, spec.model_name, alias)


def _next_step(models: Sequence[ErasureModel], retrain: Sequence[str]) -> str:
    revoked = sorted({f"{m.use_case} {m.version}" for m in models if m.action == "revoke" and m.version})
    steps = []
    if revoked:
        steps.append(
            f"revoked: {', '.join(revoked)}; what serves changes only by a rollout: trigger "
            "<use_case>_rollout with an earlier version that is not revoked, or train a new one"
        )
    if retrain:
        steps.append(f"trained again on request: {', '.join(retrain)}")
    if left := sorted({m.use_case for m in models if m.action == "none"}):
        steps.append(
            f"{', '.join(left)}: the spec says nothing of erasure, decide what to do with its models"
        )
    return "; ".join(steps) or "none: no model used the subject"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = argparse.ArgumentParser(description="The models that an erased subject's rows trained.")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--plan", help="ErasurePlan reference, JSON: list the models")
    given.add_argument("--done", help="ErasureDone reference, JSON: mark and revoke them")

    def work(arguments: argparse.Namespace, settings: Settings) -> ErasureModels:
        if arguments.plan is not None:
            return affected_models(settings, parse_reference(ErasurePlan, arguments.plan, "--plan"))
        return affected_models(settings, parse_reference(ErasureDone, arguments.done, "--done"))

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
