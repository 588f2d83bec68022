"""From a gateway's spool to Kafka, for gateways whose disks the landing job does not reach.

Belongs here: sending a spool's lines, and removing files that the broker has all of. Does not belong here:
writing them (`spool`), or taking them from the broker into the table (`land_kafka`).

A record is in the spool before its prediction is answered, as without Kafka, so a broker that is slow or down
delays nobody. Lines leave as they are, those of one writer in order, each at least once: a process that was
killed leaves files behind, which the next one on the same disk sends from their beginning, and the landing
knows what it has by writer and sequence.
"""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from airloop.prediction_log.spool import Segment, segments_of

log = logging.getLogger(__name__)

EVERY_SECONDS: Final = 0.5
FLUSH_SECONDS: Final = 10.0
LINES_AT_ONCE: Final = 5_000
ORPHAN_SECONDS: Final = 60.0
"""A file of another process that nobody writes to any more is left to that process for so long."""
SAID_AGAIN_SECONDS: Final = 60.0


class Forwarder:
    """Sends one spool folder to one topic, in a thread of its own, until closed."""

    def __init__(self, folder: Path, writer: str, topic: str, options: Mapping[str, str]) -> None:
        self._folder, self._writer, self._topic = folder, writer, topic
        self._options = dict(options)
        self._producer: Any = None
        self._sent: dict[Path, int] = {}
        self._said_at = -SAID_AGAIN_SECONDS
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"forward-{topic}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send what there is, if the broker takes it; what it does not take stays in the spool."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            # Asked for first: the last round is one that began after the spool was closed.
            closing = self._closing.is_set()
            try:
                self._forward()
            except Exception:
                # A new producer, and the same lines again; the spool has them.
                self._producer = None
                if time.monotonic() - self._said_at > SAID_AGAIN_SECONDS:
                    self._said_at = time.monotonic()
                    log.exception("records of %s cannot be sent to Kafka; they stay there", self._folder)
            if closing:
                return
            self._closing.wait(EVERY_SECONDS)

    def _forward(self) -> None:
        for segment in segments_of(self._folder):
            if segment.writer == self._writer:
                self._send(segment)
        with _alone(self._folder) as alone:
            for segment in segments_of(self._folder) if alone else ():
                if segment.writer != self._writer and _is_orphan(segment):
                    self._send(segment)

    def _send(self, segment: Segment) -> None:
        """Send the file's lines that were not sent; remove it once nothing can follow."""
        # Before it is read: a file that is finished by then has all of its lines.
        finished = segment.finished
        begun = self._sent.get(segment.path, 0)
        with segment.path.open("rb") as file:
            file.seek(begun)
            lines: list[bytes] = []
            for line in file:
                if not line.endswith(b"\n"):
                    break
                lines.append(line)
                if len(lines) >= LINES_AT_ONCE:
                    self._produce(segment, lines)
                    lines = []
            self._produce(segment, lines)
        if finished:
            segment.path.unlink(missing_ok=True)
            self._sent.pop(segment.path, None)

    def _produce(self, segment: Segment, lines: list[bytes]) -> None:
        """Raises `ConnectionError` unless the broker has all of `lines`."""
        if not lines:
            return
        refused: list[str] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                refused.append(str(error))

        producer = self._open()
        for line in lines:
            while True:
                try:
                    producer.produce(self._topic, line.rstrip(b"\n"), segment.writer, on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.1)
        left = producer.flush(FLUSH_SECONDS)
        if left or refused:
            raise ConnectionError(f"{left} of {len(lines)} records not taken in time, refused: {refused[:3]}")
        size = sum(map(len, lines))
        self._sent[segment.path] = self._sent.get(segment.path, 0) + size

    def _open(self) -> Any:
        if self._producer is None:
            from confluent_kafka import Producer

            self._producer = Producer(
                {
                    **self._options,
                    "enable.idempotence": True,
                    "linger.ms": 20,
                    "compression.type": "lz4",
                    "message.timeout.ms": int(FLUSH_SECONDS * 1000),
                }
            )
        return self._producer


def _is_orphan(segment: Segment) -> bool:
    try:
        return segment.finished and time.time() - segment.path.stat().st_mtime > ORPHAN_SECONDS
    except FileNotFoundError:
        return False


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no other process of the folder looks after orphans now; held while it does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".forwarding.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
