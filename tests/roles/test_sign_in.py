"""Airflow with people of an OpenID Connect provider: each role may do what it should, and no more."""

from __future__ import annotations

import json
import secrets
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from airloop.settings import REPOSITORY, Settings
from tests.api_server import Server, api_server
from tests.group_environment import python_of
from tests.roles.provider import CLIENT_ID, CLIENT_SECRET, Provider, providing

pytestmark = pytest.mark.roles
ROLES = ("viewer", "operator", "approver", "admin")
ROLLOUT = "flight_delay_rollout"
BACK = {"action": "rollback", "reason": "a test"}
OVERRIDE = {"run_id": "0" * 32, "by": "Ada", "reason": "a test"}


class SignedIn(NamedTuple):
    """A server, and the header of a person with each role."""

    server: Server
    provider: Provider
    of: Mapping[str, dict[str, str]]

    def ask(self, who: str, method: str, path: str, document: object = None) -> int:
        """The status of the answer."""
        answer = httpx.request(
            method, f"{self.server.url}{path}", json=document, headers=self.of[who], timeout=60
        )
        return answer.status_code

    def trigger(self, who: str, dag_id: str, conf: Mapping[str, str]) -> int:
        """The status of the answer to a trigger."""
        path = f"/api/v2/dags/{dag_id}/dagRuns"
        return self.ask(who, "POST", path, {"logical_date": None, "conf": conf})


def _sign_in(server: Server, provider: Provider, name: str, groups: list[str]) -> dict[str, str]:
    """By the browser's way: Airflow, the provider, back again with a code, and a cookie with a token."""
    provider.person = {
        "sub": name,
        "preferred_username": name,
        "given_name": name,
        "family_name": "of the tests",
        "email": f"{name}@example.org",
        "groups": groups,
    }
    with httpx.Client(follow_redirects=True, timeout=60) as browser:
        page = browser.get(f"{server.url}/auth/login/oidc")
        token = browser.cookies.get("_token")
    assert token, (page.status_code, page.text[:500])
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def signed_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignedIn]:
    home = tmp_path_factory.mktemp("fab")
    secret = home / "client_secret"
    secret.write_text(f"{CLIENT_SECRET}\n")
    with providing() as provider:
        options = {
            "CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
            "CORE__FERNET_KEY": "",
            "API__SECRET_KEY": secrets.token_urlsafe(32),
            "FAB__CONFIG_FILE": str(REPOSITORY / "deploy" / "airflow" / "webserver_config.py"),
            # Airflow keeps a person for so many seconds; 30 by default.
            "FAB__CACHE_TTL": "1",
            "AIRLOOP_OIDC__ISSUER": provider.url,
            "AIRLOOP_OIDC__CLIENT_ID": CLIENT_ID,
            "AIRLOOP_OIDC__CLIENT_SECRET_FILE": str(secret),
            "AIRLOOP_OIDC__APPROVER_GROUP": "ml-release-board",
        }
        airflow = python_of("airflow", "fab").with_name("airflow")
        paths = {"PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"}
        settings = Settings(state_dir=home / "state")
        with api_server(home, settings, options, airflow=airflow, variables=paths) as server:
            groups = {role: [f"airloop-{role}"] for role in ROLES} | {"approver": ["ml-release-board"]}
            people = {role: _sign_in(server, provider, role, groups[role]) for role in ROLES}
            people["nobody"] = _sign_in(server, provider, "nobody", ["another-group"])
            yield SignedIn(server, provider, people)


def test_the_code_is_bound_to_who_asked_for_it_and_a_forged_one_opens_nothing(signed_in: SignedIn) -> None:
    asked = signed_in.provider.asked[0]
    assert asked["code_challenge_method"] == "S256"
    assert {"openid", "groups"} <= set(asked["scope"].split())
    page = httpx.get(
        f"{signed_in.server.url}/auth/oauth-authorized/oidc?code=forged&state={asked['state']}", timeout=60
    )
    assert "_token" not in page.cookies


@pytest.mark.parametrize(
    ("dag_id", "conf", "may"),
    [
        ("flight_delay_scoring", {}, {"operator", "admin"}),
        (ROLLOUT, BACK, {"operator", "admin"}),
        ("flight_delay_override", OVERRIDE, {"approver", "admin"}),
    ],
)
def test_operators_trigger_and_take_back_and_approvers_override(
    signed_in: SignedIn, dag_id: str, conf: dict[str, str], may: set[str]
) -> None:
    for who in (*ROLES, "nobody"):
        assert signed_in.trigger(who, dag_id, conf) == (200 if who in may else 403), who


