"""Signing a folder: whatever is changed, whoever signed, is found out; keys are made once and kept close."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from airloop.errors import RegistryError, SettingsError
from airloop.settings import REPOSITORY, Settings, environment_of
from airloop.signing import PRIVATE_KEY, PUBLIC_KEY, differs, sign_folder, verify_folder

SIGNER = """
import sys
from pathlib import Path
from airloop.settings import load_settings
from airloop.signing import sign_folder
sign_folder(load_settings(), Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three files, one of them below, one empty."""
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph" * 1000)
    (folder / "variables" / "data").write_bytes(bytes(range(256)))
    (folder / "fingerprint.pb").touch()
    return folder


@pytest.fixture
def signature(settings: Settings, folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "model.sig"
    sign_folder(settings, folder, path)
    return path


def flip_a_bit(path: Path) -> None:
    """Change the file in one bit, in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_folder_as_it_was_signed_is_accepted_under_any_name(
    settings: Settings, folder: Path, signature: Path
) -> None:
    verify_folder(settings, folder, signature)
    verify_folder(settings, folder.rename(folder.with_name("moved")), signature)


def add(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text("x")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            lambda folder: flip_a_bit(folder / "saved_model.pb"),
            r"found Hash mismatch for 'saved_model\.pb'\. Next",
        ),
        (
            lambda folder: flip_a_bit(folder / "variables" / "data"),
            "found Hash mismatch for 'variables/data'\\. Next",
        ),
        (lambda folder: (folder / "fingerprint.pb").write_text("x"), "Hash mismatch for 'fingerprint"),
        (lambda folder: (folder / "variables" / "data").unlink(), "Missing files .*variables/data"),
        (lambda folder: (folder / "fingerprint.pb").unlink(), "Missing files .*fingerprint"),
        (lambda folder: (folder / "fingerprint.pb").rename(folder / "f.pb"), "Extra files .*Missing files"),
        (add("extra.so"), r"Extra files .*extra\.so"),
        # The library leaves these out, unless it is told not to.
        (add(".gitignore"), r"Extra files .*\.gitignore"),
        (lambda folder: (folder / "link").symlink_to("/etc/hostname"), "symlink"),
        (shutil.rmtree, "found .*model"),
    ],
)
def test_a_change_of_any_kind_is_refused_and_named(
    settings: Settings, folder: Path, signature: Path, change: Callable[[Path], object], found: str
) -> None:
    change(folder)
    with pytest.raises(RegistryError, match=found) as refused:
        verify_folder(settings, folder, signature)
    assert "do not load it" in refused.value.next_step


def test_anothers_signature_is_refused(settings: Settings, folder: Path, tmp_path: Path) -> None:
    theirs, signature = Settings(state_dir=tmp_path / "theirs"), tmp_path / "theirs.sig"
    sign_folder(theirs, folder, signature)
    with pytest.raises(RegistryError, match="Key mismatch"):
        verify_folder(settings, folder, signature)
    # One that claims to be ours: the bundle's hint is not what counts.
    ours = tmp_path / "ours.sig"
    sign_folder(settings, folder, ours)
    forged = signature.read_text().replace(hint_of(signature), hint_of(ours))
    signature.write_text(forged)
    with pytest.raises(RegistryError, match="not this key's"):
        verify_folder(settings, folder, signature)


def hint_of(signature: Path) -> str:
    return signature.read_text().split('"hint":')[1].split('"')[1]


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "[]", '{"mediaType": "x", "verificationMaterial": {}, "dsseEnvelope": {}}', "\0"]
)
def test_what_is_no_signature_is_refused(
    settings: Settings, folder: Path, signature: Path, text: str
) -> None:
    signature.write_text(text)
    with pytest.raises(RegistryError):
        verify_folder(settings, folder, signature)


def test_every_byte_of_a_signature_counts(settings: Settings, folder: Path, signature: Path) -> None:
    sound = signature.read_bytes()
    for place in range(0, len(sound), 97):
        changed = bytearray(sound)
        changed[place] ^= 1
        signature.write_bytes(changed)
        with pytest.raises(RegistryError):
            verify_folder(settings, folder, signature)


def test_the_pair_is_made_once_and_its_private_key_is_its_owners_alone(
    settings: Settings, folder: Path, signature: Path
) -> None:
    private, public = (settings.signing_dir / name for name in (PRIVATE_KEY, PUBLIC_KEY))
    assert private.stat().st_mode & 0o777 == 0o600
    assert settings.signing_dir.stat().st_mode & 0o777 == 0o700
    before = private.read_bytes(), public.read_bytes()
    sign_folder(settings, folder, signature)
    assert (private.read_bytes(), public.read_bytes()) == before


