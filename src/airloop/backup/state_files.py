"""Files of the state folder that are in a backup.

Belongs here: which, in what order, and a copy of files that others write to. Does not belong here: databases,
tables and artifacts, which have modules of their own.

Left out, because they are made again or only help while they are young: scratch and temporary files, logs,
checkpoints of interrupted trainings (a retry begins anew) and of streams (the tables know how far a stream
is).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cryptography.fernet import Fernet, InvalidToken

from airloop.backup import BackupError
from airloop.settings import Settings

MOVED_INTO_TABLES: Final = ("predictions", "outcomes", "usage")
"""Copied before the tables; what was landed and removed since then is in those."""
WRITTEN_DOWN: Final = ("audit_log", "models", "monitoring", "reports", "overview", "lineage")
"""Copied before the registry and the tables, which they refer to."""
ERASED: Final = "erasure/suppressed.jsonl"
"""The list of the erased; copied after the tables."""
PRIVATE_KEY: Final = "signing/signing_key.pem"
PUBLIC_KEY: Final = "signing/verification_key.pem"
SECRETS: Final = (
    "airflow/secrets.json",
    "airflow/passwords.json",
    "erasure/key",
    PRIVATE_KEY,
)
"""Keys that the deployment made for itself. Those that the settings name are kept where they come from."""
_ATTEMPTS: Final = 5


def in_state(settings: Settings, folders: Sequence[str], copies: Path) -> Iterator[tuple[str, Path]]:
    """Names (`<folder>/...`) and copies of the files in `folders` of the state folder.

    A folder whose files changed while it was copied is copied again, so that a model config and the versions
    that it names are of one moment. Files that only grow count as unchanged: their beginning is whole.
    Raises `BackupError` where it never holds still.
    """
    for name in folders:
        source = settings.state_dir / name
        for _ in range(_ATTEMPTS):
            target = copies / name
            shutil.rmtree(target, ignore_errors=True)
            before = _listed(source)
            if _copied(source, before, target) and before.keys() <= _listed(source).keys():
                break
        else:
            raise BackupError(
                expected=f"{source} to hold still while it is copied",
                found=f"files came and went in each of {_ATTEMPTS} attempts",
                next_step="make the backup again",
            )
        for path in sorted(before):
            yield f"{name}/{path}", target / path


def present(settings: Settings, names: Sequence[str]) -> dict[str, Path]:
    """Those of `names` that are there, and where."""
    return {name: settings.state_dir / name for name in names if (settings.state_dir / name).is_file()}


def cipher(settings: Settings) -> Fernet | None:
    """What encrypts the secrets of backups; None without a key. Raises `BackupError` for an unusable one."""
    if settings.backup_key is None:
        return None
    try:
        return Fernet(settings.backup_key.read_bytes().strip())
    except (OSError, ValueError) as error:
        raise BackupError(
            expected=f"a key (32 bytes in URL-safe base64) in {settings.backup_key}",
            found=f"{type(error).__name__} (the file is not shown)",
            next_step="make one, and keep it elsewhere too: openssl rand -base64 32 | tr '+/' '-_'",
        ) from None


def decrypted(secret: bytes, key: Fernet) -> bytes:
    """A secret of a backup in the clear; raises `BackupError` if another key encrypted it."""
    try:
        return key.decrypt(secret)
    except InvalidToken:
        raise BackupError(
            expected="the key that the backup's secrets were encrypted with, in AIRLOOP_BACKUP_KEY",
            found="another one",
            next_step="name the key that was set when the backup was made",
        ) from None


def write_private(path: Path, source: Path) -> None:
    """Put the file `source` at `path`, whole and readable for its owner alone."""
    for folder in reversed(path.parents):
        if not folder.exists():
            private = folder.name in ("erasure", "signing", "audit_log")
            folder.mkdir(mode=0o700 if private else 0o755, exist_ok=True)
    aside = path.with_name(f".{path.name}.restored")
    with source.open("rb") as content:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
    aside.replace(path)


def _listed(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and size of every file, by its path; hidden files are locks and writes that are under way."""
    found = {}
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts) or relative.suffix == ".new":
            continue
        try:
            seen = path.lstat()
        except FileNotFoundError:
            continue
        if path.is_file() and not path.is_symlink():
            found[relative.as_posix()] = (seen.st_ino, seen.st_size)
    return found


def _copied(source: Path, listed: dict[str, tuple[int, int]], target: Path) -> bool:
    """Whether every file could be copied, and is the file that was listed."""
    for name, (inode, size) in listed.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source / name, target / name)
            seen = (source / name).stat()
        except FileNotFoundError:
            return False
        if seen.st_ino != inode or seen.st_size < size:
            return False
    return True
