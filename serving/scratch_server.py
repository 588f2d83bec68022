"""A model server of its own for one version: whatever the version does there, it does to nobody.

Belongs here: starting it, and what it costs. Does not belong here: what the version must answer
(`serving.infra_check`).

It is the embedded server, wherever the deployment's runs: the same TensorFlow, and no container to start. A
version that takes all memory or ends the process is found out here.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from google.protobuf import text_format

from airloop.errors import RolloutError
from airloop.settings import Settings
from airloop.work_folders import work_folder
from serving.model_config import ServedModel, config_message
from serving.model_server_client import (
    AVAILABLE,
    END,
    ModelServer,
    ModelServerDown,
    ModelServerLate,
    ModelServerRefused,
)

log = logging.getLogger(__name__)

_LOOPBACK: Final = "127.0.0.1"
_POLL_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 20.0
_NICENESS: Final = 10
_PATIENCE: Final = 5
"""How many times its allowance of seconds a server may take on a machine that gives it no time."""


class ScratchServer:
    """A running one, with one version of one model."""

    def __init__(self, process: subprocess.Popen[bytes], client: ModelServer) -> None:
        self._process = process
        self.client = client

    def memory_mebibytes(self) -> float | None:
        """What its process holds in memory; None where the system does not tell."""
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text("ascii").split()[1])
        except (OSError, ValueError, IndexError):
            return None
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def scratch_server(settings: Settings, name: str, version: int, *, timeout: float) -> Iterator[ScratchServer]:
    """A model server that has `version` of model `name` loaded and warmed up, from the models folder.

    Raises `RolloutError` when it is not loaded within `timeout` seconds in which the server worked, or within
    five times as many: that a busy machine gave it no time is not the version's fault.
    """
    with work_folder(settings, "model-server") as folder:
        config, output = folder / "models.config", folder / "log"
        model = ServedModel(name, settings.models_dir / name, frozenset({version}))
        config.write_text(text_format.MessageToString(config_message({name: model})), encoding="utf-8")
        port = _free_port()
        with output.open("wb") as stream:
            process = subprocess.Popen(  # noqa: S603 - our own program, no shell
                [
                    *(sys.executable, "-m", "serving.model_server", f"--bind_address={_LOOPBACK}"),
                    *(f"--port={port}", f"--model_config_file={config}"),
                ],
                cwd=settings.repository,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        # It may stand beside what serves, which must not be slower for it.
        # The job may give way further already, and only root can take that back.
        os.setpriority(os.PRIO_PROCESS, process.pid, max(_NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
        try:
            with ModelServer(f"{_LOOPBACK}:{port}") as client:
                _wait_until_available(process, client, name, version, timeout, output)
                yield ScratchServer(process, client)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_available(
    process: subprocess.Popen[bytes],
    client: ModelServer,
    name: str,
    version: int,
    timeout: float,
    output: Path,
) -> None:
    began = time.monotonic()
    found = "no answer"
    while time.monotonic() - began < _PATIENCE * timeout:
        if process.poll() is not None:
            found = f"the server ended with exit status {process.returncode}"
            break
        try:
            state = client.states(name, timeout=5.0).get(version)
        except (ModelServerDown, ModelServerLate, ModelServerRefused) as error:
            found = str(error)
        else:
            if state is not None and state.state == AVAILABLE:
                return
            found = f"{state.state}: {state.error}".rstrip(": ") if state else "unknown to the model server"
            if state is not None and state.state == END:
                break
        worked = _processor_seconds(process.pid)
        if time.monotonic() - began >= timeout and (worked is None or worked >= timeout):
            break
        time.sleep(_POLL_SECONDS)
    log.error("the scratch server's log ends:\n%s", output.read_text("utf-8", errors="replace")[-3000:])
    raise RolloutError(
        expected=f"version {version} of model {name} AVAILABLE within {timeout:g} s on a server of its own",
        found=f"{found} (after {time.monotonic() - began:.0f} s)",
        next_step="the end of that server's log is above; the champion keeps serving. Train a new candidate",
    )


def _processor_seconds(pid: int) -> float | None:
    """What the process has worked, all threads together; None where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
