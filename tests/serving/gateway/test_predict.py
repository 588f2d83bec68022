"""Predictions over HTTP: equal to the SavedModel's own, from the values that count, or a clear refusal."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from airloop.prediction_request import (
    FeatureScalar,
    assemble_inputs,
    example_body,
    example_request,
    on_demand_values,
    parse_request,
)
from airloop.use_cases.flight_delay import USE_CASE
from feature_repo.flight_delay_on_demand import calendar, tail_rotation
from serving.gateway.app import BODY_LIMIT_BYTES
from tests.serving.gateway.conftest import VERSION, Loop
from tests.serving.gateway.small_store import write_features
from tests.serving.rollout.stack import answer_directly

PATH = f"/v1/{USE_CASE.name}/predict"
FEATURES = [item.name for item in USE_CASE.inputs if item.request_field is None]
MEGABYTE = 1_000_000


def expected_probability(loop: Loop, body: dict[str, Any], features: dict[str, FeatureScalar]) -> float:
    """What the SavedModel itself answers."""
    inputs = assemble_inputs(USE_CASE, parse_request(USE_CASE, json.dumps(body)), features)
    return answer_directly(loop.model, USE_CASE, {name: [value] for name, value in inputs.items()})[0]


def with_on_demand(features: dict[str, FeatureScalar], body: dict[str, Any]) -> dict[str, FeatureScalar]:
    """The model's features of `features`, with those that are computed of them and of the request."""
    request = parse_request(USE_CASE, json.dumps(body))
    given = {name: [value] for name, value in {**on_demand_values(request), **features}.items()}
    computed = {**tail_rotation(given), **calendar(given)}
    plain = {name: None if math.isnan(values[0]) else values[0] for name, values in computed.items()}
    every = {**features, **plain}
    return {name: every[name] for name in FEATURES}


def test_a_prediction_equals_the_saved_models_own(loop: Loop, client: httpx.Client) -> None:
    body = example_body(USE_CASE)
    response = client.post(PATH, json=body, headers={"X-Request-ID": "check-1"})
    assert response.status_code == 200
    answer = response.json()
    features = with_on_demand(dict(loop.features), body)
    assert answer["features"] == features
    assert features["tail_turn_hours"] is not None
    assert answer["missing_features"] == []
    expected = expected_probability(loop, body, features)
    assert answer["prediction"] == {"arrived_late": pytest.approx(expected, abs=1e-6)}
    assert answer["model"] == {"name": "flight_delay", "version": VERSION}
    assert answer["use_case"] == "flight_delay"
    assert datetime.fromisoformat(answer["prediction_time"]) == example_request(USE_CASE).prediction_time
    assert answer["request_id"] == response.headers["X-Request-ID"] == "check-1"


@pytest.mark.parametrize("given", ["", "a b", "x" * 200, 'a"b'])
def test_a_missing_or_unusable_request_id_is_replaced(client: httpx.Client, given: str) -> None:
    headers = {"X-Request-ID": given} if given else {}
    response = client.post(PATH, json=example_body(USE_CASE), headers=headers)
    assert response.json()["request_id"] == response.headers["X-Request-ID"] != given
    assert len(response.headers["X-Request-ID"]) == 32


def test_an_unknown_carrier_is_predicted_without_its_history(loop: Loop, client: httpx.Client) -> None:
    body = {**example_body(USE_CASE), "carrier": "ZZ"}
    response = client.post(PATH, json=body)
    assert response.status_code == 200
    answer = response.json()
    gone = {
        name for table in USE_CASE.feature_tables if "carrier" in table.entities for name in table.features
    }
    assert "carrier_delay_rate_7d" in gone
    assert set(answer["missing_features"]) == gone & set(FEATURES)
    assert {name for name, value in answer["features"].items() if value is None} == gone & set(FEATURES)
    known: dict[str, FeatureScalar] = {
        name: None if name in gone else value for name, value in loop.features.items()
    }
    features = with_on_demand(known, body)
    expected = expected_probability(loop, body, features)
    assert answer["prediction"]["arrived_late"] == pytest.approx(expected, abs=1e-6)


def test_a_request_without_a_plane_is_predicted_without_its_history(client: httpx.Client) -> None:
    body = {key: value for key, value in example_body(USE_CASE).items() if key != "tail_number"}
    answer = client.post(PATH, json=body).json()
    gone = {
        name
        for table in USE_CASE.feature_tables
        if "tail_number" in table.entities
        for name in table.features
    }
    assert set(answer["missing_features"]) == (gone & set(FEATURES)) | {"tail_turn_hours"}


def test_the_name_of_a_plane_tells_the_model_nothing(client: httpx.Client) -> None:
    planes = [f"N{number}ZZ" for number in range(20)]
    answers = [client.post(PATH, json=example_body(USE_CASE) | {"tail_number": plane}) for plane in planes]
    unknown = {answer.json()["prediction"]["arrived_late"] for answer in answers}
    nameless = client.post(PATH, json=example_body(USE_CASE) | {"tail_number": None})
    assert unknown == {nameless.json()["prediction"]["arrived_late"]}


