"""The steps that the rollout's jobs share: which version, and its files.

Belongs here: operations on the registry and the models folder, each safe to repeat. Does not belong here: the
order in which a job takes them (`infra_check`, `stage`, `promote`), or the model server (`serve`).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Final

from airloop import registry
from airloop.errors import RegistryError, RolloutError
from airloop.settings import Settings
from airloop.signed_models import download_verified
from airloop.signing import differs
from airloop.use_cases.spec import UseCase
from serving.staged import explanation_file

RUN_FILE: Final = "mlflow_run_id"
"""File in a version's folder that names the run it came from; the model server ignores it."""


def rollout_parser(description: str | None, *, version_required: bool) -> argparse.ArgumentParser:
    """A parser with `--use-case` and `--version`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--use-case", required=True, help="name of the use case")
    default = "" if version_required else "; by default the one behind alias challenger, else champion"
    parser.add_argument("--version", type=int, required=version_required, help=f"model version{default}")
    return parser


def candidate_version(settings: Settings, use_case: UseCase, version: int | None) -> int:
    """`version`, or else the one that alias challenger names, or else champion; raises `RegistryError`.

    A challenger that was rolled back once does not try again by itself.
    """
    if version is not None:
        return version
    for alias in (registry.CHALLENGER, registry.CHAMPION):
        found = registry.version_behind(settings, use_case.model_name, alias)
        if found is None:
            continue
        tags = registry.tags_of(settings, use_case.model_name, found)
        if alias == registry.CHAMPION or registry.ROLLED_BACK not in tags:
            return found
    raise RegistryError(
        expected=f"a version of model {use_case.model_name} behind alias challenger or champion",
        found="neither alias",
        next_step=f"run {use_case.name}_training first; it registers a candidate that passes its gate",
    )


def version_folder(settings: Settings, name: str, version: int) -> Path:
    """Where the model server looks for `version` of model `name`."""
    return settings.models_dir / name / str(version)


def stage_model(settings: Settings, name: str, version: int) -> str:
    """Put the version's SavedModel where the model server looks for it; its recorded requests, as JSON.

    The download goes under a name that is no version number, is verified there against its signature, and
    renamed then, so that the model server never sees a part or anything that was not signed. A version that
    is there already must have the same files. Raises `RegistryError` when the run's artifacts are not as they
    were signed, and leaves nothing behind; `RolloutError` when the version's folder is another run's, or was
    changed since.
    """
    run_id = registry.run_of(settings, name, version)
    target = version_folder(settings, name, version)
    staging = target.with_name(f"staging-{version}")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        download_verified(settings, name, version, staging)
        model = staging / registry.SAVED_MODEL
        _require_saved_model(model, run_id)
        if target.exists():
            _require_same(target, model, run_id)
        else:
            (model / RUN_FILE).write_text(run_id, encoding="utf-8")
            model.rename(target)
        background = staging / registry.EXPLANATION_BACKGROUND
        if background.is_file():
            place = explanation_file(settings.models_dir, name, version)
            place.parent.mkdir(exist_ok=True)
            background.rename(place)
        return (staging / registry.RECORDED_REQUESTS).read_text(encoding="utf-8")
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _require_saved_model(model: Path, run_id: str) -> None:
    if not (model / "saved_model.pb").is_file():
        raise RolloutError(
            expected=f"a SavedModel in artifact {registry.SAVED_MODEL!r} of run {run_id}",
            found="a folder without saved_model.pb",
            next_step="train the model again",
        )


def _require_same(target: Path, model: Path, run_id: str) -> None:
    """Raises `RolloutError` unless the folder `target` is the run's, and has the files of `model`."""
    owner = target / RUN_FILE
    found = owner.read_text(encoding="utf-8") if owner.exists() else "no run"
    if found != run_id:
        raise RolloutError(
            expected=f"{target} to be the model of MLflow run {run_id}",
            found=f"the model of {found}",
            next_step="move the folder away and run the rollout again; it comes from the model registry",
        )
    if differs(target, model, ignored=RUN_FILE):
        raise RolloutError(
            expected=f"{target} to have the files of MLflow run {run_id} as they were signed",
            found="other files, or other bytes in them: somebody changed them after they were put there",
            next_step="find out who; then unload the version (serving.abandon; move the folder away if it is "
            "the champion's) and run the rollout again",
        )
