"""A job that was started to give way does so, although Airflow makes it a session of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = "print(open('/proc/self/autogroup').read())"


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel has no autogroups")
@pytest.mark.parametrize(
    ("prefix", "own_session", "expected"),
    [(("nice", "-n", "7"), True, "nice 7"), ((), True, "nice 0"), (("nice", "-n", "7"), False, None)],
)
def test_niceness_counts_against_other_sessions(
    prefix: tuple[str, ...], own_session: bool, expected: str | None
) -> None:
    before = Path("/proc/self/autogroup").read_text()
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "airloop.background", sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        start_new_session=own_session,
    )
    # In a session that is not its own, it is not the job's to say how others are treated.
    assert (expected or before.strip()) in done.stdout
    assert Path("/proc/self/autogroup").read_text() == before
