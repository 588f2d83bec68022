"""A copy of this checkout, which a world runs from: with a short cross-validation, and free to be changed.

Belongs here: making the copy. Does not belong here: what is changed in it while a world runs (`deployment`).

Both worlds run from one copy, with one commit of its own: a training is keyed by its commit, and goes on from
its checkpoint only where the commit pins the code.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from airloop.settings import REPOSITORY

LIKE_A_COMMITTER: Final = {
    name: value
    for who in ("AUTHOR", "COMMITTER")
    for name, value in (
        (f"GIT_{who}_NAME", "survival"),
        (f"GIT_{who}_EMAIL", "survival@localhost"),
        (f"GIT_{who}_DATE", "2013-11-11T00:00:00+00:00"),
    )
}
SHORTER: Final = {
    "src/airloop/use_cases/flight_delay.py": (
        ("CrossValidation(folds=4, fold_days=14)", "CrossValidation(folds=2, fold_days=3)"),
    )
}
"""What is made smaller in the copy, so that its tasks run at all on a few weeks of data."""


def copy_checkout(folder: Path) -> Path:
    """Copy what git has or would have of this checkout to `folder`, and commit it there; returns `folder`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        source = REPOSITORY / name
        if source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    for name, changes in SHORTER.items():
        text = (folder / name).read_text("utf-8")
        for there, instead in changes:
            if there not in text:
                raise ValueError(f"{name} has no {there!r} any more: adapt {__name__}")
            text = text.replace(there, instead)
        (folder / name).write_text(text, encoding="utf-8")
    commit(folder, "the checkout, with a short cross-validation")
    return folder


def commit(folder: Path, message: str) -> None:
    """Commit everything in `folder`."""
    environment = {**os.environ, **LIKE_A_COMMITTER}
    if not (folder / ".git").exists():
        subprocess.run(["git", "init", "-q"], cwd=folder, env=environment, check=True)
    subprocess.run(["git", "add", "-A"], cwd=folder, env=environment, check=True)
    subprocess.run(["git", "commit", "-q", "-m", message], cwd=folder, env=environment, check=True)
