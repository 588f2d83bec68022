"""The use case's page, in a real browser, in Airflow's own UI, with a year of history."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import FrameLocator, Page, expect

from airloop.settings import REPOSITORY
from airloop.use_cases.flight_delay import USE_CASE as SPEC
from tests.api_server import Server

PATHS = (".", "src", "plugins")
APPROVE = {"chosen_options": ["Approve"], "params_input": {}}
MOST_KIBIBYTES = 100
"""Of a year, as it travels: it is what makes the page quick."""


def _open(page: Page) -> FrameLocator:
    page.goto(f"/plugin/airloop/airloop/#{SPEC.name}")
    frame = page.frame_locator("iframe")
    frame.locator("html[data-shown=flight_delay]").wait_for(state="attached")
    return frame


def _card(frame: FrameLocator, name: str):
    return frame.get_by_role("region", name=name, exact=True)


def test_it_is_in_airflows_navigation_and_says_what_serves_and_what_is_under_way(signed_in) -> None:
    page = signed_in("admin")
    page.get_by_role("link", name="Airloop").click()
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name=SPEC.name, exact=True).click()
    serving = _card(frame, "Serving")
    expect(serving).to_contain_text("Version 5")
    expect(serving).to_contain_text("held through every stage")
    expect(serving).to_contain_text("75% version 5, 25% version 6")
    under_way = _card(frame, "Under way: version 6")
    expect(under_way).to_contain_text("canary_25")
    expect(under_way.get_by_role("row")).to_have_count(4)
    expect(under_way.get_by_role("link", name="Report")).to_have_attribute(
        "href", "/airloop-reports/flight_delay/rollouts/flight_delay_rollout_asset_triggered__1/index.html"
    )
    candidate = _card(frame, "Newest candidate")
    expect(candidate).to_contain_text("ROC AUC 0.7563, champion 0.7541 on the same rows")
    expect(candidate).to_contain_text("drift of wind_speed_mph")


def test_alerts_cost_data_and_quality_are_on_it(signed_in) -> None:
    frame = _open(signed_in("viewer"))
    alerts = _card(frame, "Open alerts")
    # What a record says stays text.
    expect(alerts).to_contain_text("flight_delay: traffic is lost <b>")
    expect(alerts).to_contain_text("3 times")
    expect(alerts).to_contain_text("2 alarms in the last window")
    expect(alerts).to_contain_text("Silenced: new_events")
    cost = _card(frame, "Cost")
    expect(cost).to_contain_text("of 5.00 USD a week")
    expect(cost).to_contain_text("USD per 1,000 predictions")
    expect(cost).to_contain_text("a week costs 8% less")
    expect(_card(frame, "Audits")).to_contain_text("expect_volume_to_be_usual")
    expect(_card(frame, "Data freshness")).to_contain_text("clean.flights")
    expect(_card(frame, "Jobs and their machines")).to_contain_text("busy for 12% of the time")
    quality = _card(frame, "Quality of the champion by day")
    expect(quality).to_contain_text("carrier=HA: ROC AUC 0.583")
    quality.get_by_role("button", name="Calibration error").click()
    expect(quality.locator(".u-legend")).to_contain_text("Calibration error")


def test_every_chart_is_drawn_and_says_what_is_under_the_pointer(signed_in) -> None:
    page = signed_in("viewer")
    frame = _open(page)
    for chart in ("quality", "traffic", "costs"):
        expect(frame.locator(f"#{chart} canvas")).to_have_count(1)
    drift = frame.locator("#drift canvas")
    drift.scroll_into_view_if_needed()
    box = drift.bounding_box()
    assert box is not None
    # The first feature (of the last window the farthest) on a day in the middle of the year.
    drift.hover(position={"x": box["width"] * 0.6, "y": 22})
    tip = frame.locator("#drift .tip")
    expect(tip).to_be_visible()
    expect(tip).to_contain_text("distance 0.")
    painted = drift.evaluate(
        "canvas => new Set(new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, "
        "canvas.height).data.buffer)).size"
    )
    assert painted > 100, "a year of distances has many shades"


def test_it_has_airflows_theme_also_when_that_changes(signed_in) -> None:
    page = signed_in("viewer", theme="dark")
    frame = _open(page)
    body, html = frame.locator("body"), frame.locator("html")
    expect(html).to_have_attribute("data-theme", "dark")
    dark = body.evaluate("body => getComputedStyle(body).backgroundColor")
    page.evaluate("document.documentElement.classList.replace('dark', 'light')")
    expect(html).to_have_attribute("data-theme", "light")
    assert body.evaluate("body => getComputedStyle(body).backgroundColor") != dark


def test_a_button_starts_a_run_as_the_person_who_presses_it(signed_in, server) -> None:
    page = signed_in("admin")
    frame = _open(page)
    frame.get_by_role("button", name="Silence", exact=True).click()
    frame.get_by_label("Cause").select_option("drift of wind_speed_mph")
    frame.get_by_label("Reason").fill("a storm that everybody knows of")
    frame.get_by_role("button", name="Silence a cause").click()
    expect(frame.locator("dialog")).to_contain_text("Started")
    link = frame.locator("dialog").get_by_role("link")
    link.click()
    page.wait_for_url("**/dags/flight_delay_silence/runs/**")
    runs = httpx.get(
        f"{server.url}/api/v2/dags/flight_delay_silence/dagRuns", headers=server.token("admin"), timeout=60
    )
    (run,) = runs.json()["dag_runs"]
    assert run["triggering_user_name"] == "admin"
    asked = run["conf"]
    assert (asked["cause"], asked["by"]) == ("drift of wind_speed_mph", "admin")
    assert asked["reason"] == "a storm that everybody knows of"
    assert asked["until"].endswith("T00:00:00Z")


def test_who_may_only_look_can_press_nothing_and_airflow_refuses_them_too(signed_in) -> None:
    page = signed_in("viewer")
    frame = _open(page)
    buttons = frame.locator("#actions button")
    expect(buttons).to_have_count(4)
    for button in buttons.all():
        expect(button).to_be_disabled()
    # Whoever gets round the button is refused where it counts.
    refused = page.request.post(
        "/api/v2/dags/flight_delay_training/dagRuns",
        data=json.dumps({"logical_date": None, "conf": {}}),
        headers={"Content-Type": "application/json"},
    )
    assert refused.status == 403


def _trigger(server: Server, user: str, dag_id: str, conf: dict[str, object] | None = None) -> int:
    return httpx.post(
        f"{server.url}/api/v2/dags/{dag_id}/dagRuns",
        json={"logical_date": None, "conf": conf or {}},
        headers=server.token(user),
        timeout=60,
    ).status_code


def test_an_operator_starts_and_takes_back_and_a_viewer_does_not(server) -> None:
    back = {"action": "rollback", "reason": "a test"}
    for dag_id, conf in (("flight_delay_scoring", {}), ("flight_delay_rollout", back)):
        assert _trigger(server, "viewer", dag_id, conf) == 403
        for user in ("operator", "approver", "admin"):
            assert _trigger(server, user, dag_id, conf) == 200, (user, dag_id)
    for kind in ("connections", "variables"):
        for user in ("viewer", "operator", "approver"):
            answer = httpx.get(f"{server.url}/api/v2/{kind}", headers=server.token(user), timeout=60)
            assert answer.status_code == 403, (user, kind)


def test_the_page_offers_each_role_what_it_may(server) -> None:
    may = {
        user: httpx.get(
            f"{server.url}/airloop/use-cases/{SPEC.name}", headers=server.token(user), timeout=60
        ).json()["may"]
        for user in ("viewer", "operator", "approver", "admin")
    }
    assert not any(may["viewer"].values())
    assert {act for act, allowed in may["operator"].items() if not allowed} == {"accept"}
    assert all(may["approver"].values())
    assert all(may["admin"].values())


def test_an_approver_answers_an_approval_and_an_operator_cannot(server, tmp_path) -> None:
    answered_by, here = tmp_path / "answered_by", Path(__file__).parent
    asking = subprocess.Popen(
        [sys.executable, str(here / "ask.py"), str(here / "dags"), str(answered_by)],
        env={
            **server.environment,
            "AIRFLOW__CORE__DAGS_FOLDER": str(here / "dags"),
            "PYTHONPATH": os.pathsep.join(str(REPOSITORY / part) for part in PATHS),
        },
        stdout=(log := (tmp_path / "log").open("wb")),
        stderr=subprocess.STDOUT,
    )
    try:
        asked = _asked(server, asking)
        assert {one["id"] for one in asked["assigned_users"]} == {"approver", "admin"}
        instance = asked["task_instance"]
        task = f"dags/asks/dagRuns/{instance['dag_run_id']}/taskInstances/approve/-1"
        url = f"{server.url}/api/v2/{task}/hitlDetails"
        for other in ("viewer", "operator"):
            refused = httpx.patch(url, json=APPROVE, headers=server.token(other), timeout=60)
            assert refused.status_code == 403, other
        httpx.patch(url, json=APPROVE, headers=server.token("approver"), timeout=60).raise_for_status()
        assert asking.wait(60) == 0, (tmp_path / "log").read_text()[-3000:]
        assert answered_by.read_text() == "approver"
    finally:
        asking.kill()
        asking.wait()
        log.close()


def _asked(server: Server, asking: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What the run of `asking` waits for."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found = httpx.get(
            f"{server.url}/api/v2/dags/asks/dagRuns/~/hitlDetails",
            params={"response_received": False},
            headers=server.token("viewer"),
            timeout=60,
        ).raise_for_status()
        if details := found.json()["hitl_details"]:
            return details[-1]
        assert asking.poll() is None, "the run ended"
        time.sleep(0.5)
    raise AssertionError("nobody is asked")


def test_reports_and_other_sites_open_beside_airflow_which_frames_the_page_in_a_sandbox(signed_in) -> None:
    page = signed_in("admin")
    frame = _open(page)
    with page.expect_popup() as opened:
        _card(frame, "Under way: version 6").get_by_role("link", name="Report").click()
    report = opened.value
    report.wait_for_load_state()
    assert "every number" in report.content()
    assert "/plugin/airloop" in page.url, "the page itself stays"


def test_what_waits_for_a_person_is_shown_and_a_button_of_a_dag_that_is_off_says_so(
    signed_in, server
) -> None:
    who = server.token("admin")
    training = f"{server.url}/api/v2/dags/flight_delay_training"
    httpx.patch(training, json={"is_paused": True}, headers=who, timeout=60).raise_for_status()
    with closing(sqlite3.connect(server.database, timeout=60)) as database, database:
        _ask_for_approval(database, server)
    frame = _open(signed_in("admin"))
    expect(_card(frame, "Open alerts")).to_contain_text("make version 6 the champion?")
    retrain = frame.get_by_role("button", name="Retrain")
    expect(retrain).to_be_disabled()
    expect(retrain).to_have_attribute("title", "The DAG is switched off: a run of it would wait.")


def _ask_for_approval(database: sqlite3.Connection, server) -> None:
    """A task that waits as an approval does, and what it asks: no scheduler runs here that would make it."""
    url = f"{server.url}/api/v2/dags/flight_delay_rollout"
    who = server.token("admin")
    httpx.patch(url, json={"is_paused": False}, headers=who, timeout=60).raise_for_status()
    run = httpx.post(
        f"{url}/dagRuns", json={"logical_date": None, "conf": {}}, headers=who, timeout=60
    ).raise_for_status()
    (task, *_) = database.execute(
        "SELECT id FROM task_instance WHERE run_id = ? AND task_id = 'promote'", [run.json()["dag_run_id"]]
    ).fetchone()
    database.execute("UPDATE task_instance SET state = 'awaiting_input' WHERE id = ?", [task])
    database.execute(
        "INSERT INTO hitl_detail (ti_id, options, subject, params, params_input, created_at, multiple) "
        "VALUES (?, '[]', 'flight_delay: make version 6 the champion?', '{}', '{}', '2026-01-01', 0)",
        [task],
    )


def test_what_cannot_be_read_again_says_of_when_it_is(signed_in) -> None:
    page = signed_in("viewer")
    frame = _open(page)
    page.route("**/airloop/use-cases/*", lambda route: route.abort())
    frame.locator("body").evaluate("() => load('flight_delay')")
    expect(frame.get_by_role("alert")).to_contain_text("it cannot be read again")
    expect(_card(frame, "Serving")).to_contain_text("Version 5")


def test_nobody_reads_it_without_signing_in(server) -> None:
    for path in ("use-cases", f"use-cases/{SPEC.name}"):
        assert httpx.get(f"{server.url}/airloop/{path}", timeout=60).status_code == 401


def test_a_use_case_that_is_none_is_not_found(server) -> None:
    answer = httpx.get(f"{server.url}/airloop/use-cases/none", headers=server.token("admin"), timeout=60)
    assert answer.status_code == 404


def test_a_year_is_small_enough_to_be_quick(server) -> None:
    answer = httpx.get(
        f"{server.url}/airloop/use-cases/{SPEC.name}", headers=server.token("viewer"), timeout=60
    )
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["cache-control"] == "no-store"
    assert len(gzip.compress(answer.content)) < MOST_KIBIBYTES * 1024
    assert len(answer.json()["overview"]["drift"]["days"]) == 365


def test_without_a_history_the_page_says_what_writes_it(signed_in, server) -> None:
    path = server.settings.overview_file(SPEC.name)
    aside = path.rename(path.with_suffix(".aside"))
    try:
        frame = _open(signed_in("viewer"))
        expect(frame.locator("main")).to_contain_text("No history yet: flight_delay_overview writes it")
        expect(_card(frame, "Serving")).to_contain_text("Version 5")
    finally:
        aside.rename(path)
