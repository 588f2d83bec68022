"""Load from a process of its own: ready requests, sent over and over, each timed.

    python -m benchmarks.load '<one Load as JSON>'      (prints one Measured as JSON)

Belongs here: sending and timing. Does not belong here: what is sent, or what the figures mean.

Requests are bytes made before the clock starts, so that the load itself takes as little as possible of the
processors that it shares with what it measures.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import grpc
import numpy as np
from pydantic import BaseModel, Field

Send = Callable[[], Awaitable[bool]]


class Load(BaseModel):
    """Closed-loop load: `clients` that each send the next request when the last was answered."""

    protocol: Literal["grpc", "http"]
    address: str
    """host:port."""
    path: str
    """The gRPC method (/package.Service/Method), or the HTTP path."""
    request: str
    """The message or the body, in base64."""
    clients: int = Field(ge=1)
    warm_up_seconds: float = 1.0
    seconds: float = 5.0


class Measured(BaseModel):
    """What the clients saw."""

    clients: int
    requests: int
    failed: int
    requests_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float


async def run(load: Load) -> Measured:
    """Send for `warm_up_seconds`, then for `seconds`, and measure the latter."""
    body = base64.b64decode(load.request)
    begins = time.monotonic() + load.warm_up_seconds
    ends = begins + load.seconds
    taken: list[float] = []
    failed = 0

    async def client(send: Send) -> None:
        nonlocal failed
        while (began := time.monotonic()) < ends:
            good = await send()
            if began >= begins:
                taken.append(time.monotonic() - began)
                failed += not good

    if load.protocol == "grpc":
        async with grpc.aio.insecure_channel(load.address) as channel:
            method = channel.unary_unary(load.path)

            async def call() -> bool:
                try:
                    await method(body, timeout=30)
                except grpc.RpcError:
                    return False
                return True

            await asyncio.gather(*(client(call) for _ in range(load.clients)))
    else:
        connections = [await _Connection.open(load.address, load.path, body) for _ in range(load.clients)]
        await asyncio.gather(*(client(connection.ask) for connection in connections))
        for connection in connections:
            connection.close()
    milliseconds = np.array(taken) * 1000
    return Measured(
        clients=load.clients,
        requests=len(taken),
        failed=failed,
        requests_per_second=round(len(taken) / load.seconds, 1),
        p50_milliseconds=round(float(np.quantile(milliseconds, 0.5)), 2),
        p99_milliseconds=round(float(np.quantile(milliseconds, 0.99)), 2),
    )


class _Connection:
    """One HTTP/1.1 connection that is kept; an HTTP library would cost more than what it asks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        self._reader, self._writer, self._request = reader, writer, request

    @classmethod
    async def open(cls, address: str, path: str, body: bytes) -> _Connection:
        host, port = address.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return cls(reader, writer, head.encode() + body)

    async def ask(self) -> bool:
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = head.split(b" ", 2)[1]
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        await self._reader.readexactly(length)
        return status == b"200"

    def close(self) -> None:
        self._writer.close()


if __name__ == "__main__":
    print(asyncio.run(run(Load.model_validate_json(sys.argv[1]))).model_dump_json())
