"""Two environments, each with an MLflow server of its own, champions to promote; and a played deployment."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from airloop import registry
from airloop.references import TrainingSet
from airloop.settings import Settings
from airloop.signed_models import sign_run
from airloop.signing import PUBLIC_KEY
from airloop.training.tracking import CODE_COMMIT, VERDICT, VERDICT_FILE, TrainingRuns, tags_of_run
from airloop.use_cases.flight_delay import USE_CASE
from airloop.use_cases.spec import UseCase
from airloop.verdict import Measures, Rule, Verdict

COMMIT = "2" * 40
STARTS_WITHIN_SECONDS = 300
HEALTHY = {
    part: {"status": "healthy"} for part in ("metadatabase", "scheduler", "triggerer", "dag_processor")
}
_numbers = itertools.count(1)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """The address of an MLflow server on SQLite, which may not answer yet."""
    folder.mkdir(parents=True)
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (folder / "server.log").open("wb") as log:
        started = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def wait_for(url: str) -> None:
    """Return when the server answers."""
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", timeout=2).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"{url} did not answer within {STARTS_WITHIN_SECONDS} s")


@dataclass(frozen=True)
class Environments:
    """Where a model is, and where it is to go."""

    source: Settings
    target: Settings


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environments]:
    """Staging trains and signs; production has its public key and no private one."""
    folder = tmp_path_factory.mktemp("environments")
    with ExitStack() as running:
        urls = [running.enter_context(mlflow_server(folder / name)) for name in ("staging", "production")]
        for url in urls:
            wait_for(url)
        source = Settings(state_dir=folder / "staging" / "state", mlflow_uri=urls[0])
        yield Environments(
            source,
            Settings(
                state_dir=folder / "production" / "state",
                mlflow_uri=urls[1],
                verification_key=source.signing_dir / PUBLIC_KEY,
            ),
        )


@pytest.fixture
def spec() -> UseCase:
    """The reference use case under a name that no other test uses."""
    return USE_CASE.model_copy(update={"name": f"flight_delay_{next(_numbers)}"})


def verdict_on(spec: UseCase, run_id: str) -> Verdict:
    """An accepting verdict with one rule."""
    measures = Measures(rows=2000, positives=400, roc_auc=0.72, log_loss=0.41)
    rule = Rule(
        name="roc_auc_gain_over_baseline",
        value=0.05,
        threshold=0.01,
        comparison=">=",
        passed=True,
        detail="better than a base rate",
    )
    training_set = TrainingSet(
        table=f"training.{spec.name}",
        tag="as_of_20130603",
        snapshot_id=123456789012345678,
        rows=9000,
        train_rows=5000,
        validation_rows=2000,
        test_rows=2000,
        as_of="2013-06-03T00:00:00+00:00",
        sources=(),
    )
    return Verdict(
        use_case=spec.name,
        run_id=run_id,
        training_set=training_set,
        accepted=True,
        rules=(rule,),
        candidate=measures,
        baseline=measures.model_copy(update={"roc_auc": 0.67, "log_loss": 0.44}),
        champion=None,
    )


def version_tags(training_set: TrainingSet, commit: str) -> dict[str, str]:
    """What registration says of a version's origin."""
    return {
        "verdict": "accepted",
        "as_of": training_set.as_of,
        "training_set": training_set.tag,
        "snapshot_id": str(training_set.snapshot_id),
        CODE_COMMIT: commit,
    }


def make_champion(
    settings: Settings,
    spec: UseCase,
    folder: Path,
    *,
    commit: str = COMMIT,
    **changes: Any,
) -> int:
    """A signed, registered champion with the artifacts that training leaves; `changes` are of its verdict."""
    training_set = verdict_on(spec, "").training_set
    runs = TrainingRuns(settings, spec)
    run_id = runs.start({**tags_of_run(spec, training_set, commit), VERDICT: "accepted"}, {"seed": "7"})
    model = folder / "artifacts" / registry.SAVED_MODEL
    (model / "variables").mkdir(parents=True)
    (model / "saved_model.pb").write_bytes(b"graph" * 1000)
    (model / "variables" / "data").write_bytes(bytes(range(256)))
    (folder / "artifacts" / registry.RECORDED_REQUESTS).write_text('{"inputs": {}, "probability": []}')
    (folder / "artifacts" / "plots").mkdir()
    (folder / "artifacts" / "plots" / "calibration.svg").write_text("<svg/>")
    verdict = verdict_on(spec, run_id).model_copy(update=changes)
    (folder / "artifacts" / VERDICT_FILE).write_text(verdict.model_dump_json())
    runs.log_artifacts(run_id, folder / "artifacts")
    runs.log_metrics(run_id, {"test_roc_auc": 0.72})
    runs.finish(run_id)
    version = registry.register_version(
        settings,
        name=spec.model_name,
        run_id=run_id,
        source=runs.artifact_uri(run_id, registry.SAVED_MODEL),
        tags={
            **version_tags(training_set, commit),
            "verdict_uri": runs.artifact_uri(run_id, VERDICT_FILE),
            registry.SIGNATURE_DIGEST: sign_run(settings, spec.model_name, run_id),
        },
    )
    registry.set_alias(settings, spec.model_name, registry.CHAMPION, version)
    return version


class Answers(dict[str, tuple[int, Any]]):
    """What the server answers, by path."""

    url = ""
    gateway_url = ""
    asked: list[tuple[str, str | None, Any]]


@pytest.fixture
def answers() -> Iterator[Answers]:
    """A deployment that is well, to be made worse."""
    given = Answers(
        {
            "/auth/token": (201, {"access_token": "t"}),
            "/api/v2/monitor/health": (200, HEALTHY),
            "/api/v2/importErrors": (200, {"import_errors": []}),
            "/api/v2/dags/flight_delay_training": (200, {}),
            "/api/v2/dags/flight_delay_training/dagVersions": (
                200,
                {"dag_versions": [{"bundle_version": COMMIT}]},
            ),
            "/readyz": (200, {"ready": True}),
            "/v1/flight_delay/predict": (200, {"model": {"name": "flight_delay", "version": 7}}),
        }
    )
    given.asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            path = self.path.partition("?")[0]
            given.asked.append((path, self.headers.get("authorization"), body))
            status, document = given.get(path, (404, {}))
            text = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing: the test says what was asked."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        given.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield given
        server.shutdown()
        thread.join()
