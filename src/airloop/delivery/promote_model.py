"""Job: copy the champion of one environment into another's registry, if its verdict lets it go.

    AIRLOOP_MLFLOW_URI=<target's> AIRLOOP_VERIFICATION_KEY=<public key> \\
      python -m airloop.delivery.promote_model --use-case NAME --from-mlflow URI [--repository FOLDER]

Belongs here: what must be known of a model before it crosses from one environment to the next, and copying
its run and version between two MLflow servers. Does not belong here: serving it (the target's own rollout
starts at alias challenger), or the approval of a person (the pipeline's, and the target's rollout's).

What is missing, contradictory or not verifiable is a refusal, and nothing is in the target then. No private
key is needed: the files keep the signature that training gave them, and the target verifies that one, before
the version has an alias and again when its rollout loads it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from mlflow.entities import Run
from pydantic import ValidationError

from airloop import registry
from airloop.erasure.models import ERASED, REVOKED
from airloop.errors import PromotionError
from airloop.jobs import run_job
from airloop.references import PromotedModel
from airloop.settings import Settings
from airloop.signed_models import download_verified
from airloop.training.provenance import is_reproducible
from airloop.training.tracking import CODE_COMMIT, COMPLETE, TRAINING_SET, VERDICT, VERDICT_FILE, TrainingRuns
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.verdict import Verdict
from airloop.work_folders import work_folder

PROMOTED_FROM: Final = "airloop.promoted_from"
"""Tag of a run and a version that came from another environment: `<use case>/<version>/<run>` there."""
_FORBIDDING: Final = (registry.STALE, registry.ROLLED_BACK, ERASED, REVOKED)
"""Tags of a version, or its run, that keep it where it is."""
_LOCAL_TAGS: Final = ("mlflow.source.", "mlflow.user", "mlflow.log-model.")
"""What MLflow writes of the machine that made a run."""
_NOT_COPIED: Final = ("verdict_uri", registry.PROMOTED_BY)
"""Tags of a version that are about the environment that it is in."""


class Promotable(NamedTuple):
    """A version that may leave its environment."""

    version: int
    run: Run
    tags: Mapping[str, str]
    """The version's."""
    verdict: Verdict

    @property
    def origin(self) -> str:
        """What `PROMOTED_FROM` says of it."""
        return f"{self.verdict.use_case}/{self.version}/{self.run.info.run_id}"


def promotable(
    source: Settings,
    spec: UseCase,
    *,
    version: int | None = None,
    accept_overridden: bool = False,
    repository: Path | None = None,
) -> Promotable:
    """The champion of `source`, if nothing speaks against it; raises `PromotionError` naming all that does.

    With `version` it must be that one: a pipeline promotes what it looked at. A verdict that a person
    overrode counts only with `accept_overridden`. With `repository` the model's code must be part of the
    history of what is checked out there: nobody promotes what was trained from code that is not reviewed.
    """
    champion = registry.version_behind(source, spec.model_name, registry.CHAMPION)
    if champion is None:
        raise _refused(f"a champion of {spec.model_name} at {source.tracking_uri}", ("none",))
    if version is not None and champion != version:
        raise _refused(f"version {version} to be the champion", (f"version {champion}",))
    run_id = registry.run_of(source, spec.model_name, champion)
    tags = registry.tags_of(source, spec.model_name, champion)
    run = registry.open_registry(source).get_run(run_id)
    verdict = _verdict(source, run_id)
    against = objections(spec, run, tags, verdict, accept_overridden=accept_overridden, repository=repository)
    if against:
        raise _refused(f"a champion (version {champion}) that may be promoted", against)
    return Promotable(champion, run, tags, verdict)


def objections(
    spec: UseCase,
    run: Run,
    tags: Mapping[str, str],
    verdict: Verdict,
    *,
    accept_overridden: bool = False,
    repository: Path | None = None,
) -> list[str]:
    """All that speaks against a version with `tags`, made by `run` and judged by `verdict`."""
    return [
        *_outcome(verdict, spec, run, tags, accept_overridden),
        *_origin(verdict, run, tags, repository),
        *(
            f"tag {tag}: {said[tag]}"
            for said in (tags, run.data.tags)
            for tag in _FORBIDDING
            if said.get(tag)
        ),
    ]


