"""What an exception that nobody raised on purpose says in one line, and what to do about it.

Belongs here: finding the cause in what a library raised, and the next step. Does not belong here: errors that
are raised on purpose (`errors`), or asking whether something answers (`doctor`).
"""

from __future__ import annotations

import signal
from typing import Final

LONGEST_REASON: Final = 400
"""Characters; what a library says can go on for pages."""
_JAVA_CAUSES: Final = (": ", "Caused by: ")
"""In the text of an exception that came from Java, before the outermost and each deeper one."""
_NEXT_STEPS: Final = (
    (
        ("no space left", "disk quota exceeded", "errno 28"),
        "make room on the disk (of this worker, or of the store that it names)",
    ),
    (
        ("outofmemoryerror", "memoryerror", "cannot allocate memory", "resourceexhausted"),
        "give the worker more memory, or have it run fewer jobs at a time",
    ),
    (
        ("accessdenied", "access denied", "permission denied", "forbidden", "not authorized"),
        "give the worker's role or user the right that it names",
    ),
    (
        ("certificate_verify_failed", "certificate verify failed", "certificate has expired"),
        "renew the certificate, or give the worker the authority that signed it",
    ),
)
"""Words of an outage, in small letters, and what mends it; the first that fits."""
_ASK: Final = "ask the doctor (make doctor, or python -m airloop.doctor on the worker) what does not answer"


def reason_of(error: BaseException) -> str:
    """One line: the type of `error` and its innermost cause as its library tells it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    causes = [line.removeprefix(mark) for line in lines for mark in _JAVA_CAUSES if line.startswith(mark)]
    said = (causes[-1] if causes else lines[0] if lines else "").strip()
    reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return reason if len(reason) <= LONGEST_REASON else f"{reason[: LONGEST_REASON - 1]}…"


def reason_of_status(status: int) -> str:
    """What the exit status of a process that told nothing more says."""
    # A shell says 128 and the signal, Python its negative.
    number = -status if status < 0 else status - 128 if status > 128 else 0
    if number not in {item.value for item in signal.Signals}:
        return f"exit status {status}"
    name = signal.Signals(number).name
    if number != signal.SIGKILL:
        return f"it was ended by {name}"
    return f"it was ended by {name}, as the system does where memory runs out"


def next_step_of(reason: str) -> str:
    """What to do about `reason`, before the task is cleared."""
    small = reason.lower()
    for words, step in _NEXT_STEPS:
        if any(word in small for word in words):
            return step
    if signal.SIGKILL.name in reason:
        return "see the worker's memory, and what ended it"
    return _ASK
