"""The whole loop through a real Airflow scheduler, on a few weeks of 2013: from the source to the gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

from airloop.cost.attempts import written_attempts
from airloop.cost.usage_table import used_in
from airloop.delivery import smoke
from airloop.intervals import ONE_DAY, Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.settings import REPOSITORY, Settings, environment_of
from airloop.stack import supervision
from airloop.stack.airflow_api import AirflowApi
from airloop.stack.programs import LOGIN, password
from tests.free_ports import free_ports
from tests.observability.collector import Collector, Received, collecting
from tests.planted_secrets import search

AS_OF = datetime(2013, 11, 11, tzinfo=UTC)
"""Five weeks that are alike: after two weeks of another kind the gate would rightly reject the candidate."""
WINDOWS = ("--train-days", "21", "--validation-days", "5", "--test-days", "7")
LABEL = "arrived_late"
OVERVIEW_WITHIN_SECONDS = 300
"""After `make run` it takes two jobs."""
PROBABILITY_TOLERANCE = 1e-5
"""The model computes in float32; batches of another size sum in another order."""

SECRETS = {
    "Slack's token": "xoxb-planted-slack-token-of-the-tests",
    "a connection's password": "planted-password-of-a-connection",
    "a connection's extra": "planted-private-key-of-a-connection",
    "a sensitive variable": "planted-token-in-a-variable",
    "the pseudonym key": "planted-pseudonym-key-long-enough-to-hash-with",
    "AWS's secret key": "planted-aws-secret-access-key",
    "PostgreSQL's password": "planted-password-of-postgresql",
    "the collector's header": "planted-token-of-the-collector",
}
"""What is planted where a deployment has secrets; nothing may write it down."""
ENVIRONMENT = {
    "AWS_SECRET_ACCESS_KEY": SECRETS["AWS's secret key"],
    "PGPASSWORD": SECRETS["PostgreSQL's password"],
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=" + SECRETS["the collector's header"],
}
CONNECTIONS = (
    {
        "connection_id": "slack_oncall",
        "conn_type": "slack",
        "password": SECRETS["Slack's token"],
        # Nobody listens: what a hook says of its failure is searched too.
        "extra": json.dumps({"channel": "#oncall", "base_url": "http://127.0.0.1:9/"}),
    },
    {
        "connection_id": "a_source",
        "conn_type": "http",
        "host": "127.0.0.1",
        "login": "airloop",
        "password": SECRETS["a connection's password"],
        "extra": json.dumps({"private_key": SECRETS["a connection's extra"]}),
    },
    {
        "connection_id": "airloop_pseudonym_key",
        "conn_type": "generic",
        "password": SECRETS["the pseudonym key"],
    },
)

# Twenty minutes on two cores that other tests use too; more where a whole hour's jobs begin in between.
pytestmark = pytest.mark.timeout(2700)


class Loop(NamedTuple):
    """A finished `run`, and its stack, which is still up."""

    settings: Settings
    output: str
    summary: dict[str, Any]
    collector: Collector
    """Where the stack sent its spans."""


def _stack(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "airloop.stack", *arguments],
        env={**os.environ, **ENVIRONMENT, **environment_of(settings)},
        cwd=settings.repository,
        capture_output=True,
        text=True,
        check=False,
    )


def _plant(settings: Settings) -> None:
    """Bring the stack up, and give Airflow its secrets before anything runs."""
    done = _stack(settings, "up")
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    api = f"{settings.airflow_url}/api/v2"
    who = {"username": LOGIN, "password": password(settings)}
    token = httpx.post(f"{settings.airflow_url}/auth/token", json=who, timeout=60).raise_for_status().json()
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    for connection in CONNECTIONS:
        httpx.post(f"{api}/connections", json=connection, headers=headers, timeout=60).raise_for_status()
    variable = {"key": "source_token", "value": SECRETS["a sensitive variable"]}
    httpx.post(f"{api}/variables", json=variable, headers=headers, timeout=60).raise_for_status()


def _command(settings: Settings, module: str, *arguments: str, status: int | None = 0) -> dict[str, Any]:
    """The document that a command of ours printed, whose exit status is `status` unless that is None."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, **environment_of(settings)},
        cwd=settings.repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert status in (None, done.returncode), f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _run(settings: Settings) -> tuple[str, dict[str, Any]]:
    done = _stack(settings, "run", "--as-of", f"{AS_OF:%Y-%m-%d}", *WINDOWS)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    state: Path = tmp_path_factory.mktemp("e2e")
    (state / "jars").symlink_to(REPOSITORY / ".airloop" / "jars")
    with collecting() as collector:
        settings = Settings(
            state_dir=state,
            # Other tests run on the same processors; jobs that gave way to them would take hours.
            job_niceness=0,
            otlp_endpoint=collector.endpoint,
            log_format="json",
            **free_ports(),
        )
        try:
            _plant(settings)
            output, summary = _run(settings)
            yield Loop(settings, output, summary, collector)
        finally:
            supervision.stop(settings)