@pytest.mark.parametrize(
    ("age", "counts"),
    [
        (timedelta(hours=6), True),
        (timedelta(hours=6, seconds=1), False),
        # Predicting for the past: the store has a value from later than the prediction time.
        (timedelta(hours=-1), True),
    ],
)
def test_a_value_older_than_its_time_to_live_is_missing(
    loop: Loop, client: httpx.Client, age: timedelta, counts: bool
) -> None:
    airport = f"AGE{int(age.total_seconds())}"
    body = {**example_body(USE_CASE), "origin": airport}
    at = example_request(USE_CASE).prediction_time - age
    names = USE_CASE.feature_table("origin_hourly").features
    write_features(loop.store, "origin_hourly", {"origin": airport, **dict.fromkeys(names, 4.5)}, at)
    answer = client.post(PATH, json=body).json()
    assert {answer["features"][name] for name in names} == ({4.5} if counts else {None})
    assert set(names).isdisjoint(answer["missing_features"]) == counts


def test_stored_nulls_and_nans_are_missing(loop: Loop, client: httpx.Client) -> None:
    at = example_request(USE_CASE).prediction_time
    row = {"tail_number": "N0NULL", "tail_last_delay_minutes": math.nan, "tail_last_event_at": 1_383_600_000}
    row |= {"tail_last_was_landing": 1.0, "tail_last_scheduled_minutes": None}
    row |= {"tail_last_scheduled_departure_at": 1_383_590_000, "tail_seats": None, "tail_year_built": 0.0}
    write_features(loop.store, "tail_history", row, at)
    answer = client.post(PATH, json={**example_body(USE_CASE), "tail_number": "N0NULL"}).json()
    assert set(answer["missing_features"]) == {"tail_last_delay_minutes", "tail_seats", "tail_turn_hours"}
    assert answer["features"]["tail_year_built"] == 0.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("origin", None),
        ("carrier", 12),
        ("scheduled_departure", "2013-11-05T17:30:00"),
        ("scheduled_departure", math.nan),
        ("scheduled_arrival", "soon"),
        ("gate", "B12"),
    ],
)
def test_a_wrong_field_is_422_and_named(client: httpx.Client, field: str, value: str | float | None) -> None:
    text = json.dumps({**example_body(USE_CASE), field: value})
    response = client.post(PATH, content=text, headers={"X-Request-ID": "bad-1"})
    assert response.status_code == 422
    answer = response.json()
    assert answer["request_id"] == "bad-1"
    assert answer["error"]["type"] == "InvalidRequest"
    (fault,) = answer["error"]["fields"]
    assert fault["field"] == field
    assert all(fault[part] for part in ("expected", "found", "next_step"))


def test_a_missing_field_is_422_and_named(client: httpx.Client) -> None:
    body = {key: value for key, value in example_body(USE_CASE).items() if key != "dest"}
    response = client.post(PATH, json=body)
    assert response.status_code == 422
    assert [fault["field"] for fault in response.json()["error"]["fields"]] == ["dest"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\x00"])
def test_a_body_that_is_no_json_object_is_400(client: httpx.Client, text: str) -> None:
    response = client.post(PATH, content=text)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "InvalidJson"


def test_a_body_at_the_limit_is_read_and_one_byte_more_is_refused(client: httpx.Client) -> None:
    text = json.dumps(example_body(USE_CASE))
    assert client.post(PATH, content=text.ljust(BODY_LIMIT_BYTES)).status_code == 200
    refused = client.post(PATH, content=text.ljust(BODY_LIMIT_BYTES + 1))
    assert refused.status_code == 413
    assert str(BODY_LIMIT_BYTES) in refused.json()["error"]["expected"]


def test_a_body_of_10_mb_is_refused(client: httpx.Client) -> None:
    assert client.post(PATH, content=b"x" * 10 * MEGABYTE).status_code == 413


def test_a_declared_10_mb_body_is_refused_before_any_of_it_is_sent(gateway_url: str) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {10 * MEGABYTE}\r\n\r\n"
    assert b" 413 " in _first_line_after(gateway_url, [head.encode()])


def test_an_endless_chunked_body_is_refused_after_the_limit(gateway_url: str) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
    pieces = [head.encode(), *[chunk] * (BODY_LIMIT_BYTES // 0x2000 + 1)]
    assert b" 413 " in _first_line_after(gateway_url, pieces)


def test_a_chunked_10_mb_body_is_refused(client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 10_000

    assert client.post(PATH, content=chunks()).status_code == 413


def _first_line_after(url: str, pieces: list[bytes]) -> bytes:
    """The status line that comes although the body that was begun never ends."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return connection.recv(4096).partition(b"\r\n")[0]
