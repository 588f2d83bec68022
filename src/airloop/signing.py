"""Signing a folder of files, and refusing one that is not as it was signed.

Belongs here: keys, and OpenSSF Model Signing over a whole folder with an elliptic-curve key. Does not belong
here: which artifacts of a run are signed, and where the signature is kept (`airloop.signed_models`).

Where the deployment names no key, a pair is made in the state folder on first use: enough for one machine,
whose owner signs for himself. Nothing here uses the network.
"""

from __future__ import annotations

import fcntl
import os
from ast import literal_eval
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from model_signing.hashing import Config as Hashing
from model_signing.signing import Config as Signing
from model_signing.verifying import Config as Verifying

from airloop.errors import RegistryError, SettingsError
from airloop.settings import Settings
from airloop.whole_files import write_whole

PRIVATE_KEY: Final = "signing_key.pem"
PUBLIC_KEY: Final = "verification_key.pem"
"""Files of the pair that is made where the deployment gives none."""
HOW_TO: Final = "docs/how-to/sign-models.md"


def sign_folder(settings: Settings, folder: Path, signature: Path) -> None:
    """Write the signature over every file in `folder` to the file `signature`, which lies outside it.

    Raises `SettingsError` when there is no usable private key.
    """
    key = _signing_key(settings)
    signing = Signing()  # type: ignore[no-untyped-call]  # the library's constructors have no types
    try:
        signing.use_elliptic_key_signer(private_key=key)
    except (ValueError, TypeError, AttributeError) as error:
        raise _unusable(key, "an unencrypted private key on a NIST curve, PEM", error) from None
    signing.set_hashing_config(_every_file()).sign(folder, signature)


def verify_folder(settings: Settings, folder: Path, signature: Path) -> None:
    """Raises `RegistryError` unless the files in `folder` are exactly those that `signature` signs.

    A changed, added or removed file, a symbolic link, a damaged signature and another key's all count.
    Raises `SettingsError` when there is no usable public key.
    """
    key = _verification_key(settings)
    verifying = Verifying()  # type: ignore[no-untyped-call]  # see above
    try:
        verifying.use_elliptic_key_verifier(public_key=key)
    except (ValueError, TypeError, AttributeError) as error:
        raise _unusable(key, "a public key on a NIST curve, PEM", error) from None
    try:
        verifying.set_hashing_config(_every_file()).verify(folder, signature)
    except OSError:
        raise  # The disk says nothing about the signature.
    except Exception as error:  # Whatever the library raises over a signature that somebody made up.
        raise RegistryError(
            expected=f"{folder.name} to be as it was signed for {key}",
            found=_said(error) or f"a signature that is not this key's ({type(error).__name__})",
            next_step="do not load it: find out who changed the artifacts, or which key signed them "
            f"({HOW_TO}); then train the model again",
        ) from None


def _said(error: Exception) -> str:
    """The library's message; of a list of changes, what changed, without the digests as Python shows them."""
    text, mark, changes = str(error).strip().partition("Signature mismatch: ")
    try:
        return text + "; ".join(change.partition(": Expected")[0] for change in literal_eval(changes))
    except (ValueError, SyntaxError):
        return text + mark + changes


def differs(one: Path, other: Path, ignored: str) -> bool:
    """Whether two folders hold other files, or other bytes in them; `ignored` is a file that may differ.

    A symbolic link is no file that a model has.
    """
    hashing = _every_file(besides=[ignored])
    try:
        return bool(hashing.hash(one) != hashing.hash(other))
    except ValueError:  # a link, or another thing that is no file
        return True


def _every_file(besides: Sequence[str] = ()) -> Hashing:
    """By itself the library leaves out what looks like git's; in a model nothing may change unseen."""
    hashing = Hashing()  # type: ignore[no-untyped-call]  # see above
    return hashing.set_ignored_paths(paths=besides, ignore_git_paths=False)


def _signing_key(settings: Settings) -> Path:
    if settings.signing_key is not None:
        return _existing(settings.signing_key, "AIRLOOP_SIGNING_KEY")
    if settings.verification_key is not None:
        raise SettingsError(
            expected="AIRLOOP_SIGNING_KEY to name the private key, where models are registered",
            found="AIRLOOP_VERIFICATION_KEY alone: this machine only verifies",
            next_step=f"give it the private key, or register elsewhere ({HOW_TO})",
        )
    return _made_pair(settings)[0]


def _verification_key(settings: Settings) -> Path:
    if settings.verification_key is not None:
        return _existing(settings.verification_key, "AIRLOOP_VERIFICATION_KEY")
    if settings.signing_key is not None:
        raise SettingsError(
            expected="AIRLOOP_VERIFICATION_KEY to name the public key, where there is AIRLOOP_SIGNING_KEY",
            found="AIRLOOP_SIGNING_KEY alone",
            next_step=f"take the public key out of the private one ({HOW_TO}), and name its file",
        )
    return _made_pair(settings)[1]


def _existing(path: Path, setting: str) -> Path:
    if not path.is_file():
        raise SettingsError(
            expected=f"{setting} to name a key's file",
            found=f"no file {path}",
            next_step=f"make the key ({HOW_TO}), or correct the setting",
        )
    return path


def _made_pair(settings: Settings) -> tuple[Path, Path]:
    """The private and the public key in the state folder, made if need be; one process at a time makes them.

    The public key always follows from the private one, whatever was interrupted in between.
    """
    folder = settings.signing_dir
    private, public = folder / PRIVATE_KEY, folder / PUBLIC_KEY
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _held(folder / ".lock"):
        if not private.exists():
            _write_secret(private, ec.generate_private_key(ec.SECP256R1()))
        try:
            key = load_pem_private_key(private.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise _unusable(private, "the private key that was made there", error) from None
        text = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        if not public.exists() or public.read_text(encoding="utf-8") != text:
            write_whole(public, text)
    return private, public


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_secret(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write the key so that it is there whole or not at all, and at no moment readable for others."""
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _unusable(key: Path, expected: str, error: Exception) -> SettingsError:
    return SettingsError(
        expected=f"{key} to be {expected}",
        found=f"{type(error).__name__}: {error}".splitlines()[0],
        next_step=f"make a pair as {HOW_TO} says",
    )
