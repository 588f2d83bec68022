"""What the gateway does when a server fails: retry a little, leave it alone, refuse what it cannot answer.

The model server here is a gRPC server on loopback that speaks TensorFlow Serving's protocol and fails on
demand; nothing real fails so exactly.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
import pytest
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)

from airloop.prediction_log import variants
from airloop.prediction_request import example_body
from airloop.use_cases.flight_delay import USE_CASE
from serving.gateway.attempts import error_of
from serving.gateway.circuit import FAILURES_IN_A_ROW, OPEN_SECONDS
from serving.model_server_client import ModelServerDown, ModelServerRefused
from tests.serving.gateway.conftest import Loop, gateway_app, listening
from tests.serving.rollout.stack import free_port, wait_until

PATH = f"/v1/{USE_CASE.name}/predict"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Scripted(PredictionServiceServicer):  # type: ignore[misc] # untyped stubs
    """Answers with the codes in `script`, one after the other, then well; `gate` holds every answer up."""

    def __init__(self) -> None:
        self.script: list[grpc.StatusCode] = []
        self.calls = 0
        self.metadata: list[dict[str, str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def Predict(self, request: predict_pb2.PredictRequest, context: Any) -> predict_pb2.PredictResponse:
        self.calls += 1
        self.metadata.append(dict(context.invocation_metadata()))
        self.gate.wait(30)
        if self.script:
            context.abort(self.script.pop(0), "as the test asks")
        response = predict_pb2.PredictResponse()
        response.model_spec.version.value = 3
        response.outputs["probability"].dtype = 1
        response.outputs["probability"].float_val.append(0.25)
        response.outputs["probability"].tensor_shape.dim.add(size=1)
        return response


@contextmanager
def serving(loop: Loop, *, at_once: int = 32, **options: Any) -> Iterator[tuple[Scripted, httpx.Client]]:
    """A gateway over a scripted model server that takes so many calls at once."""
    port, scripted = free_port(), Scripted()
    with ThreadPoolExecutor(at_once) as threads:
        server = grpc.server(threads)
        add_PredictionServiceServicer_to_server(scripted, server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        settings = loop.settings.model_copy(update={"model_server_grpc_port": port})
        with (
            listening(gateway_app(settings, **options)) as url,
            httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
        ):
            yield scripted, client
        scripted.gate.set()
        server.stop(0)


@pytest.fixture
def scripted(loop: Loop) -> Iterator[tuple[Scripted, httpx.Client]]:
    with serving(loop) as found:
        yield found


def ask(client: httpx.Client, **headers: str) -> httpx.Response:
    return client.post(PATH, json=example_body(USE_CASE), headers=headers)


def metric(client: httpx.Client, name: str) -> float:
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.mark.parametrize("found", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_a_server_that_is_away_or_stops_for_a_moment_is_asked_again(
    scripted: tuple[Scripted, httpx.Client], found: grpc.StatusCode
) -> None:
    server, client = scripted
    server.script = [found] * 2
    answer = ask(client)
    assert answer.status_code == 200
    assert answer.json()["prediction"] == {"arrived_late": 0.25}
    assert server.calls == 3


def test_retries_have_a_budget(loop: Loop, scripted: tuple[Scripted, httpx.Client]) -> None:
    server, client = scripted
    server.script = [grpc.StatusCode.UNAVAILABLE] * 1000
    for _ in range(30):
        assert ask(client).status_code == 503
    # Five requests opened the circuit: fifteen calls if all retries were made, and no more than the budget.
    assert server.calls <= FAILURES_IN_A_ROW + 10


def test_a_server_that_refuses_is_asked_once(scripted: tuple[Scripted, httpx.Client]) -> None:
    server, client = scripted
    server.script = [grpc.StatusCode.INVALID_ARGUMENT] * 20
    for _ in range(10):
        assert ask(client).status_code in (502, 503)
    assert server.calls == 10


def test_a_server_that_keeps_failing_is_left_alone_and_tried_again(
    scripted: tuple[Scripted, httpx.Client], caplog: pytest.LogCaptureFixture
) -> None:
    server, client = scripted
    server.script = [grpc.StatusCode.DEADLINE_EXCEEDED] * FAILURES_IN_A_ROW
    found = [ask(client).status_code for _ in range(FAILURES_IN_A_ROW)]
    assert found == [504] * FAILURES_IN_A_ROW
    refused = ask(client)
    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "CircuitOpen")
    assert int(refused.headers["Retry-After"]) >= 1
    assert server.calls == FAILURES_IN_A_ROW
    wait_until(lambda: ask(client).status_code == 200, seconds=OPEN_SECONDS + 5, what="the circuit closes")
    assert server.calls == FAILURES_IN_A_ROW + 1


def test_more_requests_than_can_be_answered_are_refused_at_once(loop: Loop) -> None:
    with (
        serving(loop, most_in_flight=4, predict_timeout=60.0) as (server, client),
        ThreadPoolExecutor(4) as pool,
    ):
        server.gate.clear()
        under_way = [pool.submit(ask, client) for _ in range(4)]
        wait_until(lambda: server.calls == 4, seconds=20, what="four requests are under way")
        refused = ask(client)
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "Overloaded")
        assert refused.headers["Retry-After"] == "1"
        assert refused.headers["X-Request-ID"] == refused.json()["request_id"]
        assert client.get("/healthz").status_code == 200
        assert metric(client, "airloop_gateway_shed_requests_total") == 1
        server.gate.set()
        assert {answer.result().status_code for answer in under_way} == {200}
        assert ask(client).status_code == 200


def test_who_asks_how_it_is_waits_for_no_prediction(loop: Loop) -> None:
    """As many requests as are taken, which is more than a pool of threads has by default."""
    with (
        serving(loop, at_once=64, most_in_flight=64, predict_timeout=60.0) as (server, client),
        ThreadPoolExecutor(64) as pool,
    ):
        server.gate.clear()
        under_way = [pool.submit(ask, client) for _ in range(64)]
        wait_until(lambda: server.calls == 64, seconds=30, what="all of them are under way")
        assert client.get("/healthz", timeout=5).status_code == 200
        server.gate.set()
        assert {answer.result().status_code for answer in under_way} == {200}


def test_a_models_own_failures_are_told_from_a_version_that_is_not_there() -> None:
    not_there = "Servable not found for request: Specific(flight_delay, 4)"
    assert error_of(ModelServerRefused("NOT_FOUND", not_there)) == variants.DOWN
    assert error_of(ModelServerDown("no connection")) == variants.DOWN
    # TensorFlow's codes come as they are: a table that was not initialised, a resource that is not there.
    assert error_of(ModelServerRefused("FAILED_PRECONDITION", "Table not initialized")) == variants.REFUSED
    assert error_of(ModelServerRefused("NOT_FOUND", "Resource x does not exist")) == variants.REFUSED


def test_a_trace_goes_on_to_the_model_server_and_into_the_log(
    scripted: tuple[Scripted, httpx.Client], logged: Callable[[], dict[str, Any]]
) -> None:
    server, client = scripted
    ask(client, traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="vendor=1")
    version, trace, span, flags = server.metadata[0]["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span not in (PARENT, "0" * 16)
    assert server.metadata[0]["tracestate"] == "vendor=1"
    assert logged()["trace_id"] == TRACE


@pytest.mark.parametrize("given", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01"])
def test_a_request_without_a_usable_trace_begins_one(
    scripted: tuple[Scripted, httpx.Client], logged: Callable[[], dict[str, Any]], given: str
) -> None:
    server, client = scripted
    ask(client, **({"traceparent": given} if given else {}))
    _, trace, _, _ = server.metadata[0]["traceparent"].split("-")
    assert trace not in ("0" * 32, "")
    assert len(trace) == 32
    assert logged()["trace_id"] == trace


@pytest.fixture
def logged() -> Iterator[Callable[[], dict[str, Any]]]:
    """The last line of the prediction log."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    log, keep = logging.getLogger("airloop.predictions"), Keep()
    level = log.level
    log.addHandler(keep)
    log.setLevel(logging.INFO)
    yield lambda: json.loads(lines[-1])
    log.removeHandler(keep)
    log.setLevel(level)