def test_the_summary_has_every_figure_and_shows_where_to_look(loop):
    for name in ("total_seconds", "stages", "model_version", "prediction", "peak_memory_gib", "addresses"):
        assert loop.summary[name], name
    ran = {(stage["dag_id"], stage["task_id"]) for stage in loop.summary["stages"]}
    assert {("flight_delay_features", "audit"), ("flight_delay_training", "train")} <= ran
    assert ("flight_delay_rollout", "promote") in ran
    assert ("flight_delay_rollout", "abandon") not in ran
    measured = loop.summary["figures"]["roc_auc"]
    assert measured["test"] > measured["baseline"] > 0.5
    measured = loop.summary["figures"]["log_loss"]
    assert measured["test"] < measured["baseline"]
    assert loop.summary["peak_memory_gib"] < 8
    assert loop.summary["curl"] in loop.output
    assert password(loop.settings) in loop.output


def test_the_gateway_answers_as_the_offline_path_predicts(loop):
    script = str(Path(__file__).with_name("offline.py"))
    done = subprocess.run(
        [sys.executable, script, AS_OF.isoformat(), str(loop.summary["model_version"])],
        env={**os.environ, **environment_of(loop.settings), "CUDA_VISIBLE_DEVICES": ""},
        cwd=loop.settings.repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    offline = json.loads(done.stdout.splitlines()[-1])
    assert len(offline["answers"]) >= 10
    assert offline["known_share"] > 0.8, "the comparison must be of real features, not of missing ones"
    url = f"{loop.settings.gateway_url}/v1/flight_delay/predict"
    for request, probability in offline["answers"]:
        answer = httpx.post(url, content=request, headers={"content-type": "application/json"}, timeout=30)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"]["version"] == loop.summary["model_version"]
        assert answer.json()["prediction"][LABEL] == pytest.approx(probability, abs=PROBABILITY_TOLERANCE), (
            request
        )
    spread = {round(probability, 3) for _, probability in offline["answers"]}
    assert len(spread) > 5, "a constant model would pass the comparison"


def test_the_rollout_was_started_by_the_candidate_asset(loop):
    with AirflowApi(loop.settings.airflow_url, LOGIN, password(loop.settings)) as api:
        (rollout,) = api.newest_runs("flight_delay_rollout")
        (training,) = api.newest_runs("flight_delay_training")
        assert rollout.state == training.state == "success"
        assert api.source_runs("flight_delay_rollout", rollout.run_id) == {training.run_id}


def test_the_smoke_test_of_a_deployment_passes(loop, tmp_path):
    file = tmp_path / "password"
    file.write_text(password(loop.settings))
    flags = [
        *("--use-case", "flight_delay", "--gateway-url", loop.settings.gateway_url),
        *("--airflow-url", loop.settings.airflow_url, "--airflow-password-file", str(file)),
        *("--model-version", str(loop.summary["model_version"]), "--within-seconds", "60"),
    ]
    assert smoke.main(flags) == 0


def test_the_page_has_what_serves_and_what_the_run_used(loop):
    airflow = loop.settings.airflow_url
    who = {"username": LOGIN, "password": password(loop.settings)}
    signed_in = httpx.post(f"{airflow}/auth/token", json=who, timeout=30).raise_for_status().json()
    end = time.monotonic() + OVERVIEW_WITHIN_SECONDS
    while True:
        page = httpx.get(
            f"{airflow}/airloop/use-cases/flight_delay",
            headers={"Authorization": f"Bearer {signed_in['access_token']}"},
            timeout=30,
        )
        answer = page.raise_for_status().json()
        # Features are published before there is a champion, and have it written a first time.
        if answer["overview"] and [one["outcome"] for one in answer["overview"]["candidates"]] == ["won"]:
            break
        assert time.monotonic() < end, answer
        time.sleep(2)
    assert [period["version"] for period in answer["live"]["periods"]] == [loop.summary["model_version"]]
    assert answer["may"]["train"]
    assert {"clean.flights", "features.origin_weather"} <= {
        one["table"] for one in answer["overview"]["tables"]
    }
    assert [audit["passed"] for audit in answer["overview"]["audits"]] == [True]
    used = {attempt.module: attempt for _, attempt in written_attempts(loop.settings) if attempt}
    # The hourly run may have been meanwhile.
    today = Interval(datetime.now(UTC) - ONE_DAY, datetime.now(UTC))
    used |= {one.attempt.module: one.attempt for one in used_in(open_catalog(loop.settings), today)}
    assert used["airloop.training.train"].cpu_seconds > 1
    assert used["spark_jobs.features"].peak_memory_gib > 0.3


def _job_of(loop: Loop, dag_id: str, task_id: str) -> tuple[Received, Received]:
    """The span of the last job of a task, and Airflow's span of the worker that ran it."""
    of_task = {"airflow.dag_id": dag_id, "airflow.task_id": task_id}

    def found(service: str) -> list[Received]:
        return [
            span
            for span in loop.collector.spans
            if span.service == service and of_task.items() <= span.attributes.items()
        ]

    job = found("job")[-1]
    (worker,) = (span for span in found("airflow") if span.span_id == job.parent_id)
    return job, worker


def test_a_trace_leads_from_a_run_to_its_jobs_and_links_to_the_run_before(loop):
    by_id = {span.span_id: span for span in loop.collector.spans}
    jobs = {}
    for dag_id, task_id in (
        ("flight_delay_features", "materialise"),
        ("flight_delay_training", "register"),
        ("flight_delay_rollout", "infra_check"),
    ):
        job, worker = _job_of(loop, dag_id, task_id)
        task = by_id[worker.parent_id]
        run = by_id[task.parent_id]
        assert worker.name == f"worker.{task_id}"
        assert task.name == f"task_run.{task_id}"
        assert run.name == f"dag_run.{dag_id}"
        assert run.parent_id == ""
        assert {span.trace_id for span in (job, worker, task, run)} == {run.trace_id}
        assert {span.attributes.get("airloop.use_case") for span in (job, worker)} == {"flight_delay"}
        jobs[dag_id] = worker
    features, training, rollout = jobs.values()
    assert features.attributes["airloop.interval_end"].startswith(f"{AS_OF:%Y-%m-%d}")
    assert rollout.links == [training.span_id], "the Asset's event leads on"
    (source,) = rollout.attributes["airloop.started_by"]
    assert source.startswith("flight_delay_training/")


def test_every_log_line_of_ours_is_json_with_its_ids(loop):
    logs = loop.settings.state_dir / "logs"
    runs = {span.trace_id: span.attributes for span in loop.collector.spans if span.service == "job"}
    lines = [
        json.loads(line)
        for file in loop.settings.job_logs_dir.glob("*.jsonl")
        for line in file.read_text("utf-8").splitlines()
    ]
    # The platform's own hourly jobs are of no use case, and one of them may be under way.
    of_spec = [
        line for line in lines if line["airloop"].get("use_case") and line.get("trace", {}).get("id") in runs
    ]
    assert len(of_spec) > 20
    for line in of_spec:
        assert line["airflow"]["run_id"] == runs[line["trace"]["id"]]["airflow.run_id"]
        assert line["airloop"]["use_case"] == "flight_delay"
    for name in ("gateway", "airflow-scheduler"):
        written = [line for line in (logs / f"{name}.log").read_text("utf-8").splitlines() if line]
        other = [line for line in written if not line.startswith("{")]
        assert len(other) < 0.1 * len(written), (name, other[:20])


def test_the_doctor_finds_everything_well(loop):
    end = time.monotonic() + 120
    while True:
        found = _command(loop.settings, "airloop.doctor", "--json", "--timeout", "60", status=None)
        # Beside other tests the scheduler may miss the half minute that Airflow gives it for a sign of life.
        if not found["failed"]:
            break
        assert time.monotonic() < end, found
        time.sleep(5)
    asked = {check["name"]: check["outcome"] for check in found["checks"]}
    for name in ("catalog", "mlflow", "model server", "gateway", "airflow", "signing keys", "clock"):
        assert asked[name] == "ok", found


def test_the_running_loop_is_backed_up_whole(loop, tmp_path):
    made = _command(loop.settings, "airloop.backup", "create", "--to", str(tmp_path))
    assert made["tables_copied"] == made["tables"] > 10
    assert [remark for remark in made["remarks"] if "no artifacts" in remark] == []
    verified = _command(loop.settings, "airloop.backup", "verify", "--from", str(tmp_path))
    assert verified["parts"] == made["parts"]


def test_running_again_is_quick_and_changes_nothing(loop):
    started = time.monotonic()
    _, again = _run(loop.settings)
    assert time.monotonic() - started < 60
    assert again["reused"] is True
    same = ("model_version", "figures", "total_seconds", "stages", "prediction")
    assert {name: again[name] for name in same[:-1]} == {name: loop.summary[name] for name in same[:-1]}
    assert again["prediction"]["prediction"] == loop.summary["prediction"]["prediction"]


def test_status_finds_everything_well_and_down_leaves_nothing(loop):
    assert _stack(loop.settings, "status").returncode == 0
    everything = supervision.descendants(loop.settings)
    assert len(everything) > 7
    assert _stack(loop.settings, "down").returncode == 0
    psutil.wait_procs(everything, timeout=5)
    assert not [process for process in everything if process.is_running()]
    status = _stack(loop.settings, "status")
    assert status.returncode == 1
    assert "DOWN" in status.stdout


def test_no_secret_is_in_anything_that_was_written(loop):
    """Logs, databases, tables, reports, caches: every file of the deployment, once it is down."""
    airflow, key = "airflow/secrets.json", "signing/signing_key.pem"
    made = json.loads((loop.settings.state_dir / airflow).read_text("utf-8"))
    planted = {
        **SECRETS,
        "the login's password": password(loop.settings),
        # Of a PEM's lines the longest, which no other text has.
        "the signing key": max((loop.settings.state_dir / key).read_text("utf-8").splitlines(), key=len),
        **made,
    }
    allowed = {
        **{name: [airflow] for name in made},
        "the login's password": ["airflow/passwords.json"],
        "the signing key": [key],
    }
    searched = search(loop.settings.state_dir, planted, allowed)
    print(searched.line)
    assert searched.found == ()
    assert searched.files > 100
    # The login is what `make run` is asked for; nothing else is shown.
    shown = {name for name, secret in planted.items() if secret in loop.output}
    assert shown == {"the login's password"}
