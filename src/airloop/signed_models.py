"""The signed artifacts of a training run: signed when it is registered, verified before anyone loads them.

    python -m airloop.signed_models --use-case NAME --version N       verify a version, as a rollout does

Belongs here: which artifacts are signed, where the signature is, and which signature a version stands for.
Does not belong here: keys and hashing (`airloop.signing`), or what is done with a model (training, serving).

One signature covers the SavedModel, the recorded requests and the rows that explanations compare with, laid
out as in the run's artifacts. The version in the registry names the signature by its SHA-256: the sound
artifacts of another run, put in this one's place with their own signature, are refused too.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from airloop import registry
from airloop.errors import RegistryError
from airloop.jobs import run_job
from airloop.references import RegisteredModel
from airloop.registry import (
    EXPLANATION_BACKGROUND,
    RECORDED_REQUESTS,
    SAVED_MODEL,
    SIGNATURE,
    SIGNATURE_DIGEST,
)
from airloop.settings import Settings
from airloop.signing import sign_folder, verify_folder
from airloop.use_cases.catalogue import use_case
from airloop.work_folders import work_folder

SIGNED: Final = (SAVED_MODEL, RECORDED_REQUESTS)
SIGNED_IF_THERE: Final = (EXPLANATION_BACKGROUND,)
"""A model whose test window is very short has none."""


def sign_run(settings: Settings, name: str, run_id: str) -> str:
    """Sign the run's model, to be a version of model `name`; the SHA-256 of the signature.

    A signature that is there and holds is kept, so that this can be repeated. A run that is registered is not
    signed anew: raises `RegistryError` when it is not as its version's signature says.
    """
    with work_folder(settings, "sign") as scratch:
        folder = _download(settings, run_id, scratch / "model")
        if registered := registry.signature_digests(settings, name, run_id):
            return _verify(settings, run_id, folder, scratch, registered)
        if registry.has_artifact(settings, run_id, SIGNATURE):
            try:
                return _verify(settings, run_id, folder, scratch, None)
            except RegistryError:
                pass  # No version stands for it: half written, or of a key that is not in use any more.
        signature = scratch / "new" / SIGNATURE
        signature.parent.mkdir()
        sign_folder(settings, folder, signature)
        # Keys that are no pair are a mistake to be found now, not when the model is to be loaded.
        verify_folder(settings, folder, signature)
        registry.open_registry(settings).log_artifact(run_id, str(signature))
        return _digest(signature)


def download_verified(settings: Settings, name: str, version: int, destination: Path) -> Path:
    """Copy the version's SavedModel and recorded requests to the folder `destination`, and verify them there.

    Returns `destination`, which then has what is `SIGNED`, and of `SIGNED_IF_THERE` what is there. Raises
    `RegistryError` when there is no such version, it was never signed, or anything is not as it was signed;
    what is in `destination` then must not be loaded.
    """
    run_id = registry.run_of(settings, name, version)
    digest = registry.tags_of(settings, name, version).get(SIGNATURE_DIGEST)
    if digest is None:
        raise RegistryError(
            expected=f"version {version} of model {name} to be signed ({SIGNATURE})",
            found=f"no tag {SIGNATURE_DIGEST}",
            next_step=f"clear the task `register` of the training run that made it (MLflow run {run_id}): "
            "registering signs it. Or train a new model",
        )
    folder = _download(settings, run_id, destination)
    with work_folder(settings, "verify") as scratch:
        _verify(settings, run_id, folder, scratch, {digest})
    return folder


def _download(settings: Settings, run_id: str, folder: Path) -> Path:
    there = [name for name in SIGNED_IF_THERE if registry.has_artifact(settings, run_id, name)]
    for artifact in (*SIGNED, *there):
        registry.download_artifacts(settings, run_id, artifact, folder)
    return folder


def _verify(
    settings: Settings, run_id: str, folder: Path, scratch: Path, registered: Collection[str] | None
) -> str:
    """The digest of the run's signature, if `folder` is as it says and it is one of `registered`."""
    signature = registry.download_artifacts(settings, run_id, SIGNATURE, scratch)
    digest = _digest(signature)
    if registered is not None and digest not in registered:
        raise RegistryError(
            expected=f"{SIGNATURE} of run {run_id} to be the one that it was registered with, SHA-256 "
            f"{', '.join(sorted(registered))}",
            found=digest,
            next_step="do not load it: find out who replaced the run's artifacts; then train the model again",
        )
    verify_folder(settings, folder, signature)
    return digest


def _digest(signature: Path) -> str:
    return hashlib.sha256(signature.read_bytes()).hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = argparse.ArgumentParser(description="Verify the signed files of a registered version.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--version", required=True, type=int, help="model version")

    def work(arguments: argparse.Namespace, settings: Settings) -> RegisteredModel:
        name = use_case(arguments.use_case).model_name
        with work_folder(settings, "verified") as scratch:
            download_verified(settings, name, arguments.version, scratch / "model")
        run_id = registry.run_of(settings, name, arguments.version)
        return RegisteredModel(name=name, version=arguments.version, run_id=run_id)

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
