"""What a job's processes use is measured while they run, and never costs the job anything."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airloop.cost.accelerators import NONE, Busy, accelerators_now
from airloop.cost.attempts import Attempt
from airloop.cost.meter import Meter

CHILD_BURNS = """
import subprocess, sys, time
held = bytearray(200 * 1024 * 1024)
burn = "import time\\nend = time.process_time() + 1.0\\nwhile time.process_time() < end: pass"
subprocess.run([sys.executable, "-c", burn])
"""


def _measure(attempt: Attempt, code: str) -> list[Attempt]:
    written: list[Attempt] = []
    process: subprocess.Popen[bytes] | None = None
    with Meter(attempt, lambda: process.pid if process else None, written.append, look_every_seconds=0.02):
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
        process.wait()
    return written


def test_processors_and_memory_of_the_whole_family_are_counted(attempt) -> None:
    began = datetime.now(UTC)
    (last,) = _measure(attempt(started=began, measured=began, ended=False), CHILD_BURNS)
    assert last.ended
    assert last.measured > began
    # The child's second, but for what it used after the last look, and the interpreters' own start.
    assert 0.9 <= last.cpu_seconds < 3
    assert 0.2 < last.peak_memory_gib < 1
    assert 0 < last.memory_gib_seconds <= last.peak_memory_gib * last.wall_seconds
    assert 0 < last.peak_vcpus <= 3
    assert (last.accelerators, last.accelerator_seconds) == (0, 0.0)


def test_what_was_used_so_far_is_written_while_the_job_runs(attempt, monkeypatch) -> None:
    monkeypatch.setattr("airloop.cost.meter.WRITTEN_EVERY_SECONDS", 0.1)
    began = datetime.now(UTC)
    written = _measure(attempt(started=began, measured=began, ended=False), "import time; time.sleep(1)")
    assert len(written) > 2
    assert [one.ended for one in written] == [False] * (len(written) - 1) + [True]
    assert sorted(one.measured for one in written) == [one.measured for one in written]


def test_a_disk_that_is_full_does_not_fail_the_job(attempt, caplog) -> None:
    def full(_: Attempt) -> None:
        raise OSError("no space left on device")

    with Meter(attempt(), lambda: None, full):
        pass
    assert "could not be measured" in caplog.text


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch):
    """A stand-in for the vendor's program: there is no accelerator where tests run."""

    def install(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return install


def test_accelerators_are_asked_how_busy_they_are(vendor) -> None:
    vendor('[ "$1" = --query-gpu=utilization.gpu,memory.used ] && printf "50, 1024\\n100, 3072\\n"')
    assert accelerators_now() == Busy(2, 1.5, 4.0)


@pytest.mark.parametrize("script", ["exit 9", "echo 'N/A, N/A'", "echo"])
def test_a_program_that_does_not_answer_means_no_accelerator(vendor, script) -> None:
    vendor(script)
    assert accelerators_now() == NONE
