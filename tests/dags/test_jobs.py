"""The job operator, with real processes."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import psutil
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airloop_airflow.jobs import JobOperator

JOB = """
import argparse, json, os, subprocess, sys, time
parser = argparse.ArgumentParser()
for flag in ("--use-case", "--result", "--mode", "--document"):
    parser.add_argument(flag)
flags = parser.parse_args()
if flags.mode == "hang":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(os.environ["PIDS"], "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    time.sleep(600)
outcomes = {
    "well": ({"version": 3, "document": flags.document, "mode": flags.mode}, 0),
    "permanent": ({"error": {"type": "SourceError", "expected": "a file", "found": "none", "next_step": "bring it"}}, 65),
    "temporary": (None, 1),
    "silent": (None, 0),
}
document, status = outcomes[flags.mode or "well"]
if document is not None:
    with open(flags.result, "w") as file:
        json.dump(document, file)
sys.exit(status)
"""  # noqa: E501 - a job in one file


@pytest.fixture
def operator(tmp_path, monkeypatch):
    (tmp_path / "small_job.py").write_text(JOB)
    (tmp_path / "state" / "scratch" / "results").mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    return lambda **flags: JobOperator(task_id="small", module="small_job", use_case="any", flags=flags)


CONTEXT = {"ti": SimpleNamespace(dag_id="d", run_id="manual__2026-01-01T00:00:00+00:00", task_id="small")}


def test_a_job_returns_its_reference_and_gets_mappings_as_json(operator):
    result = operator(document={"rows": 1, "name": "o'hare"}, mode="").execute(CONTEXT)
    assert result["version"] == 3
    assert result["mode"] is None, "an empty flag must be left out"
    assert json.loads(result["document"]) == {"rows": 1, "name": "o'hare"}


def test_a_permanent_failure_is_not_retried_and_says_what_to_do(operator):
    with pytest.raises(AirflowFailException, match=r"expected a file; found none\. Next: bring it"):
        operator(mode="permanent").execute(CONTEXT)


def test_refused_flags_are_not_retried(operator):
    with pytest.raises(AirflowFailException, match="refused its flags"):
        operator(unknown="1").execute(CONTEXT)


def test_any_other_failure_may_be_retried(operator):
    with pytest.raises(AirflowException, match="exit status 1") as caught:
        operator(mode="temporary").execute(CONTEXT)
    assert not isinstance(caught.value, AirflowFailException)


def test_a_job_without_a_result_fails_even_after_one_that_had_one(operator):
    operator(mode="well").execute(CONTEXT)
    with pytest.raises(AirflowException, match="wrote no result"):
        operator(mode="silent").execute(CONTEXT)


def test_stopping_the_task_stops_the_job_and_its_children(operator, tmp_path):
    task = operator(mode="hang")
    ended = []

    def work() -> None:
        with pytest.raises(AirflowException):
            task.execute(CONTEXT)
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(psutil.pid_exists(pid) for pid in pids)
    task.on_kill()
    thread.join(timeout=30)
    assert ended
    for pid in pids:
        for _ in range(100):
            if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                break
            time.sleep(0.1)
        else:
            os.kill(pid, signal.SIGKILL)
            pytest.fail(f"process {pid} outlived its task")
