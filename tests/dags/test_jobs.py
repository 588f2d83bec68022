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
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from airloop.connections import find_connection
from airloop.cost.attempts import written_attempts
from airloop.settings import Settings
from airloop_airflow.jobs import JobOperator
from airloop_airflow.run_times import _changed_days

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
    "environment": ({name: value for name, value in os.environ.items() if name.startswith("AIRFLOW_C")}, 0),
    "nothing": ({"skipped": "no champion yet", "version": None}, 0),
    "interval": ({"start": "2026-01-01T00:00:00+00:00", "end": "2026-01-02T00:00:00+00:00"}, 0),
    "list": ({"listed": [0, 1, 2], "name": "s", "none": None}, 0),
    "permanent": ({"error": {"type": "SourceError", "expected": "a file", "found": "none", "next_step": "bring it"}}, 65),
    "temporary": (None, 1),
    "full": ({"failure": "OSError: [Errno 28] No space left on device"}, 1),
    "killed": (None, -9),
    "silent": (None, 0),
}
document, status = outcomes[flags.mode or "well"]
if document is not None:
    with open(flags.result, "w") as file:
        json.dump(document, file)
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""  # noqa: E501 - a job in one file


@pytest.fixture
def operator(tmp_path, monkeypatch):
    (tmp_path / "small_job.py").write_text(JOB)
    (tmp_path / "state" / "scratch" / "results").mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))

    def make(connections=(), skip_without_connections=False, options=None, **flags):
        return JobOperator(
            task_id="small",
            module="small_job",
            use_case="any",
            flags=flags,
            connections=connections,
            skip_without_connections=skip_without_connections,
            **(options or {}),
        )

    return make


RUN_ID = "manual__2026-01-01T00:00:00+00:00"
INSTANCE = {"dag_id": "d", "run_id": RUN_ID, "task_id": "small", "map_index": -1}
CONTEXT = {"ti": SimpleNamespace(**INSTANCE, try_number=1, max_tries=2)}


def test_a_job_returns_its_reference_and_gets_mappings_as_json(operator):
    result = operator(document={"rows": 1, "name": "o'hare"}, mode="").execute(CONTEXT)
    assert result["version"] == 3
    assert result["mode"] is None, "an empty flag must be left out"
    assert json.loads(result["document"]) == {"rows": 1, "name": "o'hare"}


def test_what_a_job_used_is_written_down_even_when_it_fails(operator, tmp_path):
    settings = Settings(state_dir=tmp_path / "state")
    operator(mode="well").execute(CONTEXT)
    with pytest.raises(AirflowException):
        operator(mode="temporary").execute(CONTEXT)
    attempts = [attempt for _, attempt in written_attempts(settings)]
    assert len(attempts) == 2
    for attempt in attempts:
        assert (attempt.use_case, attempt.module, attempt.task_id) == ("any", "small_job", "small")
        assert (attempt.dag_id, attempt.run_id, attempt.try_number) == ("d", RUN_ID, 1)
        assert attempt.ended
        assert attempt.wall_seconds > 0


def test_a_job_that_finds_nothing_to_do_skips_its_task_and_says_why(operator):
    with pytest.raises(AirflowSkipException, match="no champion yet"):
        operator(mode="nothing").execute(CONTEXT)


def test_whom_an_event_starts_it_tells_which_interval_it_is_about(operator):
    asset = Asset(name="published", uri="airloop://any/published")
    events = {asset: SimpleNamespace(extra={"traceparent": "kept"})}
    operator(options={"outlets": [asset]}, mode="interval").execute({**CONTEXT, "outlet_events": events})
    extra = {"start": "2026-01-01T00:00:00+00:00", "end": "2026-01-02T00:00:00+00:00"}
    assert events[asset].extra == {"traceparent": "kept", **extra}
    said = _changed_days({asset: [events[asset]]})
    assert [(day.start.isoformat(), day.end.isoformat()) for day in said] == [tuple(extra.values())]


