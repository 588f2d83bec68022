"""Every prediction that a client got is in the table once, though its gateway was killed meanwhile."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from airloop.lakehouse.catalog import open_catalog
from airloop.prediction_log.land import land
from airloop.prediction_log.record import TABLE
from airloop.prediction_request import example_body
from airloop.use_cases.flight_delay import USE_CASE
from tests.serving.gateway.conftest import VERSION, Loop
from tests.serving.rollout.stack import free_port, process, wait_until

PATH = f"/v1/{USE_CASE.name}/predict"
BATCH = f"/v1/{USE_CASE.name}/predict_batch"


def test_a_gateway_that_is_killed_under_load_loses_and_doubles_nothing(loop: Loop, tmp_path: Path) -> None:
    # The model server and the features of the shared loop; a warehouse and a spool of its own.
    settings = loop.settings.model_copy(update={"gateway_port": free_port(), "state_dir": tmp_path / "state"})
    settings.state_dir.mkdir()
    (settings.state_dir / "feast").symlink_to(loop.settings.feast_dir)
    arguments = ["-m", "serving.gateway", "--store=tests.serving.gateway.small_store:open_small_store"]
    answered: list[str] = []
    stopping = threading.Event()

    def ready() -> bool:
        try:
            return httpx.get(f"{settings.gateway_url}/readyz", timeout=30, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def client(number: int) -> None:
        with httpx.Client(base_url=settings.gateway_url, timeout=30, trust_env=False) as http:
            for count in range(10_000):
                if stopping.is_set():
                    return
                request_id = f"{number}-{count}"
                try:
                    response = http.post(
                        PATH, json=example_body(USE_CASE), headers={"X-Request-ID": request_id}
                    )
                except httpx.TransportError:
                    stopping.wait(0.05)
                    continue
                if response.status_code == 200:
                    answered.append(request_id)

    with ThreadPoolExecutor(4) as pool:
        clients = []
        for life in range(2):
            with process(arguments, settings, tmp_path / f"gateway-{life}.log") as gateway:
                wait_until(ready, seconds=90, what="the gateway is ready")
                clients = clients or [pool.submit(client, number) for number in range(4)]
                enough = len(answered) + 100
                wait_until(lambda enough=enough: len(answered) >= enough, seconds=60, what="answers")
                # The landing runs beside the gateways, as the DAG's task does.
                land(settings)
                if life == 0:
                    gateway.send_signal(signal.SIGKILL)
                    gateway.wait()
                else:
                    instances = {"instances": [example_body(USE_CASE)] * 3}
                    headers = {"X-Request-ID": "a-batch"}
                    url = f"{settings.gateway_url}{BATCH}"
                    assert httpx.post(url, json=instances, headers=headers, timeout=30).status_code == 200
                    stopping.set()
                    for done in clients:
                        done.result()
    land(settings)
    rows = open_catalog(settings).load_table(TABLE).scan().to_arrow().to_pylist()
    times = Counter((row["request_id"], row["instance"]) for row in rows)
    assert max(times.values()) == 1
    assert {(request_id, 0) for request_id in answered} <= times.keys()
    assert {("a-batch", number) for number in range(3)} <= times.keys()
    # A killed gateway had written what its clients were not told any more, of the four under way.
    assert len(times) <= len(answered) + 3 + 4
    assert not list(settings.prediction_spool_dir.glob("*.jsonl"))
    row = rows[0]
    assert (row["version"], row["variant"], row["caller"]) == (VERSION, "champion", "anyone")
    assert json.loads(row["request"])["carrier"] == example_body(USE_CASE)["carrier"]
    assert set(json.loads(row["entities"])) == set(USE_CASE.entities)
    assert row["latency_seconds"] > 0
