"""Reports reach the person who looks at the task, and nobody else."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from airloop_airflow.jobs import JobOperator
from airloop_airflow.reports import URL_PREFIX, ReportLink, ReportsApp, report_path


@pytest.fixture
def reports(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(tmp_path))
    page = tmp_path / "reports" / "flight_delay" / "data docs" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("<p>36 of 36</p>")
    (tmp_path / "secrets.json").write_text("no")
    return page


@pytest.fixture
def signed_in(monkeypatch):
    """A user who may read the logs of one DAG; yields what the auth manager was asked."""
    asked = []

    def is_authorized_dag(**question):
        asked.append(question)
        return question["details"].id == "flight_delay_features"

    manager = SimpleNamespace(is_authorized_dag=is_authorized_dag)
    monkeypatch.setattr("airflow.api_fastapi.app.get_auth_manager", lambda: manager)

    async def user(token):
        return SimpleNamespace(name=token)

    monkeypatch.setattr("airflow.api_fastapi.core_api.security.resolve_user_from_token", user)
    return asked


def test_the_link_of_a_task_leads_to_its_report(reports):
    assert report_path(reports.as_uri()) == f"{URL_PREFIX}/flight_delay/data docs/index.html"
    assert report_path("file:///etc/passwd") == ""
    task = JobOperator(task_id="audit", module="m", use_case="u", flags={}, has_report=True)
    (link,) = task.operator_extra_links
    assert link.get_link(task, ti_key=None) == ""
    task.report_uri = reports.as_uri()
    assert ReportLink().get_link(task, ti_key=None).endswith("index.html")
    assert not JobOperator(task_id="clean", module="m", use_case="u", flags={}).operator_extra_links


def test_nobody_reads_a_report_without_signing_in(reports):
    assert TestClient(ReportsApp()).get("/flight_delay/data docs/index.html").status_code == 401


def test_a_report_is_for_those_who_may_read_the_logs(reports, signed_in):
    client = TestClient(ReportsApp())
    page = client.get("/flight_delay/data docs/index.html")
    assert (page.status_code, page.text) == (200, "<p>36 of 36</p>")
    assert signed_in[0]["access_entity"].value == "TASK_LOGS"
    assert client.get("/other/data docs/index.html").status_code == 403


def test_what_a_report_quotes_cannot_act_as_its_reader(reports, signed_in):
    page = TestClient(ReportsApp()).get("/flight_delay/data docs/index.html")
    policy = page.headers["content-security-policy"].split()
    assert policy[0] == "sandbox"
    assert "allow-same-origin" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"


def test_nobody_reads_another_use_cases_report_by_way_of_their_own(reports, signed_in):
    others = reports.parents[2] / "other" / "index.html"
    others.parent.mkdir()
    others.write_text("rows")
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/flight_delay/../other/index.html",
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer somebody")],
    }
    # Clients tidy such a path up before they send it; not all do.
    sent = []

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)

    asyncio.run(ReportsApp()(scope, receive, send))
    assert sent[0]["status"] == 404


@pytest.mark.parametrize("path", ["none.html", "../../secrets.json", "%2e%2e/%2e%2e/secrets.json"])
def test_what_is_no_report_is_not_found(reports, signed_in, path):
    assert TestClient(ReportsApp()).get(f"/flight_delay/{path}").status_code in (403, 404)
