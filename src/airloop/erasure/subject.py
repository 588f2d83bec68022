"""The subject of an erasure: its value, what stands for it where it must not be named, how it is handed on.

Belongs here: the deployment's erasure key, the digest, the file that carries a subject from the person who
asks to the jobs. Does not belong here: what a trace of the subject looks like (`traces`). Light to import:
the DAG uses it.

A subject never travels on a command line or through Airflow's database beyond the run's own configuration:
the first task writes it to a private file, the jobs read that, and the last task removes it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from airloop.erasure import ErasureError
from airloop.settings import Settings

SHORTEST, LONGEST = 3, 256
"""Characters of a subject: shorter ones are found in everything."""
_KEY_BYTES: Final = 32


def erasure_dir(settings: Settings) -> Path:
    """Folder of the erasure key, the list of the erased, and journals of erasures under way."""
    return settings.state_dir / "erasure"


def erasure_key(settings: Settings) -> bytes:
    """The key of this deployment's digests, made at first use, readable for its owner alone.

    Its own key, not that of the pseudonyms: those may be rotated, and what was erased must stay erased.
    """
    path = erasure_dir(settings) / "key"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        # Linked into place whole: of two processes that make one at once, both read the first.
        aside = path.with_name(f".key.{os.getpid()}")
        _write_private(aside, secrets.token_bytes(_KEY_BYTES))
        try:
            path.hardlink_to(aside)
        except FileExistsError:
            pass
        finally:
            aside.unlink(missing_ok=True)
        return path.read_bytes()


def digest_of(value: str, key: bytes) -> str:
    """What the value is called where it must not be named: 64 hexadecimal digits."""
    return hmac.new(key, b"airloop.erasure:" + value.encode(), hashlib.sha256).hexdigest()


def check_subject(value: str) -> str:
    """`value` without space around it; raises `ErasureError`, without repeating it, if it is unusable."""
    value = value.strip()
    if not SHORTEST <= len(value) <= LONGEST or not value.isprintable():
        raise ErasureError(
            expected=f"a subject of {SHORTEST} to {LONGEST} printable characters in one line",
            found=f"a text of {len(value)} characters",
            next_step="give the subject exactly as the source writes it",
        )
    return value


def hand_over(settings: Settings, run: str, subject: str, reason: str) -> Path:
    """Write the subject for the jobs of `run` to a private file; returns where.

    Raises `ErasureError` when the subject is unusable, or is named in the `reason`, which is kept for ever.
    """
    subject = check_subject(subject)
    if subject.lower() in reason.lower():
        raise ErasureError(
            expected="a reason that does not name the subject: the audit log keeps it for ever",
            found="one that does",
            next_step="refer to the request instead, such as its ticket number",
        )
    name = hashlib.sha256(run.encode()).hexdigest()[:16]
    path = erasure_dir(settings) / "handed_over" / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    _write_private(path, subject.encode())
    return path


def read_subject(path: Path) -> str:
    """The subject in the file that `hand_over` (or a person) wrote; raises `ErasureError`."""
    try:
        return check_subject(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ErasureError(
            expected=f"a file {path} with the subject",
            found=type(error).__name__,
            next_step="trigger the erasure again; by hand, write the subject to a file of mode 600",
        ) from None


def _write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
