"""Starts a program that gives way to what answers requests, from its first import on.

    python -m airloop.background <program> [argument ...]

Belongs here: how far a process stands back. Does not belong here: what the program does.

The program takes this process's place. Importing Spark or TensorFlow takes a processor for ten seconds, so a
job that stood back only once it was imported would hold up clients for as long.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

AUTOGROUP = Path("/proc/self/autogroup")


def give_way() -> None:
    """Have this process's niceness count against all others.

    Linux may share processors between sessions before it shares them within one (sched(7), autogroup), and a
    job that Airflow starts is a session: without this, however nice, it takes as much as all that serves.
    """
    niceness = os.nice(0)
    if niceness > 0 and os.getsid(0) == os.getpid():
        # Not there, not on, or said a moment ago: then nothing is lost but a courtesy.
        with suppress(OSError):
            AUTOGROUP.write_text(str(niceness), encoding="ascii")


def main(command: Sequence[str]) -> NoReturn:
    """Become `command`."""
    give_way()
    os.execvp(command[0], list(command))  # noqa: S606 - a program with its arguments, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
