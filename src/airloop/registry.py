"""The model registry: MLflow's registered models, their versions and aliases, and a run's artifacts.

Belongs here: the few registry operations that training and rollout share, each safe to repeat, and the names
of the artifacts that one writes and the other reads. Does not belong here: experiments and metrics
(`airloop.training`), or deciding which version deserves an alias. Importing this module imports MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode

from airloop.errors import RegistryError
from airloop.settings import Settings

CHAMPION: Final = "champion"
"""Alias, and label on the model server, of the version that takes the traffic."""
CHALLENGER: Final = "challenger"
"""Alias of the newest accepted candidate."""
PROMOTED_BY: Final = "airloop.promoted_by"
"""Tag of a version that was made the champion: the Airflow run that did it, or `by-hand`."""
FEATURE_SERVICE: Final = "airloop.feature_service"
"""Tag of a run: the feature service whose features its model takes."""
ROLLED_BACK: Final = "airloop.rolled_back"
"""Tag of a version whose rollout gave it up: why. It is not tried again but on request."""
STALE: Final = "airloop.stale"
"""Tag of a version whose training data is not what is published any more: why."""
SAVED_MODEL: Final = "saved_model"
"""Artifact folder of a run's SavedModel."""
RECORDED_REQUESTS: Final = "recorded_requests.json"
"""Artifact with model inputs and what training computed for them, by the name of the
signature's output: `{"inputs": {name: [...]}, "probability": [...]}`, NaN as null."""
SIGNATURE: Final = "saved_model.sig"
"""Artifact with the signature over the SavedModel and the recorded requests."""
SIGNATURE_DIGEST: Final = "airloop.signature_sha256"
"""Tag of a version: SHA-256 of its signature; another run's signed files are not taken for its own."""


EXPLANATION_BACKGROUND: Final = "explanation_background.json"
"""Artifact with the background rows of explanations, `{"inputs": {name: [...]}}`, NaN as null."""


def open_registry(settings: Settings) -> MlflowClient:
    """A client of the deployment's tracking server and registry, which are one."""
    return MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.tracking_uri)


def register_version(
    settings: Settings, *, name: str, run_id: str, source: str, tags: Mapping[str, str]
) -> int:
    """The version of model `name` made from the run's `source` (an artifact URI), registered if need be.

    Repeating it for the same run and source returns the same version, with `tags` set on it again.
    """
    client = open_registry(settings)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if not _is(error, RESOURCE_ALREADY_EXISTS):
            raise
    for there in client.search_model_versions(f"name='{name}' and run_id='{run_id}'"):
        if there.source == source:
            for key, value in tags.items():
                client.set_model_version_tag(name, str(there.version), key, value)
            return int(there.version)
    return int(client.create_model_version(name, source, run_id, tags=dict(tags)).version)


def version_behind(settings: Settings, name: str, alias: str) -> int | None:
    """The version of model `name` that `alias` points to; None where there is no such model or alias."""
    # The aliases come with the model: asking for one alias answers a missing one with the same code as a
    # malformed request.
    try:
        version = open_registry(settings).get_registered_model(name).aliases.get(alias)
    except MlflowException as error:
        if _is(error, RESOURCE_DOES_NOT_EXIST):
            return None
        raise
    return None if version is None else int(version)


def set_alias(settings: Settings, name: str, alias: str, version: int) -> None:
    """Point `alias` of model `name` at `version`; raises `RegistryError` when there is no such version."""
    _version(settings, name, version)
    open_registry(settings).set_registered_model_alias(name, alias, str(version))


def tag_version(settings: Settings, name: str, version: int, key: str, value: str) -> None:
    """Set a tag on `version` of model `name`; raises `RegistryError` when there is no such version."""
    _version(settings, name, version)
    open_registry(settings).set_model_version_tag(name, str(version), key, value)


def drop_alias(settings: Settings, name: str, alias: str) -> None:
    """Remove `alias` from model `name`, where it is set."""
    if version_behind(settings, name, alias) is not None:
        open_registry(settings).delete_registered_model_alias(name, alias)


def run_of(settings: Settings, name: str, version: int) -> str:
    """The id of the run that `version` of model `name` was made by; raises `RegistryError`."""
    run_id = _version(settings, name, version).run_id
    if not run_id:
        raise RegistryError(
            expected=f"version {version} of model {name} to name its MLflow run",
            found="a version without a run",
            next_step="register models with the training DAG, so that each leads back to its data",
        )
    return str(run_id)


def tags_of(settings: Settings, name: str, version: int) -> dict[str, str]:
    """The tags of `version` of model `name`; raises `RegistryError`."""
    return dict(_version(settings, name, version).tags)


def signature_digests(settings: Settings, name: str, run_id: str) -> frozenset[str]:
    """The signatures under which the run's model is registered as a version of model `name`."""
    versions = open_registry(settings).search_model_versions(f"name='{name}' and run_id='{run_id}'")
    return frozenset(
        version.tags[SIGNATURE_DIGEST] for version in versions if SIGNATURE_DIGEST in version.tags
    )


def has_artifact(settings: Settings, run_id: str, path: str) -> bool:
    """Whether the run has the artifact `path`."""
    return path.strip("/") in _beside(settings, run_id, path)


def download_artifacts(settings: Settings, run_id: str, path: str, destination: Path) -> Path:
    """Copy the run's artifact `path` (a file or a folder) under the folder `destination`; where it is now.

    Raises `RegistryError` when the run has no such artifact.
    """
    listed = _beside(settings, run_id, path)
    if path.strip("/") not in listed:
        raise RegistryError(
            expected=f"run {run_id} to have the artifact {path!r}",
            found=", ".join(sorted(listed)) or "no artifacts",
            next_step="train the model again: the run did not finish, or its artifacts were deleted",
        )
    destination.mkdir(parents=True, exist_ok=True)
    return Path(
        mlflow.artifacts.download_artifacts(
            run_id=run_id,
            artifact_path=path,
            dst_path=str(destination),
            tracking_uri=settings.tracking_uri,
        )
    )


def _beside(settings: Settings, run_id: str, path: str) -> set[str]:
    """The paths of the run's artifacts in the folder of `path`."""
    parent, _, _ = path.strip("/").rpartition("/")
    return {str(item.path) for item in open_registry(settings).list_artifacts(run_id, parent or None)}


def _version(settings: Settings, name: str, version: int) -> ModelVersion:
    try:
        return open_registry(settings).get_model_version(name, str(version))
    except MlflowException as error:
        if not _is(error, RESOURCE_DOES_NOT_EXIST):
            raise
    raise RegistryError(
        expected=f"version {version} of model {name} in the registry at {settings.tracking_uri}",
        found="no such version",
        next_step="run the use case's training DAG, or name a version that MLflow's Models page lists",
    )


def _is(error: MlflowException, code: ErrorCode.ValueType) -> bool:
    return str(error.error_code) == ErrorCode.Name(code)