def test_a_list_in_the_result_is_returned_for_mapping_and_the_rest_is_pushed(operator):
    pushed = {}
    instance = SimpleNamespace(
        **vars(CONTEXT["ti"]), xcom_push=lambda key, value: pushed.update({key: value})
    )
    task = operator(document={"rows": 1}, options={"each": "listed"}, mode="list")
    assert task.execute({"ti": instance}) == [0, 1, 2]
    # Airflow keeps no None.
    assert pushed == {"listed": [0, 1, 2], "name": "s", "none": ""}


def test_a_mapped_job_gets_its_value_even_zero_and_lists_as_json(operator):
    options = {"mapped_flag": "document", "mapped_value": 0}
    results = []
    for index in (0, 1):
        instance = SimpleNamespace(**(vars(CONTEXT["ti"]) | {"map_index": index}))
        results.append(operator(options=options, mode="well").execute({"ti": instance}))
    assert [result["document"] for result in results] == ["0", "0"]
    lists = operator(document=({"fold": 0}, {"fold": 1}), mode="well").execute(CONTEXT)
    assert json.loads(lists["document"]) == [{"fold": 0}, {"fold": 1}]


def test_a_mapped_job_knows_its_place_among_the_instances(operator):
    options = {"mapped_flag": "document", "mapped_value": 0}
    instance = SimpleNamespace(**{**vars(CONTEXT["ti"]), "map_index": 3})
    found = operator(options=options, mode="environment").execute({"ti": instance})
    assert found["AIRFLOW_CTX_MAP_INDEX"] == "3"
    assert "AIRFLOW_CTX_MAP_INDEX" not in operator(mode="environment").execute(CONTEXT)


def test_a_job_gets_its_connections_and_knows_its_run(operator, monkeypatch, caplog):
    monkeypatch.setenv(
        "AIRFLOW_CONN_DEPARTURES", "postgres://reader:o%27hare@db:5433/airport?sslmode=require"
    )
    found = operator(connections=("departures",), mode="environment").execute(CONTEXT)
    monkeypatch.setenv("AIRFLOW_CONN_DEPARTURES", found["AIRFLOW_CONN_DEPARTURES"])
    connection = find_connection("departures")
    assert (connection.host, connection.port, connection.schema_) == ("db", 5433, "airport")
    assert connection.secret == "o'hare"
    assert connection.extra == {"sslmode": "require"}
    assert "hare" not in f"{connection!r} {connection} {caplog.text}"
    assert found["AIRFLOW_CTX_DAG_RUN_ID"] == RUN_ID


def test_a_missing_connection_fails_the_task_or_switches_it_off(operator):
    with pytest.raises(AirflowFailException, match="expected the connection nowhere; found none"):
        operator(connections=("nowhere",)).execute(CONTEXT)
    with pytest.raises(AirflowSkipException, match="no connection nowhere"):
        operator(connections=("nowhere",), skip_without_connections=True).execute(CONTEXT)


def test_a_permanent_failure_is_not_retried_and_says_what_to_do(operator):
    with pytest.raises(AirflowFailException, match=r"expected a file; found none\. Next: bring it") as caught:
        operator(mode="permanent").execute(CONTEXT)
    assert caught.value.type == "SourceError"


def test_refused_flags_are_not_retried(operator):
    with pytest.raises(AirflowFailException, match="refused its flags"):
        operator(unknown="1").execute(CONTEXT)


def test_any_other_failure_may_be_retried(operator):
    with pytest.raises(AirflowException, match="exit status 1") as caught:
        operator(mode="temporary").execute(CONTEXT)
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize(
    ("mode", "reason", "next_step"),
    [
        ("full", "OSError: [Errno 28] No space left on device", "make room on the disk"),
        ("killed", "ended by SIGKILL, as the system does where memory runs out", "see the worker's memory"),
        ("temporary", "exit status 1", "ask the doctor"),
    ],
)
def test_an_outage_says_its_reason_and_what_to_do(operator, mode, reason, next_step):
    with pytest.raises(AirflowException) as caught:
        operator(mode=mode).execute(CONTEXT)
    said = str(caught.value)
    assert f"{reason}. Next: {next_step}" in said
    assert "tried again by itself" in said
    last = {"ti": SimpleNamespace(**INSTANCE, try_number=3, max_tries=2)}
    with pytest.raises(AirflowException, match="No try is left: clear the task"):
        operator(mode=mode).execute(last)


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
