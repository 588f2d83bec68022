"""A spec that is malformed or contradicts itself fails where it is defined, with the field named."""

from __future__ import annotations

from typing import Any

import pytest

from airloop.errors import SettingsError, SpecError
from airloop.settings import load_settings
from airloop.use_cases.catalogue import all_use_cases, use_case
from airloop.use_cases.spec import define

FLIGHT_DELAY = use_case("flight_delay")


def _fields(**changes: Any) -> dict[str, Any]:
    return {**FLIGHT_DELAY.model_dump(), **changes}


def test_the_reference_use_case_round_trips() -> None:
    assert define(**_fields()) == FLIGHT_DELAY
    assert FLIGHT_DELAY in all_use_cases()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "Flight Delay"}, "name"),
        ({"colour": "blue"}, "colour"),
        ({"owner": ""}, "owner"),
        ({"event_field": "carrier"}, "event_field"),
        ({"schedules": {"features": "daily"}}, "schedules.features"),
        ({"request": FLIGHT_DELAY.model_dump()["request"][1:]}, "entity 'origin' is not a request field"),
        ({"feature_tables": FLIGHT_DELAY.model_dump()["feature_tables"][1:]}, "origin_departures_3h"),
        ({"elapsed": [{"name": "x", "since": "carrier", "until": "scheduled_arrival"}]}, "elapsed"),
        ({"gates": {**FLIGHT_DELAY.gates.model_dump(), "baseline": ["plane"]}}, "gates.baseline"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        define(**_fields(**changes))


def test_an_unknown_use_case_lists_those_there_are() -> None:
    with pytest.raises(SpecError, match="flight_delay"):
        use_case("flight_delays")


def test_unknown_and_unusable_settings_are_all_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOOP_GATEWAY_PORT", "eight")
    monkeypatch.setenv("AIRLOOP_COLOUR", "blue")
    with pytest.raises(SettingsError, match=r"AIRLOOP_COLOUR is not a setting.*AIRLOOP_GATEWAY_PORT"):
        load_settings()
