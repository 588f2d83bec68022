"""The pure part of a prediction: what a body may say, which feature values count, what the model is given."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta

import pytest

from airloop.prediction_request import (
    RequestError,
    StoredFeature,
    assemble_inputs,
    example_body,
    example_request,
    features_in_force,
    missing_features,
    parse_request,
)
from airloop.use_cases.flight_delay import USE_CASE

Json = str | int | float | bool | None | list[int] | dict[str, int]


def body(**changes: Json) -> str:
    """The example body with some fields changed."""
    return json.dumps({**example_body(USE_CASE), **changes})


def test_a_valid_body_gives_keys_and_the_prediction_time_in_utc() -> None:
    request = parse_request(USE_CASE, body())
    assert request.entities == {"origin": "JFK", "dest": "LAX", "carrier": "DL", "tail_number": "N327NW"}
    assert request.prediction_time == datetime(2013, 11, 5, 20, 30, tzinfo=UTC)


def test_instants_are_utc_seconds_and_local_times_are_wall_clock_seconds() -> None:
    inputs = assemble_inputs(USE_CASE, example_request(USE_CASE), {})
    assert inputs["scheduled_departure"] == datetime(2013, 11, 5, 22, 30, tzinfo=UTC).timestamp()
    assert inputs["scheduled_departure_local"] == datetime(2013, 11, 5, 17, 30, tzinfo=UTC).timestamp()
    assert inputs["scheduled_arrival"] == datetime(2013, 11, 6, 4, 55, tzinfo=UTC).timestamp()


def test_missing_values_take_the_form_that_the_model_knows() -> None:
    inputs = assemble_inputs(USE_CASE, example_request(USE_CASE), {"wind_speed_mph": 12.5})
    assert inputs["wind_speed_mph"] == 12.5
    assert inputs["tail_last_event_at"] == 0
    temperature = inputs["temperature_f"]
    assert isinstance(temperature, float)
    assert math.isnan(temperature)
    assert list(inputs) == [item.name for item in USE_CASE.inputs]


@pytest.mark.parametrize("tail", [None, ""])
def test_an_optional_field_may_be_null_or_empty(tail: str | None) -> None:
    request = parse_request(USE_CASE, body(tail_number=tail))
    assert "tail_number" not in request.entities
    without = {key: value for key, value in example_body(USE_CASE).items() if key != "tail_number"}
    assert request == parse_request(USE_CASE, json.dumps(without))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("origin", 7),
        ("origin", None),
        ("origin", ""),
        ("origin", True),
        ("origin", ["JFK"]),
        ("origin", "J" * 257),
        ("tail_number", 5),
        ("scheduled_departure", 1383690600),
        ("scheduled_departure", "1383690600"),
        ("scheduled_departure", math.nan),
        ("scheduled_departure", "2013-11-05T17:30:00"),
        ("scheduled_departure", "2013-11-05"),
        ("scheduled_departure", "2013-13-05T17:30:00Z"),
        ("scheduled_departure", "0001-01-01T00:00:00Z"),
        ("scheduled_departure", "9999-12-31T23:59:59-12:00"),
        ("scheduled_arrival", "tomorrow"),
        ("seat", "12A"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Json) -> None:
    with pytest.raises(RequestError) as error:
        parse_request(USE_CASE, body(**{field: value}))
    assert error.value.is_object
    (problem,) = error.value.problems
    assert problem.field == field
    assert all((problem.expected, problem.found, problem.next_step))


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(RequestError) as error:
        parse_request(USE_CASE, json.dumps({"origin": 7, "seat": 1}))
    named = {problem.field for problem in error.value.problems}
    assert named == {"origin", "dest", "carrier", "scheduled_departure", "scheduled_arrival", "seat"}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"origin"', "[" * 5000, b"\xff\xfe"])
def test_a_body_that_is_no_json_object_is_told_apart(text: str | bytes) -> None:
    with pytest.raises(RequestError) as error:
        parse_request(USE_CASE, text)
    assert not error.value.is_object


def test_a_long_value_is_not_repeated_whole() -> None:
    with pytest.raises(RequestError) as error:
        parse_request(USE_CASE, body(origin="J" * 60_000))
    assert len(str(error.value)) < 1000


def test_a_number_field_takes_finite_numbers_only() -> None:
    seats = USE_CASE.request[0].model_copy(update={"name": "seats", "type": "number", "example": 2.5})
    spec = USE_CASE.model_copy(update={"request": (*USE_CASE.request, seats)})
    for good in (1, 1.5):
        assert parse_request(spec, body(seats=good)).fields["seats"] == good
    for bad in (math.nan, math.inf, "1", True):
        with pytest.raises(RequestError):
            parse_request(spec, body(seats=bad))


def test_a_value_counts_until_its_time_to_live_has_passed_at_the_prediction_time() -> None:
    request = example_request(USE_CASE)
    limit = timedelta(hours=6)
    ages = {"fresh": timedelta(0), "last moment": limit, "too old": limit + timedelta(seconds=1)}
    found = {
        label: features_in_force(
            USE_CASE, request, {"wind_speed_mph": StoredFeature(9.0, request.prediction_time - age)}
        )["wind_speed_mph"]
        for label, age in ages.items()
    }
    assert found == {"fresh": 9.0, "last moment": 9.0, "too old": None}


def test_a_row_without_an_entity_key_joins_nothing() -> None:
    stored = {"tail_seats": StoredFeature(180.0, example_request(USE_CASE).prediction_time)}
    known = features_in_force(USE_CASE, parse_request(USE_CASE, body()), stored)
    unknown = features_in_force(USE_CASE, parse_request(USE_CASE, body(tail_number=None)), stored)
    assert (known["tail_seats"], unknown["tail_seats"]) == (180.0, None)


def test_nan_and_nothing_are_missing_and_zero_is_not() -> None:
    request = example_request(USE_CASE)
    now = request.prediction_time
    stored = {
        "wind_speed_mph": StoredFeature(math.nan, now),
        "wind_gust_mph": StoredFeature(None, now),
        "temperature_f": StoredFeature(40.0, None),
        "precipitation_inches": StoredFeature(0.0, now),
    }
    missing = missing_features(USE_CASE, features_in_force(USE_CASE, request, stored))
    assert {"wind_speed_mph", "wind_gust_mph", "temperature_f"} <= set(missing)
    assert "precipitation_inches" not in missing
    assert len(missing) == len([item for item in USE_CASE.inputs if item.request_field is None]) - 1
