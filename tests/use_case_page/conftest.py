"""Airflow's API server with the DAGs and a year of a use case, and a browser in front of it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from airloop.settings import Settings
from tests.use_case_page.year import write_year

REPOSITORY = Path(__file__).resolve().parents[2]
AIRFLOW = Path(sys.executable).with_name("airflow")
STARTS_WITHIN_SECONDS = 240
INCIDENT = {
    "channel": "",
    "message": "",
    "began": "2026-01-01T00:00:00+00:00",
    "heard": "",
    "told": "2026-01-01T00:00:00+00:00",
    "times": 3,
    "use_case": "flight_delay",
    "title": "flight_delay: traffic is lost <b>",
    "severity": "page",
    "run_url": "/dags/flight_delay_monitoring/runs/scheduled__9",
    "runbook": "docs/runbooks/drift.md",
}


class Server(NamedTuple):
    """A running API server."""

    url: str
    settings: Settings
    database: Path

    def token(self, user: str) -> dict[str, str]:
        """The header that says who asks."""
        answer = httpx.post(f"{self.url}/auth/token", json={"username": user, "password": user}, timeout=60)
        return {"Authorization": f"Bearer {answer.raise_for_status().json()['access_token']}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With `admin`, who may do everything, and `viewer`, who may look."""
    home = tmp_path_factory.mktemp("airflow")
    settings = Settings(state_dir=home / "state")
    write_year(settings, datetime.now(UTC))
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    (home / "passwords.json").write_text(json.dumps({"admin": "admin", "viewer": "viewer"}))
    airflow = {
        "CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "API__BASE_URL": url,
        "API_AUTH__JWT_SECRET": "a secret of the tests, long enough to sign with",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    environment = {
        **kept,
        **{f"AIRFLOW__{name}": value for name, value in airflow.items()},
        "AIRFLOW_HOME": str(home),
        "AIRLOOP_STATE_DIR": str(settings.state_dir),
    }

    def run(*command: str) -> None:
        done = subprocess.run(
            [str(AIRFLOW), *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=STARTS_WITHIN_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    run("db", "migrate")
    run("dags", "reserialize")
    port = url.rsplit(":", 1)[1]
    with (home / "api-server.log").open("wb") as log:
        process = subprocess.Popen(
            [str(AIRFLOW), "api-server", "--host", "127.0.0.1", "--port", port, "--workers", "1"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(f"{url}/api/v2/version", process)
        started = Server(url, settings, home / "airflow.db")
        incident = INCIDENT | {"heard": datetime.now(UTC).isoformat()}
        variable = {"key": "airloop_incident.lost_traffic.flight_delay", "value": json.dumps(incident)}
        told = httpx.post(
            f"{url}/api/v2/variables", json=variable, headers=started.token("admin"), timeout=60
        )
        told.raise_for_status()
        yield started
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + STARTS_WITHIN_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, "the API server ended"
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"{url} does not answer")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real one, closed after these tests: its event loop would be in the way of others'.

    Where set-up found none to install (Ubuntu has only a snap), its tests are skipped.
    """
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no Chromium: install one to test the page")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def signed_in(server: Server, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens Airflow's UI as a user, with a theme; fails at the end if a script failed or wrote an error."""
    errors: list[str] = []
    contexts = []

    def open_as(user: str, theme: str = "light") -> Page:
        context = browser.new_context(viewport={"width": 1440, "height": 900}, base_url=server.url)
        contexts.append(context)
        context.add_init_script(f"localStorage.setItem('theme', '{theme}')")
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto("/auth/login/")
        page.fill("input[name=username]", user)
        page.fill("input[name=password]", user)
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: "/auth/" not in url)
        return page

    yield open_as
    for context in contexts:
        context.close()
    assert errors == []
