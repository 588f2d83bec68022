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


def _tuned(**space: Any) -> dict[str, Any]:
    tuning = {"space": space, "trials": 5, "minutes": 5}
    return {"training": {**FLIGHT_DELAY.training.model_dump(), "tuning": tuning}}


def _folds(folds: int, fold_days: int) -> dict[str, Any]:
    policy = {"folds": folds, "fold_days": fold_days}
    return {"training": {**FLIGHT_DELAY.training.model_dump(), "cross_validation": policy}}


def _outcome(**changes: Any) -> dict[str, Any]:
    label = FLIGHT_DELAY.label.model_dump()
    return {"label": {**label, "outcome": {**label["outcome"], **changes}}}


def _label(**changes: Any) -> dict[str, Any]:
    return {"label": {**FLIGHT_DELAY.label.model_dump(), **changes}}


def _figures(**figures: Any) -> dict[str, Any]:
    return {"gates": {**FLIGHT_DELAY.gates.model_dump(), "figures": figures}}


_CLEAN = [table.name for table in FLIGHT_DELAY.clean_tables]


def _lent(*names: str) -> dict[str, Any]:
    made_by = dict.fromkeys(names, "another")
    tables = FLIGHT_DELAY.model_dump()["clean_tables"]
    return {"clean_tables": [{**table, "made_by": made_by.get(table["name"])} for table in tables]}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "Flight Delay"}, "name"),
        (_label(target={"kind": "regression", "unit": "minutes"}), "only a label that is 1 or 0 cuts one"),
        (_label(target={"kind": "quantiles", "unit": "minutes", "levels": [0.9, 0.1]}), "levels must rise"),
        (_label(target={"kind": "multiclass", "classes": ["a", "a", "b"]}), "classes must differ"),
        (_label(target={"kind": "ordinal"}), "label.target"),
        (_figures(f1={}), "'f1' is no figure of a binary label, which has"),
        (_figures(), "gates.figures"),
        ({"colour": "blue"}, "colour"),
        ({"owner": ""}, "owner"),
        ({"event_field": "carrier"}, "event_field"),
        ({"schedules": {"features": "daily"}}, "schedules.features"),
        ({"request": FLIGHT_DELAY.model_dump()["request"][1:]}, "entity 'origin' is not a request field"),
        ({"feature_tables": FLIGHT_DELAY.model_dump()["feature_tables"][1:]}, "origin_departures_3h"),
        ({"elapsed": [{"name": "x", "since": "carrier", "until": "scheduled_arrival"}]}, "elapsed"),
        ({"gates": {**FLIGHT_DELAY.gates.model_dump(), "baseline": ["plane"]}}, "gates.baseline"),
        (_tuned(depth={"low": 1, "high": 2}), "tuning.space: 'depth' is not one of the parameters"),
        (_tuned(dropout={"low": 0.5, "high": 0.1}), "low 0.5 is not below high 0.1"),
        (_tuned(dropout={"low": 0, "high": 0.5, "log": True}), "low 0 has no logarithm"),
        (_tuned(blocks={"low": 0.5, "high": 2, "integer": True}), "are not both integers"),
        (_tuned(dropout={"low": 0.9, "high": 0.95}), "tuning.space.dropout: the spec's own .* is not in it"),
        (_tuned(batch_size={"values": [1, 1]}), "a value appears twice"),
        (_tuned(), "training.tuning.space"),
        (_outcome(name="origin_overdue_minutes"), "label.outcome: 'origin_overdue_minutes' is an input"),
        ({"identifiers": ["carrier"]}, "inputs: 'carrier' is the identifier carrier"),
        (_outcome(thresholds=(10, 0)), r"thresholds must rise, found \[10"),
        (_outcome(thresholds=()), "label.outcome.thresholds"),
        ({"sources": [], "streams": []}, "sources: there is none for the clean tables flights, movements"),
        (
            _lent("flights"),
            "it reads tables of another, and some of its own, which are published at different",
        ),
        (_lent(*_CLEAN), "all are lent, so nothing reads what the sources and streams bring"),
        (_folds(10, 14), "training.cross_validation: 10 folds of 14 days"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        define(**_fields(**changes))


def test_a_use_case_lends_what_it_makes_and_nothing_else() -> None:
    lent = FLIGHT_DELAY.lends("flights", "origin_hourly")
    assert [(table.name, table.made_by) for table in lent.clean] == [("flights", "flight_delay")]
    assert [(table.name, table.made_by) for table in lent.features] == [("origin_hourly", "flight_delay")]
    assert FLIGHT_DELAY.lender is None
    assert FLIGHT_DELAY.own_clean_tables == FLIGHT_DELAY.clean_tables
    borrower = use_case("airport_congestion")
    assert (borrower.lender, borrower.own_clean_tables) == ("flight_delay", ())
    assert [table.name for table in borrower.own_feature_tables] == ["origin_next_hour"]
    with pytest.raises(KeyError, match="flight_delay has no tables delays of its own"):
        FLIGHT_DELAY.lends("flights", "delays")
    with pytest.raises(KeyError, match="airport_congestion has no tables flights of its own"):
        borrower.lends("flights")


def test_no_model_can_be_told_which_flight_or_plane_it_is() -> None:
    assert {"flight_id", "flight_number", "tail_number"} <= set(FLIGHT_DELAY.identifiers)
    fields = [field.name for field in FLIGHT_DELAY.request]
    assert not {"flight_id", "flight_number"} & set(fields), "the first two are not even asked for"
    planes = FLIGHT_DELAY.model_dump()["inputs"]
    planes = [*planes, {"name": "plane", "type": "string", "request_field": "tail_number"}]
    with pytest.raises(SpecError, match="'plane' is the identifier tail_number"):
        define(**_fields(inputs=planes))


def test_an_unknown_use_case_lists_those_there_are() -> None:
    with pytest.raises(SpecError, match="flight_delay"):
        use_case("flight_delays")


def test_unknown_and_unusable_settings_are_all_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOOP_GATEWAY_PORT", "eight")
    monkeypatch.setenv("AIRLOOP_COLOUR", "blue")
    with pytest.raises(SettingsError, match=r"AIRLOOP_COLOUR is not a setting.*AIRLOOP_GATEWAY_PORT"):
        load_settings()
