"""The steps that the rollout's jobs share: which version, its files, and what the model server serves.

Belongs here: operations on the registry, the models folder and the model server, each safe to repeat. Does
not belong here: the order in which a job takes them (`infra_check`, `promote`, `abandon`).
"""

from __future__ import annotations

import argparse
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from airloop import registry
from airloop.errors import RegistryError, RolloutError
from airloop.settings import Settings
from airloop.signed_models import download_verified
from airloop.signing import differs
from airloop.use_cases.spec import UseCase
from serving.model_config import ServedModel, config_message
from serving.model_server_client import AVAILABLE, END, ModelServer, ModelServerLate, ModelServerRefused

log = logging.getLogger(__name__)

RUN_FILE: Final = "mlflow_run_id"
"""File in a version's folder that names the run it came from; the model server ignores it."""
_SETTLE_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.1


def rollout_parser(description: str | None, *, version_required: bool) -> argparse.ArgumentParser:
    """A parser with `--use-case` and `--version`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--use-case", required=True, help="name of the use case")
    default = "" if version_required else "; by default the one behind alias challenger, else champion"
    parser.add_argument("--version", type=int, required=version_required, help=f"model version{default}")
    return parser


def candidate_version(settings: Settings, use_case: UseCase, version: int | None) -> int:
    """`version`, or else the one that alias challenger names, or else champion; raises `RegistryError`."""
    if version is not None:
        return version
    for alias in (registry.CHALLENGER, registry.CHAMPION):
        found = registry.version_behind(settings, use_case.model_name, alias)
        if found is not None:
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


def serve(server: ModelServer, models: Mapping[str, ServedModel], *, timeout: float) -> None:
    """Make the model server serve `models`: their versions first, then the labels of what is available.

    A label keeps answering throughout: it is left out of the first step only where its version is not
    available yet, as on a server that has just started. Raises what `ModelServer.reload` raises.
    """
    ready = {name: _labelled_where_available(server, model) for name, model in models.items()}
    server.reload(config_message(ready), timeout=timeout)
    if any(ready[name].labels != models[name].labels for name in models):
        final = {name: _labelled_where_available(server, model) for name, model in models.items()}
        for name, model in final.items():
            for label in set(models[name].labels) - set(model.labels):
                log.warning("label %s of model %s is not set: its version is not available", label, name)
        server.reload(config_message(final), timeout=timeout)


def load_version(
    server: ModelServer, models: Mapping[str, ServedModel], name: str, version: int, *, timeout: float
) -> None:
    """Serve `models` and wait until `version` of model `name` is available, for `timeout` seconds at most.

    Raises `RolloutError` when it cannot be loaded, or not in time.
    """
    deadline = time.monotonic() + timeout
    refusal = ""
    try:
        serve(server, models, timeout=timeout)
    except (ModelServerRefused, ModelServerLate) as error:
        # The version's state tells whether it is about this one: a new model that does not load is refused.
        refusal = str(error)
    settled = time.monotonic() + _SETTLE_SECONDS
    while True:
        found = server.states(name).get(version)
        if found is not None and found.state == AVAILABLE:
            return
        # Just after a reload, an END may be that of an earlier attempt.
        failed = found is not None and found.state == END and time.monotonic() > settled
        if failed or time.monotonic() > deadline:
            reason = (found.error if found is not None else "") or refusal
            state = found.state if found is not None else "unknown to the model server"
            raise RolloutError(
                expected=f"version {version} of model {name} AVAILABLE within {timeout:g} s",
                found=f"{state}{': ' + reason if reason else ''}",
                next_step="read the model server's log; the champion keeps serving. Train a new candidate",
            )
        time.sleep(_POLL_SECONDS)


def _labelled_where_available(server: ModelServer, model: ServedModel) -> ServedModel:
    states = server.states(model.name) if model.labels else {}
    labels = {
        label: version
        for label, version in model.labels.items()
        if version in states and states[version].state == AVAILABLE
    }
    return ServedModel(model.name, model.base_path, model.versions, labels)
