"""The first task of each run: an outage is one failure with what to do, and one alert for all DAGs."""

from __future__ import annotations

import pickle
import socket
import time
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airloop_airflow.alerts import alert_on_failure
from airloop_airflow.dependencies import DependencyDown, check, needs_of


@pytest.fixture
def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_what_is_there_costs_no_time(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(tmp_path))
    begun = time.monotonic()
    check(["catalog", "warehouse", "online_store"])
    assert time.monotonic() - begun < 1


def test_what_is_down_is_named_with_what_to_do_and_tried_again(tmp_path, monkeypatch, closed_port):
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("AIRLOOP_MLFLOW_URI", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("AIRLOOP_REDIS_CONNECTION", f"127.0.0.1:{closed_port},password=hush")
    with pytest.raises(DependencyDown) as caught:
        check(["catalog", "mlflow", "online_store"])
    assert isinstance(caught.value, AirflowException)
    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.names == ["mlflow", "online_store"]
    for part in ("mlflow does not answer", "make up", "online_store does not answer", "start Redis"):
        assert part in str(caught.value)
    assert "hush" not in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.names, str(again)) == (caught.value.names, str(caught.value))


def test_an_outage_is_one_alert_however_many_dags_find_it(slack_api, later, variables, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(tmp_path))
    failure = DependencyDown([])
    failure.names = ["mlflow"]
    for dag_id in ("flight_delay_training", "flight_delay_scoring", "maintenance"):
        alert_on_failure(
            {
                "ti": SimpleNamespace(dag_id=dag_id, run_id="r", task_id="check_dependencies"),
                "dag": SimpleNamespace(dag_id=dag_id, owner="ml-platform"),
                "task": SimpleNamespace(owner="ml-platform"),
                "exception": failure,
            }
        )
        later(seconds=5)
    ((method, message),) = slack_api.received
    assert method == "chat.postMessage"
    assert "mlflow: no answer" in message["text"]
    assert "docs/runbooks/dependency_down.md" in message["text"]


def test_a_job_needs_what_the_longest_part_of_its_name_says():
    assert "online_store" in needs_of("spark_jobs.push")
    assert "online_store" not in needs_of("spark_jobs.clean")
    assert needs_of("serving.roll_back") == ("mlflow",)
    assert needs_of("unknown.module") == ()
