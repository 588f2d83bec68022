"""Asks for predictions without a pause while something else happens, and counts what came back.

Belongs here: the asking and the counting. Does not belong here: what happens meanwhile (`services`).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import TracebackType

import httpx

from airloop.intervals import parse_instant
from tests.cluster.__main__ import AS_OF, BODY, PORTS
from tests.cluster.podman import Cluster

EVERY_SECONDS = 0.25


class Clients:
    """One client after another, each with a connection of its own, through nginx."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        as_of = parse_instant(AS_OF).isoformat()
        printed = cluster.execute("worker-data", "python", "-c", BODY, name, as_of)
        self.answers: Counter[str] = Counter()
        """By version, or by what came in place of an answer."""
        self._body = printed.strip().splitlines()[-1]
        self._url = f"https://localhost:{PORTS['AIRLOOP_GATEWAY_PORT']}/v1/{name}/predict"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Clients:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(60)

    def _ask(self) -> None:
        while not self._over.is_set():
            self.answers[self._asked()] += 1
            time.sleep(EVERY_SECONDS)

    def _asked(self) -> str:
        try:
            answer = httpx.post(
                self._url, content=self._body, headers={"content-type": "application/json"}, timeout=30
            )
        except httpx.HTTPError as error:
            return type(error).__name__
        if answer.status_code != 200:
            return f"status {answer.status_code}"
        return f"version {answer.json()['model']['version']}"