def _outcome(
    verdict: Verdict, spec: UseCase, run: Run, tags: Mapping[str, str], accept_overridden: bool
) -> list[str]:
    """What the verdict, and those that repeat it, say against the model."""
    run_id, against = run.info.run_id, []
    if (verdict.use_case, verdict.run_id) != (spec.name, run_id):
        against.append(f"{VERDICT_FILE} is about run {verdict.run_id} of {verdict.use_case}, not {run_id}")
    if not verdict.accepted or not verdict.rules:
        against.append("the verdict rejects it: " + ("; ".join(verdict.reasons) or "no rule was applied"))
    elif verdict.failed and verdict.override is None:
        against.append("rules failed and nobody overrode them: " + "; ".join(verdict.reasons))
    elif verdict.override is not None and not accept_overridden:
        against.append(
            f"{verdict.override.by} overrode the verdict ({verdict.override.reason}); failed: "
            + "; ".join(verdict.reasons)
        )
    if COMPLETE not in run.data.tags:
        against.append(f"its run {run_id} is not complete")
    against += [
        f"tag {tag} is {said.get(tag)!r}, not 'accepted'"
        for said, tag in ((run.data.tags, VERDICT), (tags, "verdict"))
        if said.get(tag) != "accepted"
    ]
    return against


def _origin(verdict: Verdict, run: Run, tags: Mapping[str, str], repository: Path | None) -> list[str]:
    """What is not known of the code and the rows that it was made from."""
    against = []
    commit = tags.get(CODE_COMMIT, "")
    if not commit or not is_reproducible(commit):
        against.append(f"its code is not named by a commit ({CODE_COMMIT} is {commit or 'missing'})")
    elif commit != run.data.tags.get(CODE_COMMIT):
        against.append(f"version and run name different commits: {commit}, {run.data.tags.get(CODE_COMMIT)}")
    elif repository is not None and not _in_history(repository, commit):
        against.append(f"its code, {commit}, is not in the history of what {repository} has checked out")
    stated = (verdict.training_set.tag, str(verdict.training_set.snapshot_id))
    found = (tags.get("training_set"), tags.get("snapshot_id"))
    if found != stated:
        against.append(f"its training set is {found} by its tags and {stated} by its verdict")
    if run.data.tags.get(TRAINING_SET) != verdict.training_set.tag:
        against.append(f"its run names the training set {run.data.tags.get(TRAINING_SET)}")
    return against


def _in_history(repository: Path, commit: str) -> bool:
    # `--end-of-options`: what the registry calls a commit is none of git's.
    command = [
        "git",
        "-C",
        str(repository),
        "merge-base",
        "--is-ancestor",
        "--end-of-options",
        commit,
        "HEAD",
    ]
    # What it says is in its exit status; a commit that is unknown there is no ancestor either.
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0  # noqa: S603 - a commit is an argument, no shell


def _verdict(source: Settings, run_id: str) -> Verdict:
    """The run's verdict document; it decides, whatever tags say."""
    with work_folder(source, "verdict") as scratch:
        text = registry.download_artifacts(source, run_id, VERDICT_FILE, scratch).read_text("utf-8")
    try:
        return Verdict.model_validate_json(text)
    except ValidationError as error:
        found = f"{error.error_count()} faults in it"
        raise _refused(f"{VERDICT_FILE} of run {run_id} to be a verdict", (found,)) from None


def promote(source: Settings, target: Settings, spec: UseCase, model: Promotable) -> PromotedModel:
    """Copy `model` from `source` to `target`, where it becomes the challenger; safe to repeat.

    Its files are verified in `source`, and in `target` before the version there gets its alias. A version
    that is there already is verified again and not made twice. Raises `RegistryError` when anything is not as
    it was signed, `PromotionError` when `target` has rolled the version back, `SettingsError` without the
    public key.
    """
    if target.verification_key is None:
        raise PromotionError(
            expected="AIRLOOP_VERIFICATION_KEY to name the public key that the model must be signed for",
            found="none",
            next_step="mount the public key of the environment that trains (docs/how-to/sign-models.md)",
        )
    source = source.model_copy(update={"verification_key": target.verification_key, "signing_key": None})
    name = spec.model_name
    there = _there_already(target, name, model)
    if there is None:
        there = _copied(source, target, spec, model)
    _verify_in(target, name, there)
    tags = registry.tags_of(target, name, there)
    if reason := tags.get(registry.ROLLED_BACK):
        raise PromotionError(
            expected=f"version {there} of {name}, which is {model.origin}, not to have failed there",
            found=f"that its rollout gave it up: {reason}",
            next_step=f"train a better candidate; or, if the cause is gone, start {spec.name}_rollout there "
            f"with version {there}",
        )
    if registry.version_behind(target, name, registry.CHAMPION) != there:
        registry.set_alias(target, name, registry.CHALLENGER, there)
    return PromotedModel(
        name=name,
        version=there,
        run_id=registry.run_of(target, name, there),
        origin=model.origin,
        code_commit=model.tags[CODE_COMMIT],
        training_set=model.verdict.training_set.tag,
    )


