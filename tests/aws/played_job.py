"""Jobs as they run on AWS, played by processes of this machine: the real `airloop.remote_job`, with its calls
written down.

    python -m tests.aws.played_job

For each line that it is sent, with `uri`, `environment`, `calls` and `log`, it answers with the exit status.
Each job is a process of its own, forked from this one: the imports of a second are paid once.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from airloop.remote_job import main
from tests.aws.recorder import LOADER, Recorder


def play(asked: dict[str, Any]) -> int:
    """Run the job in a child; returns its exit status."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ.clear()
            os.environ.update(asked["environment"])
            Recorder(Path(asked["calls"])).listen()
            status = main([asked["uri"]])
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for service in ("s3", "secretsmanager"):
        LOADER.load_service_model(service, "service-2")
        LOADER.load_service_model(service, "endpoint-rule-set-1")
    print("ready", flush=True)
    for line in sys.stdin:
        print(play(json.loads(line)), flush=True)
