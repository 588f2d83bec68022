"""Real jobs through Airflow with its OpenLineage listener and Spark's: to a file and to an HTTP endpoint."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import pytest
from pyiceberg.table import Table

from airloop.lakehouse.catalog import load_table, open_catalog
from airloop.settings import REPOSITORY, Settings
from airloop.stack.programs import airflow_command, environment
from tests.lineage.run_dags import SUBJECT

Event = dict[str, Any]
FEEDS = ("flights", "movements", "weather", "planes")
JOB_WITHOUT_DATA = "import sys; open(sys.argv[sys.argv.index('--result') + 1], 'w').write('{}')"


class Endpoint(NamedTuple):
    """A server that takes events as Marquez does."""

    url: str
    received: list[Event]


@contextmanager
def listening() -> Iterator[Endpoint]:
    received: list[Event] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            known = self.path == "/api/v1/lineage"
            if known:
                received.append(json.loads(body))
            self.send_response(201 if known else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield Endpoint(f"http://127.0.0.1:{server.server_port}", received)
    server.shutdown()
    server.server_close()


class Deployment:
    """A state folder with an Airflow database, in which DAGs are run."""

    def __init__(self, state: Path) -> None:
        self.state = state
        for folder in ("home", "tmp", "modules"):
            (state / folder).mkdir(parents=True)
        (state / "jars").symlink_to(REPOSITORY / ".airloop" / "jars")
        (state / "modules" / "job_without_data.py").write_text(JOB_WITHOUT_DATA)
        self._run([airflow_command(), "db", "migrate"], Settings(state_dir=state))

    def test(self, *dag_ids: str, url: str | None) -> str:
        """Run the DAGs; returns what was printed."""
        settings = Settings(state_dir=self.state, openlineage_url=url)
        return self._run([sys.executable, "-m", "tests.lineage.run_dags", *dag_ids], settings)

    def _run(self, command: list[str], settings: Settings) -> str:
        done = subprocess.run(
            command,
            env={
                **environment(settings),
                "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).with_name("dags")),
                "PYTHONPATH": f"{self.state / 'modules'}:{REPOSITORY}:{REPOSITORY / 'plugins'}",
            },
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-5000:]
        return done.stdout

    def events(self) -> list[Event]:
        lines = Settings(state_dir=self.state).lineage_events.read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def spark_events(self) -> list[Event]:
        files = sorted((self.state / "lineage" / "spark").iterdir())
        return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]

    def table(self, name: str) -> Table:
        return load_table(open_catalog(Settings(state_dir=self.state)), name)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return Deployment(tmp_path_factory.mktemp("lineage") / "state")


@pytest.fixture(scope="module")
def posted(deployment: Deployment) -> list[Event]:
    """A day ingested, a job that fails for good, and an erasure; what the endpoint received."""
    with listening() as endpoint:
        printed = deployment.test("flight_delay_features", "erasure", url=endpoint.url)
        assert "flight_delay_features: failed" in printed, "its clean cannot succeed"
        assert "erasure: success" in printed
        return endpoint.received


def _one(events: list[Event], job: str, kind: str) -> Event:
    (found,) = [event for event in events if event["job"]["name"] == job and event["eventType"] == kind]
    return found


def _keys(events: list[Event]) -> list[tuple[str, str, str]]:
    return sorted((item["job"]["name"], item["run"]["runId"], item["eventType"]) for item in events)


def test_an_ingestion_tells_what_it_reads_at_its_start(deployment: Deployment, posted: list[Event]) -> None:
    start = _one(deployment.events(), "flight_delay_features.ingest", "START")
    assert start["job"]["namespace"] == "airloop"
    assert start["run"]["facets"]["parent"]["job"]["name"] == "flight_delay_features"
    read = [(item["namespace"], item["name"]) for item in start["inputs"]]
    assert read == [("airloop-source:nycflights", feed) for feed in FEEDS]
    assert start["outputs"] == []


def test_an_ingestion_tells_the_snapshots_and_rows_that_it_wrote(
    deployment: Deployment, posted: list[Event]
) -> None:
    complete = _one(deployment.events(), "flight_delay_features.ingest", "COMPLETE")
    assert complete["inputs"] == _one(deployment.events(), "flight_delay_features.ingest", "START")["inputs"]
    written = {item["name"]: item for item in complete["outputs"]}
    for feed in FEEDS:
        table = deployment.table(f"raw.{feed}")
        said = written[str(deployment.state / "warehouse" / "raw" / feed)]
        head = table.current_snapshot()
        assert head is not None
        assert said["facets"]["version"]["datasetVersion"] == str(head.snapshot_id)
        assert said["facets"]["symlinks"]["identifiers"][0]["name"] == f"raw.{feed}"
        assert said["outputFacets"]["outputStatistics"]["rowCount"] == table.scan().to_arrow().num_rows


def test_a_failed_job_tells_what_it_was_to_read(deployment: Deployment, posted: list[Event]) -> None:
    failed = _one(deployment.events(), "flight_delay_features.clean", "FAIL")
    ingested = _one(deployment.events(), "flight_delay_features.ingest", "COMPLETE")
    assert {(item["namespace"], item["name"]) for item in failed["inputs"]} == {
        (item["namespace"], item["name"]) for item in ingested["outputs"]
    }
    assert failed["outputs"] == []
    assert "whole UTC days" in failed["run"]["facets"]["errorMessage"]["message"]


def test_the_endpoint_gets_what_the_file_gets(deployment: Deployment, posted: list[Event]) -> None:
    tasks = {event["run"]["runId"] for event in deployment.events()}
    assert _keys([event for event in posted if event["run"]["runId"] in tasks]) == _keys(deployment.events())
    # On a busy machine an event of Spark's may take longer than the second that it has.
    of_spark = [event for event in posted if event["run"]["runId"] not in tasks]
    assert of_spark
    assert set(_keys(of_spark)) <= set(_keys(deployment.spark_events()))


def test_an_erasures_subject_gets_into_no_event(deployment: Deployment, posted: list[Event]) -> None:
    for event in (*posted, *deployment.events(), *deployment.spark_events()):
        assert not event["job"]["name"].startswith("erasure")
        assert SUBJECT not in json.dumps(event)


def test_spark_adds_the_columns_below_the_task(deployment: Deployment, posted: list[Event]) -> None:
    task = _one(deployment.events(), "flight_delay_features.ingest", "COMPLETE")
    events = deployment.spark_events()
    above = {event["run"]["facets"]["parent"]["run"]["runId"] for event in events}
    assert task["run"]["runId"] in above
    roots = {event["run"]["facets"]["parent"]["root"]["job"]["name"] for event in events}
    assert roots == {"flight_delay_features"}
    written = {
        item["name"]: item
        for event in events
        if event["eventType"] == "COMPLETE"
        for item in event["outputs"]
        if "outputStatistics" in item["outputFacets"]
    }
    for said in task["outputs"]:
        seen = written[said["name"]]
        assert seen["namespace"] == said["namespace"], "the same dataset to both integrations"
        assert seen["outputFacets"]["outputStatistics"]["rowCount"] == _rows(said)
        assert "_source_key" in seen["facets"]["columnLineage"]["fields"]


def _rows(item: Event) -> int:
    rows: int = item["outputFacets"]["outputStatistics"]["rowCount"]
    return rows


def test_an_endpoint_that_is_down_costs_its_events_and_no_task(deployment: Deployment) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        # Bound and not listening: connections are refused.
        printed = deployment.test("without_data", url=f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert "without_data: success" in printed
    kinds = [item["eventType"] for item in deployment.events() if item["job"]["name"] == "without_data.only"]
    assert kinds == ["START", "COMPLETE"], "the file has them all the same"
