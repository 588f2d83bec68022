"""Circuit breakers: a server that keeps failing is left alone for a moment.

Belongs here: when one opens and closes. Does not belong here: what a failure is to a client (`problems`).

Calls go through it side by side. (`pybreaker` holds a lock while it calls, so that one request at a time
would be answered.)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from circuitbreaker import CircuitBreaker

FAILURES_IN_A_ROW: Final = 5
OPEN_SECONDS: Final = 2
"""Then the server is tried again: a good answer closes the circuit, a failure opens it once more."""

_T = TypeVar("_T")


class CircuitOpen(Exception):
    """The server failed too often just now; it was not asked."""


class Circuit:
    """A breaker for one server; threads may share it."""

    def __init__(self, server: str, failures: tuple[type[Exception], ...]) -> None:
        self.server = server
        self._failures = failures
        self._breaker = CircuitBreaker(
            failure_threshold=FAILURES_IN_A_ROW,
            recovery_timeout=OPEN_SECONDS,
            expected_exception=failures,
            name=server,
        )

    @property
    def is_open(self) -> bool:
        """Whether a call would be refused now."""
        return bool(self._breaker.opened)

    def count(self, error: Exception | None) -> None:
        """Count a call that was made elsewhere, and failed with `error` if there is one."""

        def ended() -> None:
            if error is not None:
                raise error

        with suppress(CircuitOpen, *self._failures):
            self.call(ended)

    def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """What `function` returns; raises `CircuitOpen` without calling it, or what it raises.

        Only `failures` count: a server that refuses a request answers.
        """
        if self._breaker.opened:
            raise CircuitOpen(self.server)
        with self._breaker:
            return function(*arguments)