def test_a_pair_that_was_made_by_halves_is_completed(
    settings: Settings, folder: Path, signature: Path
) -> None:
    public = settings.signing_dir / PUBLIC_KEY
    whole = public.read_text()
    # A process died after the private key; another one while it wrote one.
    public.unlink()
    (settings.signing_dir / f".{PRIVATE_KEY}.new").write_text("half of a k")
    verify_folder(settings, folder, signature)
    assert public.read_text() == whole
    # A lost private key is replaced, and what it signed is not accepted any more.
    (settings.signing_dir / PRIVATE_KEY).unlink()
    with pytest.raises(RegistryError, match="Key mismatch"):
        verify_folder(settings, folder, signature)
    (settings.signing_dir / PRIVATE_KEY).write_text("no key")
    with pytest.raises(SettingsError, match=PRIVATE_KEY):
        verify_folder(settings, folder, signature)


def test_processes_that_sign_first_at_once_make_one_pair(
    settings: Settings, folder: Path, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        **environment_of(settings),
        "PYTHONPATH": str(REPOSITORY / "src"),
    }
    signatures = [tmp_path / f"{number}.sig" for number in range(4)]
    signers = [
        subprocess.Popen([sys.executable, "-c", SIGNER, str(folder), str(path)], env=environment)
        for path in signatures
    ]
    assert [signer.wait(120) for signer in signers] == [0] * 4
    for path in signatures:
        verify_folder(settings, folder, path)
    assert {path.name for path in settings.signing_dir.iterdir()} == {PRIVATE_KEY, PUBLIC_KEY, ".lock"}


@pytest.fixture
def given(tmp_path: Path, settings: Settings) -> Settings:
    """A deployment that gives both keys, made as docs/how-to/sign-models.md says."""
    private, public = tmp_path / "signing_key.pem", tmp_path / "verification_key.pem"
    make = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"]
    subprocess.run([*make, str(private)], check=True, capture_output=True)
    subprocess.run(
        ["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)],
        check=True,
        capture_output=True,
    )
    return settings.model_copy(update={"signing_key": private, "verification_key": public})


def test_a_deployments_own_keys_are_used_and_none_are_made(
    settings: Settings, given: Settings, folder: Path, tmp_path: Path
) -> None:
    signature = tmp_path / "given.sig"
    sign_folder(given, folder, signature)
    verify_folder(given, folder, signature)
    verify_folder(given.model_copy(update={"signing_key": None}), folder, signature)
    assert not settings.signing_dir.exists()
    with pytest.raises(RegistryError, match="Key mismatch"):
        verify_folder(settings, folder, signature)


def test_keys_that_are_missing_or_none_are_named(given: Settings, folder: Path, tmp_path: Path) -> None:
    signature, nowhere, no_key = tmp_path / "x.sig", tmp_path / "nowhere.pem", tmp_path / "no_key.pem"
    no_key.write_text("no key")
    sign_folder(given, folder, signature)
    wrong: list[tuple[dict[str, Path | None], str]] = [
        ({"signing_key": None}, "AIRLOOP_VERIFICATION_KEY alone"),
        ({"signing_key": nowhere}, r"AIRLOOP_SIGNING_KEY to name a key's file; found no file .*nowhere\.pem"),
        ({"signing_key": no_key}, r"no_key\.pem to be an unencrypted private key"),
        ({"signing_key": given.verification_key}, "to be an unencrypted private key"),
    ]
    for update, found in wrong:
        with pytest.raises(SettingsError, match=found):
            sign_folder(given.model_copy(update=update), folder, tmp_path / "y.sig")
    wrong = [
        ({"verification_key": None}, "AIRLOOP_SIGNING_KEY alone"),
        ({"verification_key": nowhere}, "AIRLOOP_VERIFICATION_KEY to name a key's file"),
        ({"verification_key": no_key}, "to be a public key"),
        ({"verification_key": given.signing_key}, "to be a public key"),
    ]
    for update, found in wrong:
        with pytest.raises(SettingsError, match=found):
            verify_folder(given.model_copy(update=update), folder, signature)


def test_folders_are_compared_by_every_file_but_one(folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    (other / "mlflow_run_id").write_text("1")
    assert not differs(other, folder, ignored="mlflow_run_id")
    flip_a_bit(other / "variables" / "data")
    assert differs(other, folder, ignored="mlflow_run_id")
    shutil.copy(folder / "variables" / "data", other / "variables" / "data")
    (other / "saved_model.pb").unlink()
    (other / "saved_model.pb").symlink_to(folder / "saved_model.pb")
    assert differs(other, folder, ignored="mlflow_run_id")
