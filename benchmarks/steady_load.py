"""A steady load on the gateway from a process of its own: so many requests a second, whatever it answers.

    python -m benchmarks.steady_load '<one SteadyLoad as JSON>'

Belongs here: sending, timing, telling outcomes, writing down what came back. Does not belong here: what it
means (`benchmarks.rollout`).

Requests leave at their times (an open loop): a gateway that slows down does not slow the load down, and the
time that a request waited to be sent counts. One line of JSON for each goes to the file `answers`; the load
ends when it is told to (SIGTERM), or after `seconds`.

Outcomes are drawn: what the champion says a request's probability is, that is how often its label is 1. So
the champion is calibrated by construction, and a version that says something else is worse.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field

CONNECTIONS = 64
TOLD_EVERY_SECONDS = 1.0
MOST_TOLD = 250


class SteadyLoad(BaseModel):
    """The load."""

    host: str
    port: int
    use_case: str
    bodies: Path
    """A file with one request body a line."""
    answers: Path
    requests_per_second: float = Field(gt=0)
    seconds: float = Field(gt=0)
    outcomes: bool = True
    seed: int = 1


class _Client:
    """The load's state."""

    def __init__(self, load: SteadyLoad) -> None:
        self._load = load
        self._bodies = load.bodies.read_text("utf-8").splitlines()
        self._random = np.random.default_rng(load.seed)
        self._known: dict[int, float] = {}
        self._told: list[dict[str, object]] = []
        self._free: asyncio.LifoQueue[_Connection] = asyncio.LifoQueue()
        self._out = load.answers.open("w", encoding="utf-8", buffering=1)
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        load = self._load
        for _ in range(CONNECTIONS):
            self._free.put_nowait(_Connection(load.host, load.port))
        teller = asyncio.create_task(self._tell())
        under_way: set[asyncio.Task[None]] = set()
        begun = time.monotonic()
        number = 0
        while not self.stopping.is_set() and time.monotonic() - begun < load.seconds:
            due = begun + number / load.requests_per_second
            await asyncio.sleep(max(due - time.monotonic(), 0))
            task = asyncio.create_task(self._ask(number, due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            number += 1
        if under_way:
            await asyncio.wait(under_way, timeout=30)
        teller.cancel()
        self._out.close()

    async def _ask(self, number: int, due: float) -> None:
        which = number % len(self._bodies)
        at = time.time()
        connection = await self._free.get()
        status, answer = 0, {}
        try:
            status, answer = await connection.post(f"/v1/{self._load.use_case}/predict", self._bodies[which])
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            connection.close()
        finally:
            self._free.put_nowait(connection)
        line = {
            "at": round(at, 4),
            "seconds": round(time.monotonic() - due, 5),
            "status": status,
            "version": (answer.get("model") or {}).get("version"),
            "variant": answer.get("variant"),
            "error": (answer.get("error") or {}).get("type"),
        }
        self._out.write(json.dumps(line) + "\n")
        if status == 200 and self._load.outcomes:
            (probability,) = answer["prediction"].values()
            if answer["variant"] in ("champion", "fallback", "control"):
                self._known[which] = probability
            if which in self._known:
                label = int(self._random.uniform() < self._known[which])
                self._told.append({"request_id": answer["request_id"], "label": label})

    async def _tell(self) -> None:
        connection = _Connection(self._load.host, self._load.port)
        while True:
            await asyncio.sleep(TOLD_EVERY_SECONDS)
            while self._told:
                some, self._told = self._told[:MOST_TOLD], self._told[MOST_TOLD:]
                try:
                    status, _ = await connection.post(
                        f"/v1/{self._load.use_case}/feedback", json.dumps({"outcomes": some})
                    )
                except (OSError, asyncio.IncompleteReadError):
                    connection.close()
                    status = 0
                if status != 202:
                    self._told = some + self._told
                    break


class _Connection:
    """One HTTP/1.1 connection that is kept, and opened again when it broke."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: str) -> tuple[int, dict[str, object]]:
        if self._reader is not None and self._reader.at_eof():
            self.close()
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        content = body.encode()
        self._writer.write(
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        answer = await self._reader.readexactly(length)
        if b"connection: close" in head:
            self.close()
        return int(head.split(b" ", 2)[1]), json.loads(answer)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def main(load: SteadyLoad) -> None:
    """Send until the end."""
    client = _Client(load)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, client.stopping.set)
    await client.run()


if __name__ == "__main__":
    asyncio.run(main(SteadyLoad.model_validate_json(sys.argv[1])))