def _there_already(target: Settings, name: str, model: Promotable) -> int | None:
    """The version of `target` that is a copy of `model`."""
    client = registry.open_registry(target)
    for found in client.search_model_versions(f"name='{name}'"):
        if found.tags.get(PROMOTED_FROM) == model.origin:
            return int(found.version)
    return None


def _copied(source: Settings, target: Settings, spec: UseCase, model: Promotable) -> int:
    """The version of `target` that has the files, figures and tags of `model` and of its run."""
    run_id, data = model.run.info.run_id, model.run.data
    runs = TrainingRuns(target, spec)
    with work_folder(target, "promote") as scratch:
        # What is signed is downloaded once, verified, and copied from where it was verified.
        folder = download_verified(source, spec.model_name, model.version, scratch / "run")
        for artifact in registry.open_registry(source).list_artifacts(run_id):
            if not (folder / artifact.path).exists():
                registry.download_artifacts(source, run_id, artifact.path, folder)
        tags = {tag: value for tag, value in data.tags.items() if not tag.startswith(_LOCAL_TAGS)}
        tags.pop(COMPLETE, None)
        copy = runs.start({**tags, PROMOTED_FROM: model.origin}, data.params)
        runs.log_metrics(copy, data.metrics)
        runs.log_artifacts(copy, folder)
        runs.finish(copy)
    kept = {tag: value for tag, value in model.tags.items() if tag not in _NOT_COPIED}
    return registry.register_version(
        target,
        name=spec.model_name,
        run_id=copy,
        source=runs.artifact_uri(copy, registry.SAVED_MODEL),
        tags={
            **kept,
            "verdict_uri": runs.artifact_uri(copy, VERDICT_FILE),
            PROMOTED_FROM: model.origin,
        },
    )


def _verify_in(target: Settings, name: str, version: int) -> None:
    with work_folder(target, "promoted") as scratch:
        download_verified(target, name, version, scratch / "model")


def _refused(expected: str, found: Sequence[str]) -> PromotionError:
    return PromotionError(
        expected=expected,
        found="; ".join(found),
        next_step="read verdict.json and the tags of the version in the source's MLflow; the target keeps "
        "serving what it serves (docs/how-to/release-and-deploy.md)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = argparse.ArgumentParser(description="Copy an environment's champion into another's registry.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--from-mlflow", required=True, help="MLflow of the environment that it leaves")
    parser.add_argument("--version", type=int, help="what the champion there must be; by default any")
    parser.add_argument("--repository", type=Path, help="checkout whose history must have the model's code")
    parser.add_argument("--accept-overridden", action="store_true", help="also what a person accepted")
    parser.add_argument("--dry-run", action="store_true", help="check, and copy nothing")

    def work(arguments: argparse.Namespace, target: Settings) -> PromotedModel:
        spec = use_case(arguments.use_case)
        source = target.model_copy(update={"mlflow_uri": arguments.from_mlflow})
        if source.tracking_uri == target.tracking_uri:
            raise PromotionError(
                expected="two environments",
                found=f"{source.tracking_uri} as both",
                next_step="set AIRLOOP_MLFLOW_URI to the target's MLflow, and --from-mlflow to the source's",
            )
        model = promotable(
            source,
            spec,
            version=arguments.version,
            accept_overridden=arguments.accept_overridden,
            repository=arguments.repository,
        )
        if arguments.dry_run:
            return PromotedModel(
                name=spec.model_name,
                version=None,
                run_id=None,
                origin=model.origin,
                code_commit=model.tags[CODE_COMMIT],
                training_set=model.verdict.training_set.tag,
            )
        return promote(source, target, spec, model)

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
