"""Which code trained a model.

Belongs here: reading the commit, once, at a job's edge. Does not belong here: data versions, which the
training set's reference carries.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

UNKNOWN: Final = "unknown"
"""Stated where there is no repository to ask, and nothing else says it."""
COMMIT_FILE: Final = "COMMIT"
"""In an image, where there is no repository: the commit that it was built from."""
_CHANGED: Final = "-dirty"


def code_commit(repository: Path) -> str:
    """The commit checked out in `repository`, with `-dirty` when files differ from it, or `UNKNOWN`."""
    stated = repository / COMMIT_FILE
    if stated.is_file():
        return stated.read_text(encoding="ascii").strip() or UNKNOWN
    commit = _git(repository, "rev-parse", "HEAD")
    changes = _git(repository, "status", "--porcelain")
    if commit is None or changes is None:
        return UNKNOWN
    return commit + (_CHANGED if changes else "")


def is_reproducible(commit: str) -> bool:
    """Whether `commit` pins the code: known, and without changes on top of it."""
    return commit != UNKNOWN and not commit.endswith(_CHANGED)


def _git(repository: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed questions to git, no shell
            ["git", "-C", str(repository), *arguments],  # noqa: S607 - the git of whoever runs it
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
