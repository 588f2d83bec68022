"""Memory of the whole stack, sampled.

Belongs here: the measure. Does not belong here: which processes belong to the stack (`supervision`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import psutil

from airloop.settings import Settings
from airloop.stack.supervision import descendants

GIB = 1024**3


def proportional_bytes(processes: Iterable[psutil.Process]) -> int:
    """Sum of the processes' proportional set sizes: a page shared by n of them counts 1/n for each.

    Where the kernel does not tell (not Linux), resident set sizes, which count shared pages for each.
    """
    total = 0
    for process in processes:
        try:
            total += _proportional(process.pid) or process.memory_info().rss
        except psutil.Error:
            continue
    return total


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    except (OSError, ValueError):
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


class PeakMemory:
    """Samples the stack's memory in the background while it is entered; `gib` is the largest sum seen."""

    def __init__(self, settings: Settings, every_seconds: float = 4.0) -> None:
        self._settings = settings
        self._every_seconds = every_seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)
        self._bytes = 0

    @property
    def gib(self) -> float:
        """Peak so far, in GiB."""
        return self._bytes / GIB

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self._bytes = max(self._bytes, proportional_bytes(descendants(self._settings)))
            if self._done.wait(self._every_seconds):
                return
