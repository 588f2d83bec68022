"""A training shared by several processes of this machine, started again together when one of them dies.

Belongs here: starting and watching the workers where the deployment has nothing that does (SageMaker, Batch
and Kubernetes do it themselves). Does not belong here: what a worker does (`train`).
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Final

from airloop.errors import EXIT_PERMANENT
from airloop.logs import configure_job
from airloop.training.devices import TF_CONFIG

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG: Final = 1
"""From Linux' `prctl.h`."""
RESTARTS: Final = 3
"""Times that all workers are started again. A training that dies more often has another fault."""
FINAL: Final = (0, EXIT_PERMANENT, 2)
"""Statuses that another start would only repeat: done, a permanent error, flags that are refused."""
REPORT_SECONDS: Final = 30.0
"""How long the first worker has to report the permanent error that another one met before it."""
NOTICE_SECONDS: Final = 60.0
"""How long workers have to write a checkpoint once they are asked to stop."""


def run_locally(workers: int, module: str, arguments: Sequence[str], stop: threading.Event) -> int:
    """Run the job `module` with `arguments` in so many processes; returns the exit status of the first.

    When one dies, the others wait for it for ever: all are ended, and started again from the last checkpoint.
    Not so after a permanent error or once `stop` is set; then the workers are asked to save and end.
    """
    for left in reversed(range(RESTARTS + 1)):
        processes = _start(workers, module, arguments)
        status = _watch(processes, stop)
        if status in FINAL or stop.is_set() or not left:
            return status
        log.warning("a worker ended with status %d: all are started again", status)
    raise AssertionError("the last turn returns")


def _start(workers: int, module: str, arguments: Sequence[str]) -> list[subprocess.Popen[bytes]]:
    configure_job()
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(workers)]
    processes = []
    for worker in range(workers):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": worker}}
        # The result is the first worker's.
        flags = arguments if worker == 0 else _without_result(arguments)
        environment = {**os.environ, TF_CONFIG: json.dumps(config)}
        processes.append(
            subprocess.Popen(  # noqa: S603 - our own program, no shell
                [sys.executable, "-m", module, *flags], env=environment, preexec_fn=_die_with_parent
            )
        )
    log.info(
        "workers: %s", ", ".join(f"{item.pid} at {at}" for item, at in zip(processes, addresses, strict=True))
    )
    return processes


def _watch(processes: Sequence[subprocess.Popen[bytes]], stop: threading.Event) -> int:
    """Wait for all to end well, or the first to end badly; none runs afterwards. Returns the first's status,
    or that of the one that ended badly."""
    asked_at = None
    try:
        while True:
            ended = [process.poll() for process in processes]
            bad = [status for status in ended if status]
            if EXIT_PERMANENT in bad:
                with suppress(subprocess.TimeoutExpired):
                    processes[0].wait(REPORT_SECONDS)
                return EXIT_PERMANENT
            if bad and (asked_at is None or None not in ended):
                return bad[0]
            if ended == [0] * len(processes):
                return 0
            if stop.is_set() and asked_at is None:
                asked_at = time.monotonic()
                for process in processes:
                    process.terminate()
            if asked_at is not None and time.monotonic() - asked_at > NOTICE_SECONDS:
                return 1
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _die_with_parent() -> None:
    """In the worker, before it starts: a launcher that is killed must leave no second set of workers."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


def _without_result(arguments: Sequence[str]) -> list[str]:
    flags = [flag for flag in arguments if not flag.startswith("--result=")]
    if "--result" in flags:
        at = flags.index("--result")
        del flags[at : at + 2]
    return flags
