"""Settings: every one is documented, and a wrong one is an error that names it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airloop.errors import SettingsError
from airloop.settings import PREFIX, Settings, environment_of, load_settings

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "settings.md"


def test_every_setting_is_documented_and_nothing_else():
    documented = re.findall(rf"^\| `({PREFIX}\w+)`", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    assert sorted(documented) == sorted(PREFIX + name.upper() for name in Settings.model_fields)


def test_all_wrong_variables_are_named_at_once(monkeypatch):
    monkeypatch.setenv("AIRLOOP_AIRFLOW_PORT", "eighty")
    monkeypatch.setenv("AIRLOOP_COLOUR", "blue")
    with pytest.raises(SettingsError, match=r"AIRLOOP_COLOUR is not a setting.*AIRLOOP_AIRFLOW_PORT"):
        load_settings()


def test_a_child_process_gets_the_same_settings(monkeypatch, tmp_path):
    settings = Settings(state_dir=tmp_path, gateway_port=18000, redis_connection="redis:6379")
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("model-server:8500", "model-server:8500"),
        ("dns:///model-server:8500", "model-server:8500"),
        ("ipv4:10.0.0.1:8500,10.0.0.2:8500", "10.0.0.1:8500,10.0.0.2:8500"),
        ("ipv6:[::1]:8500", "[::1]:8500"),
    ],
)
def test_model_servers_have_one_place_whatever_the_scheme(target, place):
    assert Settings(model_server_target=target).model_server_place == place


@pytest.mark.parametrize(
    "target",
    ["10.0.0.1:8500,10.0.0.2:8500", "dns:///model-server", "http://model-server:8501", "dns://a/b:1"],
)
def test_a_target_that_grpc_would_take_for_something_else_is_an_error(monkeypatch, target):
    monkeypatch.setenv("AIRLOOP_MODEL_SERVER_TARGET", target)
    with pytest.raises(SettingsError, match="AIRLOOP_MODEL_SERVER_TARGET"):
        load_settings()
