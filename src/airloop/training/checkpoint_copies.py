"""Copies of a training's checkpoints on S3, for machines whose disk goes with them, as Batch's do.

Belongs here: fetching them before a training, and keeping them up to date meanwhile. Does not belong here:
the checkpoints (`checkpoints`). SageMaker copies by itself.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from airloop.job_folder import JobFolder

log = logging.getLogger(__name__)

COPY_EVERY_SECONDS: Final = 30.0
"""At most so much of a training is lost with its machine, beside the minute between two checkpoints."""


class CheckpointCopies:
    """While it is entered, what changes in `local` is copied to `folder`; there first is what lies there."""

    def __init__(self, folder: JobFolder, local: Path, *, every_seconds: float = COPY_EVERY_SECONDS) -> None:
        self._folder, self._local, self._every_seconds = folder, local, every_seconds
        self._copied: dict[Path, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoint copies", daemon=True)

    def __enter__(self) -> Self:
        for name in self._folder.names():
            path = self._local / name
            if path.is_relative_to(self._local) and ".." not in path.parts:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._folder.download(name, path)
                self._copied[path] = _version(path)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._copy()

    def _run(self) -> None:
        while not self._stop.wait(self._every_seconds):
            self._copy()

    def _copy(self) -> None:
        """Copy what is new. A training goes on without: then only its interruption costs more."""
        try:
            for path in self._local.rglob("*"):
                # A file with a dot is not whole yet.
                if (
                    path.is_file()
                    and not path.name.startswith(".")
                    and self._copied.get(path) != _version(path)
                ):
                    version = _version(path)
                    self._folder.upload(path, path.relative_to(self._local).as_posix())
                    self._copied[path] = version
        except Exception:
            log.warning("checkpoints could not be copied to %s", self._folder.uri, exc_info=True)


def _version(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
