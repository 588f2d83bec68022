"""How busy the machine's accelerators are, by asking the vendor's own program.

Belongs here: asking, and understanding the answer. Does not belong here: adding it up (`meter`).

A TPU has no such program on its hosts: what it does is not known.
"""

from __future__ import annotations

import csv
import logging
import shutil
import subprocess
from typing import Final, NamedTuple

log = logging.getLogger(__name__)

PROGRAM: Final = "nvidia-smi"
QUESTION: Final = ("--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits")
TIMEOUT_SECONDS: Final = 5
MIB_A_GIB: Final = 1024


class Busy(NamedTuple):
    """The accelerators of this machine, all together."""

    there: int
    at_work: float
    """How many of them are at work: half of two at work is 1."""
    memory_gib: float


NONE: Final = Busy(0, 0.0, 0.0)


def accelerators_now() -> Busy:
    """How the accelerators are now; none where the program is missing or does not answer as it should."""
    if shutil.which(PROGRAM) is None:
        return NONE
    try:
        done = subprocess.run(  # noqa: S603 - a fixed question, no shell
            [PROGRAM, *QUESTION], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True
        )
        rows = [(float(use), float(memory)) for use, memory in csv.reader(done.stdout.splitlines())]
    except (OSError, subprocess.SubprocessError, ValueError):
        log.warning("the accelerators could not be asked", exc_info=True)
        return NONE
    return Busy(len(rows), sum(use for use, _ in rows) / 100, sum(memory for _, memory in rows) / MIB_A_GIB)
