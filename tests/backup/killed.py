"""Run by the tests in a process of its own: backups and restores, each in a child that is killed in mid-work.

One order a line: a job's module, its flags, and before which call of which method it is killed. One answer a
line: how the child ended. The imports, which take seconds, are done once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib import import_module

from airloop.backup import create, restore  # noqa: F401  # imported once, for all children
from airloop.backup.place import FolderPlace


def killed_before(method: str, calls: int) -> None:
    """From now on, the call after `calls` of a place's `method` is never made."""
    real, left = getattr(FolderPlace, method), [calls]

    def counted(*arguments):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    setattr(FolderPlace, method, counted)


def run(order: dict) -> int:
    """The job of an order, in a child."""
    os.environ.update(order["environment"])
    module = import_module(order["module"])
    if order["module"].endswith("restore"):
        # Reading all of the backup beforehand counts for nothing.
        verified = restore.verify

        def then(*arguments):
            verified(*arguments)
            killed_before(order["method"], order["calls"])

        restore.verify = then
    else:
        killed_before(order["method"], order["calls"])
    return module.main(order["flags"])


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.dup2(2, 1)
            os._exit(run(json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
