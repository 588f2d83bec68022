"""Two gateways behind a real nginx with the repository's configuration: one goes, clients do not notice."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from airloop.lakehouse.catalog import open_catalog
from airloop.prediction_log.land import land
from airloop.prediction_log.record import TABLE
from airloop.prediction_request import example_body
from airloop.settings import REPOSITORY, Settings
from airloop.use_cases.flight_delay import USE_CASE
from tests.serving.gateway.conftest import Loop
from tests.serving.rollout.stack import free_port, process, wait_until

PATH = f"/v1/{USE_CASE.name}/predict"
GATEWAY = ["-m", "serving.gateway", "--store=tests.serving.gateway.small_store:open_small_store"]


@contextmanager
def nginx(ports: list[int], folder: Path) -> Iterator[str]:
    """nginx with the repository's configuration, on other ports and in another folder."""
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    port = free_port()
    text = (REPOSITORY / "serving" / "nginx.conf").read_text("utf-8")
    for number, upstream in enumerate(ports, start=1):
        assert f"server gateway-{number}:8000 " in text
        text = text.replace(f"server gateway-{number}:8000 ", f"server 127.0.0.1:{upstream} ")
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};").replace("/tmp/nginx", f"{folder}/nginx")
    config = folder / "nginx.conf"
    config.write_text(text)
    subprocess.run([binary, "-t", "-c", str(config), "-p", str(folder)], check=True, capture_output=True)
    with (folder / "nginx.log").open("wb") as log:
        started = subprocess.Popen(
            [binary, "-c", str(config), "-p", str(folder), "-g", "daemon off;"], stdout=log, stderr=log
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        started.send_signal(signal.SIGQUIT)
        started.wait(20)


def replica(loop: Loop, folder: Path) -> Settings:
    settings = loop.settings.model_copy(update={"gateway_port": free_port(), "state_dir": folder / "state"})
    settings.state_dir.mkdir(exist_ok=True)
    if not settings.feast_dir.exists():
        settings.feast_dir.symlink_to(loop.settings.feast_dir)
    return settings


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=30, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


class Busy(BaseHTTPRequestHandler):
    """Refuses as a gateway does that has too many requests; counts them."""

    asked = 0

    def do_POST(self) -> None:
        type(self).asked += 1
        body = b'{"error": {"type": "Overloaded"}}'
        self.send_response(503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_gateways_that_are_busy_go_on_answering_for_themselves(tmp_path: Path) -> None:
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Busy) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with nginx([server.server_port for server in servers], tmp_path) as url:
            wait_until(lambda: listens(url), seconds=20, what="nginx listens")
            Busy.asked = 0
            answers = [httpx.post(f"{url}{PATH}", content=b"{}", trust_env=False) for _ in range(30)]
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.text for answer in answers} == {'{"error": {"type": "Overloaded"}}'}
        assert Busy.asked == 30, "each was asked once, and none was left out"
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def listens(url: str) -> bool:
    try:
        return httpx.get(f"{url}/metrics", trust_env=False).status_code == 404
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_gateway_that_goes_costs_no_client_anything(
    how: signal.Signals, loop: Loop, tmp_path: Path
) -> None:
    replicas = [replica(loop, tmp_path) for _ in range(2)]
    answered: list[tuple[str, int]] = []
    stopping = threading.Event()
    with ExitStack() as stack:
        gateways = [
            stack.enter_context(process(GATEWAY, settings, tmp_path / f"gateway-{settings.gateway_port}.log"))
            for settings in replicas
        ]
        for settings in replicas:
            wait_until(lambda url=settings.gateway_url: ready(url), seconds=90, what="a gateway is ready")
        url = stack.enter_context(nginx([settings.gateway_port for settings in replicas], tmp_path))
        wait_until(lambda: ready(url), seconds=20, what="nginx passes requests on")

        def client(number: int) -> None:
            with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
                for count in range(10_000):
                    if stopping.is_set():
                        return
                    name = f"{number}-{count}"
                    found = http.post(PATH, json=example_body(USE_CASE), headers={"X-Request-ID": name})
                    assert found.headers["X-Request-ID"] == name
                    answered.append((name, found.status_code))

        clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
        for thread in clients:
            thread.start()
        wait_until(lambda: len(answered) >= 60, seconds=60, what="answers")
        gateways[0].send_signal(how)
        gateways[0].wait(20)
        after = len(answered)
        wait_until(lambda: len(answered) >= after + 60, seconds=60, what="answers of the one that is left")
        stopping.set()
        for thread in clients:
            thread.join()
        assert httpx.get(f"{url}/metrics", trust_env=False).status_code == 404
    assert {status for _, status in answered} == {200}
    land(replicas[0])
    rows = open_catalog(replicas[0]).load_table(TABLE).scan().to_arrow().to_pylist()
    # Both wrote to one spool, and what was answered is there; asked again by nginx, it may be there twice.
    assert len({row["writer"] for row in rows}) == 2
    assert {name for name, _ in answered} <= {row["request_id"] for row in rows}
