"""Kills the stream job at random moments until it was killed often enough.

Belongs here: when to kill. Does not belong here: what the job reads, or what must come of it.

A moment is chosen from outside, by what a run leaves on the disk: right after a batch was planned, a data
file written, a table committed or a checkpoint noted, plus a few random milliseconds, or some random time
after the start. So the windows between two commits are hit, not just the long waits between batches.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Callable

from tests.streams.processes import StreamJob, kill

STAGES = ("start-up", "planned", "data file", "table commit", "checkpoint")
_GLOBS = {
    "planned": "checkpoints/flight_delay/{stream}/offsets/[0-9]*",
    "data file": "warehouse/raw/*/data/**/*.parquet",
    "table commit": "warehouse/raw/*/metadata/*.metadata.json",
    "checkpoint": "checkpoints/flight_delay/{stream}/commits/[0-9]*",
}
PATIENCE_SECONDS = 300
LONGEST_JITTER_SECONDS = 0.15


def kill_at(job: StreamJob, stage: str, random_: random.Random, *flags: str) -> None:
    """Start a continuous run and kill it at a random moment of `stage`."""
    before = _marks(job, stage)
    awaited = random_.randint(1, 3)
    process = job.start("--continuous", "--trigger-seconds", "0.1", *flags)
    try:
        if stage == "start-up":
            time.sleep(random_.uniform(0.5, 9.0))
        else:
            _wait(lambda: len(_marks(job, stage) - before) >= awaited, process, job, stage)
            time.sleep(random_.uniform(0.0, LONGEST_JITTER_SECONDS))
    finally:
        assert kill(process), f"the run ended by itself\n{job.log.read_text()[-4000:]}"


def _wait(reached: Callable[[], bool], process: subprocess.Popen[bytes], job: StreamJob, stage: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert process.poll() is None, f"the run ended by itself\n{job.log.read_text()[-4000:]}"
        assert time.monotonic() < deadline, f"no {stage}\n{job.log.read_text()[-4000:]}"
        time.sleep(0.002)


def _marks(job: StreamJob, stage: str) -> set[tuple[str, int]]:
    """What the stage left on the disk so far; a checkpoint that is made anew uses its names again."""
    marks = set()
    if stage != "start-up":
        for path in job.settings.state_dir.glob(_GLOBS[stage].format(stream=job.stream)):
            with contextlib.suppress(FileNotFoundError):
                marks.add((str(path), path.stat().st_mtime_ns))
    return marks


def stages(kills: int, random_: random.Random, *, checkpoint: bool) -> list[str]:
    """`kills` stages in random order, each as often as any other."""
    known = [stage for stage in STAGES if checkpoint or stage not in ("planned", "checkpoint")]
    chosen = [known[number % len(known)] for number in range(kills)]
    random_.shuffle(chosen)
    return chosen
