"""A gateway's durable spool: files of records that outlive the process.

Belongs here: writing records so that a killed process loses none that it answered, and finding what is
written. Does not belong here: what a record is (`logs`), or the table that it goes to (`land`).

A record is in a file before its prediction is answered: what a process has handed to the operating system
survives its `kill -9`. The disk is asked to keep it once a second; only a machine that loses power within
that second loses records. Should the disk hang or be full, a request waits `PATIENCE_SECONDS` and is answered
all the same; its record follows, or is counted as lost once `MOST_WAITING` records wait.
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import BaseModel

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 0.05
MOST_WAITING: Final = 10_000
SEGMENT_BYTES: Final = 16 * 1024 * 1024
SEGMENT_SECONDS: Final = 300.0
SYNC_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 1.0
SUFFIX: Final = ".jsonl"


@dataclass
class _Batch:
    records: Sequence[BaseModel | str]
    written: threading.Event = field(default_factory=threading.Event)


class Backlog(NamedTuple):
    """Records that wait to be landed."""

    bytes: int
    oldest_seconds: float
    """How long ago the file that waits longest was last written to; 0 where none waits."""


class Spool:
    """One process's part of a spool folder; threads may share it."""

    def __init__(
        self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, segment_seconds: float = SEGMENT_SECONDS
    ) -> None:
        self.writer = uuid.uuid4().hex
        self.lost = 0
        """Records that could not be kept, since the start."""
        self._folder = folder
        self._segment_bytes, self._segment_seconds = segment_bytes, segment_seconds
        self._sequence = 0
        self._segments = 0
        self._descriptor: int | None = None
        self._opened_at = 0.0
        self._synced_at = time.monotonic()
        self._closing = threading.Event()
        self._waiting: queue.Queue[_Batch | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="prediction-spool", daemon=True)
        self._thread.start()

    def append(self, records: Sequence[BaseModel | str], *, wait: bool = True) -> bool:
        """Keep `records`, or their JSON; whether they are in a file by now. Never raises, never waits long.

        Without `wait` it does not wait at all.
        """
        batch = _Batch(records)
        try:
            self._waiting.put_nowait(batch)
        except queue.Full:
            self.lost += len(records)
            return False
        return batch.written.wait(PATIENCE_SECONDS if wait else 0)

    def backlog(self) -> Backlog:
        """What lies in the folder to be landed and removed, of all processes that write to it.

        A file that is still written to is not among it: it stays for as long as nothing more is asked.
        """
        now = time.time()
        sizes, ages = [], []
        for segment in segments_of(self._folder):
            with suppress(FileNotFoundError):
                found = segment.path.stat()
                if found.st_size and segment.finished:
                    sizes.append(found.st_size)
                    ages.append(now - found.st_mtime)
        return Backlog(sum(sizes), max(ages, default=0.0))

    def close(self) -> None:
        """Write what waits, once more if the disk fails, and end."""
        self._closing.set()
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            # Asked for first: what is appended before `close` is then among what waits.
            closing = self._closing.is_set()
            batches = self._taken(wait=not closing)
            self._write(batches)
            if closing and not batches:
                self._end_segment()
                return

    def _taken(self, *, wait: bool) -> list[_Batch]:
        """All batches that wait; for the first of them, up to a second."""
        found: list[_Batch | None] = []
        with suppress(queue.Empty):
            found.append(self._waiting.get(block=wait, timeout=SYNC_SECONDS))
            while True:
                found.append(self._waiting.get_nowait())
        return [batch for batch in found if batch is not None]

    def _write(self, batches: Sequence[_Batch]) -> None:
        failed = False
        while batches:
            try:
                self._append(batches)
                break
            except OSError as error:
                if not failed:
                    log.error("records cannot be written to %s: %s", self._folder, error)
                failed = True
                # A part may be in the file: what follows goes to another, and counts on from the same number.
                self._end_segment()
                if self._closing.is_set():
                    self.lost += sum(len(batch.records) for batch in batches)
                    return
                self._closing.wait(RETRY_SECONDS)
        self._sync()

    def _append(self, batches: Sequence[_Batch]) -> None:
        descriptor = self._segment()
        sequence = self._sequence
        lines = []
        for batch in batches:
            for record in batch.records:
                sequence += 1
                lines.append(line_of(self.writer, sequence, record))
        left = memoryview(b"".join(lines))
        while left:
            left = left[os.write(descriptor, left) :]
        self._sequence = sequence
        for batch in batches:
            batch.written.set()

    def _segment(self) -> int:
        """The file to append to, a new one when the present one is full or old."""
        if self._descriptor is not None:
            full = os.fstat(self._descriptor).st_size >= self._segment_bytes
            if not full and time.monotonic() - self._opened_at < self._segment_seconds:
                return self._descriptor
            self._end_segment()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._segments += 1
        path = self._folder / f"{self.writer}-{self._segments:08}{SUFFIX}"
        aside = path.with_suffix(".new")
        self._descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        # Held as long as the process lives: whoever lands the file can tell that more may come. Taken before
        # the file has its name, for one that is found without the lock, and empty, is taken for done.
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        aside.rename(path)
        self._opened_at = time.monotonic()
        return self._descriptor

    def _sync(self) -> None:
        if self._descriptor is not None and time.monotonic() - self._synced_at >= SYNC_SECONDS:
            try:
                os.fdatasync(self._descriptor)
            except OSError as error:
                log.error("records in %s may not be on the disk yet: %s", self._folder, error)
            self._synced_at = time.monotonic()

    def _end_segment(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def line_of(writer: str, sequence: int, record: BaseModel | str) -> bytes:
    """The record, or its JSON, as a line of a spool's file."""
    text = record if isinstance(record, str) else record.model_dump_json()
    return b'{"writer":"%s","sequence":%d,"record":%s}\n' % (
        writer.encode(),
        sequence,
        text.encode(),
    )


@dataclass(frozen=True)
class Segment:
    """A file of a spool folder."""

    path: Path
    writer: str
    number: int

    @property
    def finished(self) -> bool:
        """Whether nothing more will be written to it: its writer has gone on to another, or is gone."""
        with self.path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def lines(self) -> Iterator[bytes]:
        """Its whole lines; what is after the last line's end is being written, or never will be."""
        with self.path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))


def segments_of(folder: Path) -> list[Segment]:
    """Every file of a spool folder, each writer's in order; none where there is no folder yet."""
    found = []
    for path in folder.glob(f"*{SUFFIX}"):
        writer, _, number = path.stem.rpartition("-")
        if writer and number.isdecimal():
            found.append(Segment(path, writer, int(number)))
    return sorted(found, key=lambda segment: (segment.writer, segment.number))


@contextmanager
def landing_alone(folder: Path) -> Iterator[None]:
    """Hold the folder: one process at a time takes records out of it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".landing.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
