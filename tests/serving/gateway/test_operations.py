"""The gateway as something that is operated: what it says before, without and after the servers it needs."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from airloop.prediction_request import example_body, parse_request
from airloop.settings import REPOSITORY, Settings
from airloop.use_cases.flight_delay import USE_CASE
from serving.gateway import problems
from serving.gateway.app import is_ready
from tests.serving.gateway.conftest import VERSION, Loop, gateway_app, listening, serve_champion
from tests.serving.gateway.small_store import apply_features, fill_features, open_small_store
from tests.serving.rollout.stack import free_port, model_server_process, process, wait_until

PATH = f"/v1/{USE_CASE.name}/predict"


def test_a_gateway_started_before_anything_exists_picks_it_up_without_a_restart(
    loop: Loop, tmp_path: Path
) -> None:
    settings = Settings(
        state_dir=tmp_path / "state", gateway_port=free_port(), model_server_grpc_port=free_port()
    )
    arguments = ["-m", "serving.gateway", "--store=tests.serving.gateway.small_store:open_small_store"]
    log = tmp_path / "gateway.log"
    with (
        process(arguments, settings, log),
        httpx.Client(base_url=settings.gateway_url, timeout=30, trust_env=False) as client,
    ):

        def alive() -> bool:
            try:
                return client.get("/healthz").status_code == 200
            except httpx.TransportError:
                return False

        def lacking() -> list[str]:
            response = client.get("/readyz")
            faults = response.json()["lacking"][USE_CASE.name]
            assert response.status_code == (503 if faults else 200)
            assert all(fault["next_step"] for fault in faults)
            return [fault["type"] for fault in faults]

        wait_until(alive, seconds=90, what="the gateway lives")
        assert lacking() == ["NoFeatures", "ModelServerDown"]
        refused = client.post(PATH, json=example_body(USE_CASE))
        assert refused.status_code == 503
        assert "flight_delay_features" in refused.json()["error"]["next_step"]

        store = open_small_store(settings)
        apply_features(store, USE_CASE, tmp_path)
        fill_features(store, USE_CASE)
        wait_until(lambda: lacking() == ["ModelServerDown"], seconds=10, what="features are found")
        refused = client.post(PATH, json=example_body(USE_CASE))
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "ModelServerDown")

        with model_server_process(settings, tmp_path / "model_server.log"):
            wait_until(lambda: lacking() == ["NoChampion"], seconds=10, what="the model server is found")
            refused = client.post(PATH, json=example_body(USE_CASE))
            assert (refused.status_code, refused.json()["error"]["type"]) == (503, "NoChampion")
            assert "flight_delay_rollout" in refused.json()["error"]["next_step"]
            assert client.get(f"/v1/{USE_CASE.name}").json()["model"] is None

            shutil.copytree(loop.model, settings.models_dir / USE_CASE.model_name / "1")
            serve_champion(settings, 1)
            assert lacking() == []
            answer = client.post(
                PATH, json=example_body(USE_CASE), headers={"Authorization": "Bearer s3cret"}
            )
            assert answer.status_code == 200
            assert answer.json()["model"]["version"] == 1
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    # Attempts that failed are kept as well: no model server, then no such label on it.
    assert [line["error"] for line in lines] == ["down", "refused", None]
    line = lines[-1]
    assert line["request_id"] == answer.json()["request_id"]
    assert {USE_CASE.label.name: line["answer"][0]} == answer.json()["prediction"]
    assert line["request"]["carrier"] == "DL"
    assert "s3cret" not in log.read_text()


def test_a_model_server_that_goes_and_comes_back_is_503_in_between(loop: Loop, tmp_path: Path) -> None:
    settings = loop.settings.model_copy(update={"model_server_grpc_port": free_port()})
    config = settings.model_config_file
    config.write_text("model_config_list {}")
    with (
        listening(gateway_app(settings)) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):

        def status() -> int:
            return client.post(PATH, json=example_body(USE_CASE)).status_code

        with model_server_process(settings, tmp_path / "first.log"):
            serve_champion(settings, VERSION)
            wait_until(lambda: status() == 200, seconds=5, what="the model server answers")
        assert status() == 503
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        with model_server_process(settings, tmp_path / "second.log"):
            serve_champion(settings, VERSION)
            wait_until(lambda: status() == 200, seconds=5, what="the model server is found again")


def test_a_model_server_that_is_too_slow_is_504(loop: Loop) -> None:
    with (
        listening(gateway_app(loop.settings, predict_timeout=0.00001)) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        response = client.post(PATH, json=example_body(USE_CASE))
    assert (response.status_code, response.json()["error"]["type"]) == (504, "ModelServerLate")


def test_a_ready_gateway_says_what_serves(client: httpx.Client) -> None:
    assert client.get("/readyz").json() == {"ready": True, "lacking": {USE_CASE.name: []}}
    serving = client.get(f"/v1/{USE_CASE.name}").json()
    assert serving["model"] == {"name": USE_CASE.model_name, "version": VERSION}


def test_an_unknown_path_has_the_same_form_of_error(client: httpx.Client) -> None:
    response = client.post("/v1/unknown/predict", json={})
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "NotFound"
    assert client.get(PATH).status_code == 405


def test_the_documentation_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs").text
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert {Path(file).suffix for file in files} == {".js", ".css", ".png"}
    assert [client.get(file).status_code for file in files] == [200] * len(files)


def test_the_documentation_page_has_an_example_that_works(client: httpx.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"][PATH]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    parse_request(USE_CASE, json.dumps(content["example"]))
    assert client.post(PATH, json=content["example"]).status_code == 200
    assert set(content["schema"]["properties"]) == {field.name for field in USE_CASE.request}
    assert {"200", "400", "413", "422", "503"} <= set(operation["responses"])


def test_metrics_count_requests_and_missing_features(loop: Loop) -> None:
    # A gateway of its own: the shared one may still be at work on what another test did not wait for.
    with (
        listening(gateway_app(loop.settings)) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        client.post(PATH, json={**example_body(USE_CASE), "carrier": "ZZ"})
        client.get("/not/there")
        lines = client.get("/metrics").text.splitlines()

    def metric(name: str) -> float:
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    assert metric(f'airloop_gateway_requests_total{{route="{PATH}",status="200"}}') == 1
    assert metric('airloop_gateway_missing_features_total{feature="carrier_delay_rate_7d"') == 1
    assert metric('airloop_gateway_requests_total{route="unknown",status="404"}') == 1


def test_counts_are_kept_in_memory_whatever_feast_would_have_them_do() -> None:
    code = "import serving.gateway.__main__, prometheus_client.values as v; print(v.ValueClass.__name__)"
    environment = {name: value for name, value in os.environ.items() if "MULTIPROC" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split()[-1] == "MutexValue"


def test_concurrent_requests_get_their_own_answers(loop: Loop, gateway_url: str) -> None:
    def ask(number: int) -> tuple[int, bool]:
        carrier = "DL" if number % 2 else "ZZ"
        with httpx.Client(base_url=gateway_url, timeout=30, trust_env=False) as client:
            answer = client.post(PATH, json={**example_body(USE_CASE), "carrier": carrier})
        return answer.status_code, bool(answer.json()["missing_features"]) == (carrier == "ZZ")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(60))) == {(200, True)}


def test_an_online_store_that_fails_is_503_without_its_details(
    loop: Loop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = loop.settings.model_copy(update={"state_dir": tmp_path / "state"})
    apply_features(open_small_store(settings), USE_CASE, tmp_path)
    (settings.feast_dir / "online.db").write_bytes(b"this is no database" * 1000)
    with (
        caplog.at_level(logging.CRITICAL),
        listening(gateway_app(settings)) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        response = client.post(PATH, json=example_body(USE_CASE))
    assert (response.status_code, response.json()["error"]["type"]) == (503, "FeatureStoreDown")
    assert str(tmp_path) not in response.text


DOWN = problems.model_server_down("no answer").fault
NO_FEATURES = problems.no_features(USE_CASE).fault
NO_CHAMPION = problems.no_champion(USE_CASE).fault


@pytest.mark.parametrize(
    ("lacking", "ready"),
    [
        ({"old": []}, True),
        ({"old": [], "new": [NO_CHAMPION]}, True),
        ({"old": [], "new": [NO_FEATURES, NO_CHAMPION]}, True),
        ({"old": [NO_FEATURES], "other": []}, False),
        ({"old": [DOWN], "other": [DOWN]}, False),
        ({"new": [NO_CHAMPION]}, False),
        ({}, True),
    ],
)
def test_a_use_case_that_is_new_keeps_nobody_from_the_others(lacking, ready):
    assert is_ready(lacking) is ready
