"""What the model server may load: exactly the files that were signed when the version was registered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from airloop import registry, signed_models
from airloop.errors import EXIT_PERMANENT, RegistryError, RolloutError
from airloop.settings import Settings, environment_of
from airloop.signed_models import download_verified, sign_run
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from serving import infra_check as infra_check_job
from serving.abandon import abandon
from serving.model_config import read_models
from serving.model_server_client import CHAMPION, ModelServer
from serving.promote import promote
from tests.serving.rollout.stack import register

Candidate = Callable[..., int]
infra_check = partial(infra_check_job.infra_check, apart=False)


def artifacts_of(settings: Settings, spec: UseCase, version: int) -> Path:
    """Where the artifacts of the version's run lie, for whoever can write there."""
    run = registry.open_registry(settings).get_run(registry.run_of(settings, spec.model_name, version))
    return Path(run.info.artifact_uri.removeprefix("file://"))


def flip_a_bit(path: Path) -> None:
    """Change the file in one bit, in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def only(folder: Path, pattern: str) -> Path:
    """The one file of that pattern."""
    (found,) = folder.glob(pattern)
    return found


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "graph": (
        lambda run: flip_a_bit(run / "saved_model/saved_model.pb"),
        r"Hash mismatch for 'saved_model/saved_model\.pb'",
    ),
    "weights": (
        lambda run: flip_a_bit(only(run, "saved_model/variables/variables.data*")),
        r"Hash mismatch for 'saved_model/variables/variables\.data",
    ),
    "index of the weights": (
        lambda run: flip_a_bit(run / "saved_model/variables/variables.index"),
        r"Hash mismatch for 'saved_model/variables/variables\.index'",
    ),
    "recorded requests": (
        lambda run: flip_a_bit(run / "recorded_requests.json"),
        r"Hash mismatch for 'recorded_requests\.json'",
    ),
    "a file more": (
        lambda run: (
            (run / "saved_model/assets.extra").mkdir()
            or (run / "saved_model/assets.extra/custom_op.so").write_text("x")
        ),
        r"Extra files .*assets\.extra/custom_op\.so",
    ),
    "a file less": (
        lambda run: (run / "saved_model/fingerprint.pb").unlink(),
        r"Missing files .*fingerprint\.pb",
    ),
    "no weights": (
        lambda run: shutil.rmtree(run / "saved_model/variables"),
        r"Missing files .*variables\.data.*variables\.index",
    ),
    "no model": (lambda run: shutil.rmtree(run / "saved_model"), "the artifact 'saved_model'"),
    "no recorded requests": (
        lambda run: (run / "recorded_requests.json").unlink(),
        r"the artifact 'recorded_requests\.json'",
    ),
    "no signature": (lambda run: (run / "saved_model.sig").unlink(), r"the artifact 'saved_model\.sig'"),
    "a changed signature": (
        lambda run: flip_a_bit(run / "saved_model.sig"),
        "the one that it was registered with",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_candidate_is_refused_and_the_champion_keeps_serving(
    change: str, settings: Settings, spec: UseCase, candidate: Candidate, server: ModelServer
) -> None:
    champion = candidate(0.0)
    infra_check(settings, spec, champion)
    promote(settings, spec, champion)
    config = settings.model_config_file.read_text()
    version = candidate(1.0)
    tamper, found = CHANGES[change]
    tamper(artifacts_of(settings, spec, version))
    with pytest.raises(RegistryError, match=found) as refused:
        infra_check(settings, spec, version)
    assert refused.value.next_step
    assert settings.model_config_file.read_text() == config
    assert {path.name for path in (settings.models_dir / spec.model_name).iterdir()} == {str(champion)}
    assert set(server.states(spec.model_name)) == {champion}
    assert server.labelled(spec.model_name, CHAMPION) == champion
    assert list(settings.scratch_dir.iterdir()) == []


def test_a_sound_model_that_another_key_signed_is_refused(
    settings: Settings, spec: UseCase, candidate: Candidate
) -> None:
    version = candidate(0.0)
    shutil.rmtree(settings.signing_dir)
    with pytest.raises(RegistryError, match="Key mismatch"):
        infra_check(settings, spec, version)
    assert not list((settings.models_dir / spec.model_name).iterdir())


def test_another_versions_sound_files_are_not_taken_for_this_ones(
    settings: Settings, spec: UseCase, candidate: Candidate
) -> None:
    old, new = candidate(0.0), candidate(1.0)
    theirs, ours = (artifacts_of(settings, spec, version) for version in (old, new))
    shutil.rmtree(ours)
    shutil.copytree(theirs, ours)
    with pytest.raises(RegistryError, match="the one that it was registered with"):
        infra_check(settings, spec, new)
    assert infra_check(settings, spec, old).version == old


def test_a_version_that_was_registered_unsigned_is_refused_until_it_is_registered_again(
    settings: Settings, spec: UseCase, candidate: Candidate
) -> None:
    version = candidate(0.0)
    client = registry.open_registry(settings)
    client.delete_model_version_tag(spec.model_name, str(version), registry.SIGNATURE_DIGEST)
    (artifacts_of(settings, spec, version) / "saved_model.sig").unlink()
    with pytest.raises(RegistryError, match=r"no tag airloop\.signature_sha256.*`register`"):
        infra_check(settings, spec, version)
    digest = sign_run(settings, spec.model_name, registry.run_of(settings, spec.model_name, version))
    registry.tag_version(settings, spec.model_name, version, registry.SIGNATURE_DIGEST, digest)
    assert infra_check(settings, spec, version).version == version


def test_signing_again_keeps_the_signature_and_vouches_for_no_changed_model(
    settings: Settings, spec: UseCase, candidate: Candidate
) -> None:
    version = candidate(0.0)
    run_id = registry.run_of(settings, spec.model_name, version)
    digest = registry.tags_of(settings, spec.model_name, version)[registry.SIGNATURE_DIGEST]
    assert sign_run(settings, spec.model_name, run_id) == digest
    folder = artifacts_of(settings, spec, version)
    flip_a_bit(folder / "saved_model" / "saved_model.pb")
    with pytest.raises(RegistryError, match="Hash mismatch"):
        sign_run(settings, spec.model_name, run_id)
    (folder / "saved_model.sig").unlink()
    with pytest.raises(RegistryError, match=r"saved_model\.sig"):
        sign_run(settings, spec.model_name, run_id)


def test_a_signature_that_was_half_written_before_registration_is_written_anew(
    settings: Settings, spec: UseCase, candidate: Candidate
) -> None:
    run_id = registry.run_of(settings, spec.model_name, candidate(0.0))
    folder = artifacts_of(settings, spec, 1)
    (folder / "saved_model.sig").write_text((folder / "saved_model.sig").read_text()[:300])
    # Under a name that no version has, the run is not registered.
    digest = sign_run(settings, "unregistered", run_id)
    assert sign_run(settings, "unregistered", run_id) == digest


@pytest.mark.parametrize("place", ["saved_model.pb", "variables/variables.index", "assets.extra/new"])
def test_files_that_were_changed_after_they_were_staged_are_not_loaded(
    place: str, settings: Settings, spec: UseCase, candidate: Candidate, server: ModelServer
) -> None:
    first, second = candidate(0.0), candidate(1.0)
    for version in (first, second):
        infra_check(settings, spec, version)
        promote(settings, spec, version)
    changed = settings.models_dir / spec.model_name / str(first) / place
    if changed.exists():
        flip_a_bit(changed)
    else:
        changed.parent.mkdir()
        changed.write_text("x")
    # Going back to the version before: it is loaded, and would be again from these files.
    with pytest.raises(RolloutError, match="changed them after they were put there"):
        infra_check(settings, spec, first)
    assert server.labelled(spec.model_name, CHAMPION) == second
    assert read_models(settings)[spec.model_name].champion == second
    abandon(settings, spec, first)
    assert infra_check(settings, spec, first).version == first


def test_what_was_verified_is_the_model_and_its_recorded_requests(
    settings: Settings, spec: UseCase, candidate: Candidate, tmp_path: Path
) -> None:
    version = candidate(0.0)
    folder = download_verified(settings, spec.model_name, version, tmp_path / "verified")
    assert {path.name for path in folder.iterdir()} == {registry.SAVED_MODEL, registry.RECORDED_REQUESTS}
    assert (folder / registry.SAVED_MODEL / "saved_model.pb").is_file()
    with pytest.raises(RegistryError, match="no such version"):
        download_verified(settings, spec.model_name, version + 1, tmp_path / "none")


def test_the_command_verifies_a_version(
    settings: Settings, tmp_path: Path, saved: dict[float, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = use_case("flight_delay")
    version = register(settings, spec, saved[0.0], tmp_path / "artifacts")
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    result = tmp_path / "result.json"
    arguments = ["--use-case", spec.name, "--version", str(version), "--result", str(result)]
    assert signed_models.main(arguments) == 0
    assert json.loads(result.read_text())["version"] == version
    flip_a_bit(artifacts_of(settings, spec, version) / "recorded_requests.json")
    assert signed_models.main(arguments) == EXIT_PERMANENT
    assert "recorded_requests.json" in json.loads(result.read_text())["error"]["found"]
