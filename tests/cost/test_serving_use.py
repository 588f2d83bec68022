"""What a gateway uses, by its real metrics page, and what of its machine is idle."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prometheus_client import generate_latest

from airloop.cost.serving_use import Use, gateway_use, idle
from airloop.settings import Settings
from serving.gateway.request_context import Metrics
from tests.cost.conftest import NOW


@pytest.fixture
def gateway() -> Iterator[Settings]:
    """The gateway's own page of metrics, served by this process: the figures are this process's."""
    metrics = Metrics()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(generate_latest(metrics.registry))

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Settings(gateway_port=server.server_port)
    server.shutdown()
    server.server_close()


def test_a_gateway_says_what_it_uses(gateway: Settings) -> None:
    use = gateway_use(gateway, datetime.now(UTC))
    assert use is not None
    assert 0 < use.vcpus < 64
    assert 0.02 < use.memory_gib < 32
    assert timedelta(0) < datetime.now(UTC) - use.since < timedelta(days=1)


def test_where_no_gateway_answers_nothing_is_known() -> None:
    assert gateway_use(Settings(gateway_port=1), NOW) is None


def test_what_is_idle_is_said_with_what_would_do(prices) -> None:
    def said(vcpus: float) -> str | None:
        return idle(Use(vcpus, 0.4, NOW), "flight_delay", prices)

    assert said(0.2) is None, "a tenth of two is enough"
    assert "uses 0.05 of its machine's 2 vCPUs (2%)" in str(said(0.05))
    assert "two of the 3 machines would do, for 33% less" in str(said(0.05))
    one = prices.serving[0].model_copy(update={"machine": "large", "count": 1})
    assert "small would do, for 88% less" in str(
        idle(Use(0.1, 0.4, NOW), "flight_delay", prices.model_copy(update={"serving": (one,)}))
    )
    assert idle(Use(0.01, 0.4, NOW), "other", prices) is None
    assert idle(None, "flight_delay", prices) is None
