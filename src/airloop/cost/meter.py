"""Measures what a job's processes use while they run.

Belongs here: looking at a process and its descendants, and adding up. Does not belong here: where it is
written (`attempts`), or what it costs (`prices`).

It looks once a second: what a process used after the last look at it is not counted, so a process that lives
for less than that may be missing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

import psutil

from airloop.cost.accelerators import accelerators_now
from airloop.cost.attempts import WRITTEN_EVERY_SECONDS, Attempt

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS: Final = 1.0
GIB: Final = 1024**3


class Meter:
    """While it is entered, measures the processes below `pid()` and gives `write` what they used so far.

    `pid` returns None for as long as there is no process. Measuring never fails the job: what goes wrong is
    logged, and what was not measured is missing.
    """

    def __init__(
        self,
        attempt: Attempt,
        pid: Callable[[], int | None],
        write: Callable[[Attempt], None],
        *,
        look_every_seconds: float = LOOK_EVERY_SECONDS,
    ) -> None:
        self._attempt, self._pid, self._write = attempt, pid, write
        self._look_every_seconds = look_every_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)
        self._cpu: dict[tuple[int, float], float] = {}
        self._looked = self._written = time.monotonic()
        self._cpu_at_writing = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        with _despite_errors():
            self._look(ended=True)

    def _run(self) -> None:
        while not self._stop.wait(self._look_every_seconds):
            with _despite_errors():
                self._look()

    def _look(self, *, ended: bool = False) -> None:
        memory = 0.0
        pid = None if ended else self._pid()
        for process in [] if pid is None else _family(pid):
            # It may end while it is looked at.
            with suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                self._cpu[process.pid, process.create_time()] = times.user + times.system
                memory += process.memory_info().rss / GIB
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        last, cpu = self._attempt, sum(self._cpu.values())
        self._attempt = last.model_copy(
            update={
                "measured": datetime.now(UTC),
                "ended": ended,
                "cpu_seconds": cpu,
                "peak_memory_gib": max(last.peak_memory_gib, memory),
                "memory_gib_seconds": last.memory_gib_seconds + memory * passed,
            }
        )
        since = now - self._written
        if ended or since >= WRITTEN_EVERY_SECONDS:
            self._at_writing(since, cpu)
            self._written, self._cpu_at_writing = now, cpu
            self._write(self._attempt)

    def _at_writing(self, since: float, cpu: float) -> None:
        """What is looked at less often than once a second, because it varies, or asking takes a moment."""
        last, busy = self._attempt, accelerators_now()
        # The rest of a period may be a moment, in which a single tick of the clock would look like a peak.
        vcpus = (cpu - self._cpu_at_writing) / max(since, 1.0)
        self._attempt = last.model_copy(
            update={
                "peak_vcpus": max(last.peak_vcpus, vcpus),
                "accelerators": max(last.accelerators, busy.there),
                "accelerator_seconds": last.accelerator_seconds + busy.at_work * since,
                "peak_accelerator_memory_gib": max(last.peak_accelerator_memory_gib, busy.memory_gib),
            }
        )


def _family(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


@contextmanager
def _despite_errors() -> Iterator[None]:
    """Logs what is raised within it, and goes on."""
    try:
        yield
    except Exception:
        log.warning("what the job uses could not be measured", exc_info=True)
