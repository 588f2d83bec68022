"""An examination of the deployment: every check at once, each with a time limit, and what came of it.

Belongs here: running checks and what a finding is. Does not belong here: any check.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

from airloop.errors import AirloopError
from airloop.references import Reference
from airloop.settings import Settings

TIMEOUT_SECONDS: Final = 20.0
_PASSWORD: Final = re.compile(r"(?<=://)([^/@:\s]*):[^@\s]+@")
_NAMED: Final = re.compile(r"(?i)\b((?:password|secret|token)\w*\s*[=:]\s*)[^\s,;&]+")
_LONGEST: Final = 400


class Failure(Exception):
    """A check did not pass: what was found, and what to do."""

    def __init__(self, found: str, next_step: str = "") -> None:
        super().__init__(found)
        self.found, self.next_step = found, next_step


class NotHere(Exception):
    """A check is another machine's or image's: why."""


class Check(NamedTuple):
    """One thing to look at."""

    name: str
    look: Callable[[Settings], str]
    """Returns what it saw; raises `Failure`, `NotHere`, or whatever the client of a service does."""
    next_step: str
    """What to do, where the failure itself does not say."""


class Finding(Reference):
    """What came of a check."""

    name: str
    outcome: Literal["ok", "failed", "skipped"]
    said: str
    next_step: str = ""
    seconds: float


def examine(
    settings: Settings, checks: Sequence[Check], timeout_seconds: float = TIMEOUT_SECONDS
) -> list[Finding]:
    """What came of each of `checks`, in their order; one that does not end in time has failed."""
    answers: queue.SimpleQueue[Finding] = queue.SimpleQueue()
    started = time.monotonic()
    for check in checks:
        # A thread that hangs must not keep the process from ending.
        threading.Thread(target=lambda check=check: answers.put(_look(settings, check)), daemon=True).start()
    found: dict[str, Finding] = {}
    while len(found) < len(checks):
        left = started + timeout_seconds - time.monotonic()
        try:
            finding = answers.get(timeout=max(left, 0.001))
        except queue.Empty:
            break
        found[finding.name] = finding
    return [
        found.get(check.name)
        or Finding(
            name=check.name,
            outcome="failed",
            said=f"no answer within {timeout_seconds:g} s",
            next_step=check.next_step,
            seconds=timeout_seconds,
        )
        for check in checks
    ]


def masked(text: str) -> str:
    """`text` without passwords, in a few lines."""
    text = _PASSWORD.sub(r"\1:***@", text)
    text = " ".join(_NAMED.sub(r"\1***", text).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _look(settings: Settings, check: Check) -> Finding:
    started = time.monotonic()
    outcome: Literal["ok", "failed", "skipped"]
    next_step = ""
    try:
        outcome, said = "ok", check.look(settings)
    except NotHere as reason:
        outcome, said = "skipped", str(reason)
    except ImportError as error:
        outcome, said = "skipped", f"{error.name} is not installed here"
    except Failure as failure:
        outcome, said, next_step = "failed", failure.found, failure.next_step or check.next_step
    except AirloopError as error:
        outcome, said, next_step = (
            "failed",
            f"expected {error.expected}; found {error.found}",
            error.next_step,
        )
    except Exception as error:
        outcome, said, next_step = "failed", f"{type(error).__name__}: {error}", check.next_step
    return Finding(
        name=check.name,
        outcome=outcome,
        said=masked(said),
        next_step=masked(next_step),
        seconds=round(time.monotonic() - started, 3),
    )
