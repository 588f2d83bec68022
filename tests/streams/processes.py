"""The stream job as a process of its own, which a test may kill at any point; and free ports."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from airloop.errors import EXIT_PERMANENT
from airloop.settings import REPOSITORY, Settings, environment_of

TIP_SECONDS = 600


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class StreamJob(NamedTuple):
    """`spark_jobs.stream_ingest` for one stream of `flight_delay`."""

    settings: Settings
    stream: str
    connection_id: str
    connection: dict[str, Any]

    @property
    def log(self) -> Path:
        """What all its runs wrote to their standard error."""
        return self.settings.state_dir / f"{self.stream}.log"

    def start(self, *flags: str) -> subprocess.Popen[bytes]:
        """A run in a process group of its own."""
        command = [sys.executable, "-m", "spark_jobs.stream_ingest", "--use-case", "flight_delay"]
        command += ["--stream", self.stream, "--result", str(self._result), *flags]
        variable = f"AIRFLOW_CONN_{self.connection_id.upper()}"
        # The first compiler alone, one garbage collector thread: most of these processes live for seconds.
        quick = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"}
        environment = {**os.environ, **environment_of(self.settings), **quick}
        environment[variable] = json.dumps(self.connection)
        with self.log.open("a") as log:
            return subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def to_tip(self, *flags: str) -> dict[str, Any]:
        """Run until everything is landed; returns the result."""
        status, result = self.finish(self.start(*flags))
        assert status == 0, f"status {status}\n{self.log.read_text()[-6000:]}"
        return result

    def refusal(self, *flags: str) -> dict[str, Any]:
        """Run expecting a refusal; returns the error's document."""
        status, result = self.finish(self.start(*flags))
        assert status == EXIT_PERMANENT, f"status {status}\n{self.log.read_text()[-6000:]}"
        error: dict[str, Any] = result["error"]
        return error

    def finish(self, process: subprocess.Popen[bytes]) -> tuple[int, dict[str, Any]]:
        """Wait for a run to end by itself; its exit status and result."""
        try:
            status = process.wait(TIP_SECONDS)
        finally:
            kill(process)
        return status, json.loads(self._result.read_text()) if self._result.exists() else {}

    @property
    def _result(self) -> Path:
        return self.settings.scratch_dir / f"{self.stream}.json"


def kill(process: subprocess.Popen[bytes]) -> bool:
    """SIGKILL to the run's whole process group; returns whether it was still running."""
    running = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running
