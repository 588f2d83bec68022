"""Airflow's API server with the DAGs and a year of a use case, and a browser in front of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from airloop.settings import Settings
from tests.api_server import Server, api_server
from tests.use_case_page.year import write_year

USERS = {"viewer": "viewer", "operator": "user", "approver": "user", "admin": "admin"}
"""Airflow's role of each."""
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a user of each role by the simple login, called as the role."""
    home = tmp_path_factory.mktemp("airflow")
    settings = Settings(state_dir=home / "state")
    write_year(settings, datetime.now(UTC))
    (home / "passwords.json").write_text(json.dumps({name: name for name in USERS}))
    airflow = {
        "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in USERS.items()),
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
    }
    approvers = {"AIRLOOP_APPROVERS": json.dumps(["approver", "admin"])}
    with api_server(home, settings, airflow, variables=approvers) as started:
        incident = INCIDENT | {"heard": datetime.now(UTC).isoformat()}
        variable = {"key": "airloop_incident.lost_traffic.flight_delay", "value": json.dumps(incident)}
        told = httpx.post(
            f"{started.url}/api/v2/variables", json=variable, headers=started.token("admin"), timeout=60
        )
        told.raise_for_status()
        yield started


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
