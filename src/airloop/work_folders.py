"""Folders of one job's work in progress, below the scratch folder; what killed jobs left there goes.

Belongs here: making one, and telling whose owner is gone. Does not belong here: what a job does in it.

A folder is locked for as long as its process lives. What a lock says holds for every machine and container
that mounts the folder; process ids, which each of them counts for itself, would not.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from airloop.settings import Settings

PREFIX: Final = "work-"


@contextmanager
def work_folder(settings: Settings, purpose: str) -> Iterator[Path]:
    """A new folder, which is gone afterwards; those of jobs that were killed go first.

    `purpose` is part of its name, for whoever finds it.
    """
    settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    with _locked(settings.scratch_dir):
        _sweep(settings.scratch_dir)
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-", dir=settings.scratch_dir))
        held = os.open(folder, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def process_work_folder(settings: Settings, purpose: str) -> Path:
    """As `work_folder`, for as long as this process lives."""
    stack = ExitStack()
    folder = stack.enter_context(work_folder(settings, purpose))
    atexit.register(stack.close)
    return folder


def _sweep(scratch: Path) -> None:
    for folder in scratch.glob(f"{PREFIX}*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone: a folder that has just been made has no lock yet."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
