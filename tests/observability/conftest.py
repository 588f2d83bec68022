"""Fixtures: a collector, and what the real gateway and model server send it and log for one prediction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from airloop.prediction_request import example_body
from airloop.settings import Settings
from airloop.use_cases.flight_delay import USE_CASE
from serving.gateway.__main__ import SERVICE as GATEWAY
from tests.observability.collector import Collector, collecting
from tests.observability.planted_store import broken_by
from tests.serving.gateway.conftest import serve_champion
from tests.serving.gateway.small_store import apply_features, fill_features, open_small_store
from tests.serving.rollout.stack import free_port, model_server_process, process, save_model, wait_until

TRACE = "0af7651916cd43dd8448eb211c80319c"
BROKEN_TRACE = "1af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
STORE = "--store=tests.observability.planted_store:open_planted_store"


@dataclass(frozen=True)
class Observed:
    """Two requests with traces of their client's, and what came of them: the second met a broken store."""

    collector: Collector
    answer: dict[str, Any]
    gateway_log: str
    model_server_log: str
    settings: Settings

    def gateway_lines(self) -> list[dict[str, Any]]:
        """The gateway's lines, each of which must be JSON."""
        return [json.loads(line) for line in self.gateway_log.splitlines()]


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """For all tests of the folder."""
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="session")
def observed(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Observed:
    """Both programs, asked and ended: what they still had to send has been sent."""
    folder = tmp_path_factory.mktemp("observed")
    settings = Settings(
        state_dir=folder / "state",
        gateway_port=free_port(),
        model_server_grpc_port=free_port(),
        otlp_endpoint=collector.endpoint,
        log_format="json",
    )
    logs = folder / f"{GATEWAY}.log", folder / "model-server.log"
    save_model(USE_CASE, -0.5, settings.models_dir / USE_CASE.model_name / "7")
    store = open_small_store(settings)
    apply_features(store, USE_CASE, folder)
    fill_features(store, USE_CASE)
    with (
        process(["-m", "serving.gateway", STORE], settings, logs[0]),
        model_server_process(settings, logs[1]),
        httpx.Client(base_url=settings.gateway_url, timeout=30, trust_env=False) as client,
    ):
        serve_champion(settings, 7)

        def ready() -> bool:
            try:
                return client.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        def ask(trace: str) -> httpx.Response:
            headers = {"traceparent": f"00-{trace}-{PARENT}-01", "X-Request-ID": f"request-{trace}"}
            return client.post(f"/v1/{USE_CASE.name}/predict", json=example_body(USE_CASE), headers=headers)

        wait_until(ready, seconds=90, what="the gateway is ready")
        answer = ask(TRACE)
        assert answer.status_code == 200, answer.text
        broken_by(settings).touch()
        assert ask(BROKEN_TRACE).status_code == 503
    texts = [Path(log).read_text("utf-8") for log in logs]
    return Observed(collector, answer.json(), *texts, settings)
