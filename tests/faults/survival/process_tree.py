"""Stopping or killing a process and all that it started.

Belongs here: finding the whole tree while it grows. Does not belong here: which process, and
when (`killer`).
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psutil


def stop_tree(pid: int) -> list[psutil.Process]:
    """Stop the process `pid` and its descendants where they are; those that were stopped, which can go on.

    Each is stopped before its children are listed: a process that runs could start another one meanwhile,
    which nobody would find once its parent is dead.
    """
    found: dict[int, psutil.Process] = {}
    waiting = [pid]
    while waiting:
        number = waiting.pop()
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            process = psutil.Process(number)
            if process.status() == psutil.STATUS_ZOMBIE:
                # It ended by itself, and is not there to be killed.
                continue
            os.kill(number, signal.SIGSTOP)
            found[number] = process
            waiting += [child.pid for child in process.children() if child.pid not in found]
    return list(found.values())


def kill_tree(pid: int) -> list[psutil.Process]:
    """Kill the process `pid` and its descendants; those that were killed, none where it was not running."""
    killed = []
    for process in stop_tree(pid):
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process)
    return killed
