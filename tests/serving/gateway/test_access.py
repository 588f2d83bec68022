"""API keys: who is let in, for what, and how a key is replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from airloop.errors import SettingsError
from airloop.prediction_request import example_body
from airloop.use_cases.flight_delay import USE_CASE
from serving.gateway import access
from serving.gateway.access import ANYONE, Access, Role
from tests.serving.gateway.conftest import Loop, gateway_app, listening
from tests.serving.rollout.stack import wait_until

PREDICT = f"/v1/{USE_CASE.name}/predict"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def client(loop: Loop, file: Path) -> Iterator[httpx.Client]:
    """A client of a gateway with the keys in `file`."""
    access.add(file, "first", [Role.FEEDBACK])
    settings = loop.settings.model_copy(update={"gateway_keys": file})
    with (
        listening(gateway_app(settings)) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_key_opens_what_its_roles_allow_and_nothing_else(client: httpx.Client, file: Path) -> None:
    keys = {role: access.add(file, f"the {role}", [role]) for role in (Role.PREDICT, Role.OPERATE)}

    def statuses(headers: dict[str, str]) -> dict[str, int]:
        found = {
            path: client.get(path, headers=headers).status_code
            for path in ("/metrics", f"/v1/{USE_CASE.name}")
        }
        found["predict"] = client.post(PREDICT, json=example_body(USE_CASE), headers=headers).status_code
        return found

    operate, everything = (
        ("/metrics", f"/v1/{USE_CASE.name}"),
        ("/metrics", f"/v1/{USE_CASE.name}", "predict"),
    )
    wait_until(
        lambda: statuses(bearer(keys[Role.PREDICT]))["predict"] == 200, seconds=10, what="keys are read"
    )
    assert statuses(bearer(keys[Role.PREDICT])) == {**dict.fromkeys(operate, 403), "predict": 200}
    assert statuses(bearer(keys[Role.OPERATE])) == {**dict.fromkeys(operate, 200), "predict": 403}
    for headers in ({}, bearer("guess"), {"Authorization": "Basic Zm9vOmJhcg=="}):
        assert statuses(headers) == dict.fromkeys(everything, 401)
    refused = client.post(PREDICT, json=example_body(USE_CASE))
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert refused.json()["error"]["type"] == "UnknownKey"
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200


def test_a_key_that_is_taken_away_or_replaced_opens_nothing(client: httpx.Client, file: Path) -> None:
    def status(key: str) -> int:
        return client.get("/metrics", headers=bearer(key)).status_code

    old = access.add(file, "prometheus", [Role.OPERATE])
    wait_until(lambda: status(old) == 200, seconds=10, what="the key is read")
    new = access.add(file, "prometheus", [Role.OPERATE])
    wait_until(lambda: status(new) == 200, seconds=10, what="the new key is read")
    assert status(old) == 401
    assert access.remove(file, "prometheus")
    wait_until(lambda: status(new) == 401, seconds=10, what="the key is gone")


@pytest.mark.parametrize("broken", [None, "[", "{}", '[{"name": "x", "sha256": "y", "roles": ["predict"]}]'])
def test_a_broken_file_lets_nobody_in(client: httpx.Client, file: Path, broken: str | None) -> None:
    key = access.add(file, "web", [Role.OPERATE])

    def status() -> int:
        return client.get("/metrics", headers=bearer(key)).status_code

    wait_until(lambda: status() == 200, seconds=10, what="the key is read")
    if broken is None:
        file.unlink()
    else:
        file.write_text(broken, "utf-8")
    wait_until(lambda: status() == 401, seconds=10, what="nobody is let in")


def test_the_file_does_not_have_the_key(file: Path) -> None:
    key = access.add(file, "web", [Role.PREDICT])
    assert key not in file.read_text("utf-8")
    assert access.digest_of(key) in file.read_text("utf-8")
    assert len(key) >= 43


def test_a_key_is_in_no_line_that_a_gateway_logs(
    client: httpx.Client, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = access.add(file, "shop", [Role.PREDICT])
    with caplog.at_level("DEBUG"):
        wait_until(
            lambda: client.post(PREDICT, json=example_body(USE_CASE), headers=bearer(key)).status_code == 200,
            seconds=10,
            what="the key is read",
        )
        assert client.get("/metrics", headers=bearer(key)).status_code == 403
        assert client.post(PREDICT, json={}, headers=bearer(f"wrong-{key}")).status_code == 401
    logged = [
        record.getMessage() for record in caplog.records if record.name.startswith(("serving", "uvicorn"))
    ]
    assert logged
    assert [line for line in logged if key in line] == []


def test_a_gateway_does_not_start_with_a_broken_file(file: Path) -> None:
    file.write_text('[{"name": "x"}]', "utf-8")
    with pytest.raises(SettingsError, match="sha256: Field required"):
        Access(file)
    with pytest.raises(SettingsError, match="No such file"):
        Access(file.with_name("gone.json"))


def test_without_a_file_anyone_may_do_everything() -> None:
    assert Access(None).name_of(None, Role.OPERATE) == ANYONE


def test_the_command_line(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert access.main(["add", "--name", "web", "--role", "predict"]) == 1
    assert "AIRLOOP_GATEWAY_KEYS" in capsys.readouterr().err
    monkeypatch.setenv("AIRLOOP_GATEWAY_KEYS", str(file))
    assert access.main(["add", "--name", "web", "--role", "predict", "--role", "feedback"]) == 0
    key = capsys.readouterr().out.strip()
    assert Access(file).name_of(key, Role.FEEDBACK) == "web"
    assert access.main(["remove", "--name", "nobody"]) == 1
    assert access.main(["remove", "--name", "web"]) == 0
    assert access.read_keys(file) == ()