def test_approvers_answer_and_operators_do_not_and_nobody_but_an_admin_forges_an_answer(
    signed_in: SignedIn,
) -> None:
    run = f"/api/v2/dags/{ROLLOUT}/dagRuns"
    answer = httpx.get(f"{signed_in.server.url}{run}", headers=signed_in.of["viewer"], timeout=60)
    assert answer.status_code == 200
    started = httpx.post(
        f"{signed_in.server.url}{run}",
        json={"logical_date": None, "conf": {}},
        headers=signed_in.of["operator"],
        timeout=60,
    ).json()["dag_run_id"]
    _ask(signed_in.server.database, started, "promote")
    task = f"{run}/{started}/taskInstances/promote"
    approve = {"chosen_options": ["Approve"], "params_input": {}}
    forged = {"key": "return_value", "value": {"responded_by_user": {"name": "approver"}}, "map_index": -1}
    for who in ("viewer", "operator", "nobody"):
        assert signed_in.ask(who, "PATCH", f"{task}/-1/hitlDetails", approve) == 403, who
    for who in ("viewer", "operator", "approver", "nobody"):
        assert signed_in.ask(who, "POST", f"{task}/xcomEntries", forged) == 403, who
    # What an operator needs to mend a run.
    clear = {"dry_run": True, "dag_run_id": started, "task_ids": ["promote"]}
    path = f"/api/v2/dags/{ROLLOUT}/clearTaskInstances"
    assert signed_in.ask("operator", "POST", path, clear) == 200
    assert signed_in.ask("approver", "POST", path, clear) == 403
    assert signed_in.ask("approver", "PATCH", f"{task}/-1/hitlDetails", approve) == 200
    assert signed_in.ask("admin", "PATCH", f"{task}/-1/hitlDetails", approve) == 409, "it was answered"


def test_only_an_admin_sees_connections_variables_and_configuration(signed_in: SignedIn) -> None:
    for path in ("connections", "variables", "config"):
        for who in ("viewer", "operator", "approver", "nobody"):
            assert signed_in.ask(who, "GET", f"/api/v2/{path}") == 403, (who, path)
    for path in ("connections", "variables"):
        assert signed_in.ask("admin", "GET", f"/api/v2/{path}") == 200


def test_the_page_offers_each_role_what_it_may_and_nobody_sees_nothing(signed_in: SignedIn) -> None:
    url = f"{signed_in.server.url}/airloop/use-cases/flight_delay"
    may = {
        who: {
            act for act, allowed in httpx.get(url, headers=signed_in.of[who]).json()["may"].items() if allowed
        }
        for who in ROLES
    }
    everything = {"train", "roll_out", "roll_back", "accept", "silence"}
    assert may == {
        "viewer": set(),
        "operator": everything - {"accept"},
        "approver": {"accept"},
        "admin": everything,
    }
    assert httpx.get(url, headers=signed_in.of["nobody"]).status_code == 404


def test_who_leaves_a_group_loses_its_role(signed_in: SignedIn) -> None:
    header = _sign_in(signed_in.server, signed_in.provider, "leaver", ["airloop-operator"])
    url = f"{signed_in.server.url}/api/v2/dags"
    assert httpx.get(url, headers=header, timeout=60).status_code == 200
    header = _sign_in(signed_in.server, signed_in.provider, "leaver", [])
    time.sleep(2)
    assert httpx.get(url, headers=header, timeout=60).status_code == 403


def test_what_a_role_was_given_elsewhere_is_taken_away_and_what_the_code_says_stays(
    signed_in: SignedIn,
) -> None:
    server = signed_in.server
    before = _permissions(server.database)
    assert ("can_edit", "HITL Detail") not in before
    with closing(sqlite3.connect(server.database, timeout=60)) as connection, connection:
        connection.execute(
            "INSERT INTO ab_permission_view_role (permission_view_id, role_id) "
            "SELECT v.id, r.id FROM ab_permission_view v JOIN ab_permission p ON p.id = v.permission_id "
            "JOIN ab_view_menu m ON m.id = v.view_menu_id JOIN ab_role r "
            "WHERE r.name = 'Operator' AND p.name = 'can_edit' AND m.name = 'HITL Detail'"
        )
    assert _permissions(server.database) == before | {("can_edit", "HITL Detail")}
    airflow = python_of("airflow", "fab").with_name("airflow")
    done = subprocess.run(
        [str(airflow), "sync-perm"], env=dict(server.environment), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert _permissions(server.database) == before


def _permissions(database: Path) -> set[tuple[str, str]]:
    """What operators may, as FAB has it."""
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        return set(
            connection.execute(
                "SELECT p.name, m.name FROM ab_permission_view_role g "
                "JOIN ab_permission_view v ON v.id = g.permission_view_id "
                "JOIN ab_permission p ON p.id = v.permission_id "
                "JOIN ab_view_menu m ON m.id = v.view_menu_id JOIN ab_role r ON r.id = g.role_id "
                "WHERE r.name = 'Operator'"
            )
        )


def test_the_secret_of_the_client_is_in_no_log(signed_in: SignedIn) -> None:
    home: Path = signed_in.server.database.parent
    logs = [path for path in home.rglob("*") if path.is_file() and path.name != "client_secret"]
    assert len(logs) > 1
    assert [path for path in logs if CLIENT_SECRET.encode() in path.read_bytes()] == []


def _ask(database: Path, run_id: str, task_id: str) -> None:
    """A task that waits as an approval does: no scheduler runs here that would make it."""
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        (task,) = connection.execute(
            "SELECT id FROM task_instance WHERE run_id = ? AND task_id = ?", [run_id, task_id]
        ).fetchone()
        connection.execute("UPDATE task_instance SET state = 'awaiting_input' WHERE id = ?", [task])
        connection.execute(
            "INSERT INTO hitl_detail (ti_id, options, subject, params, params_input, created_at, multiple) "
            "VALUES (?, ?, 'promote?', '{}', '{}', '2026-01-01', 0)",
            [task, json.dumps(["Approve", "Reject"])],
        )
