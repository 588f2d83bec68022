"""A periodic check on a thread of its own.

Belongs here: when to check. Does not belong here: what is checked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class PeriodicCheck:
    """Calls `check` every `seconds`, counted from the end of one call to the start of the next.

    An exception is logged and does not end the checks: a file system that is away for a moment must not stop
    new versions from being noticed for ever. The same failure is logged once, not at every check.
    """

    def __init__(self, name: str, seconds: float, check: Callable[[], None]) -> None:
        self._seconds = seconds
        self._check = check
        self._stopping = threading.Event()
        self._last_failure = ""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start checking; the first check comes after one interval."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop checking, and wait up to `timeout` seconds for a check that is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            try:
                self._check()
            except Exception as error:
                if str(error) != self._last_failure:
                    _log.error("%s failed: %s", self._thread.name, error)
                self._last_failure = str(error)
            else:
                self._last_failure = ""
