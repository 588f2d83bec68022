"""What the prediction log kept is read back as the inputs that the model was given."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa

from airloop.monitoring.logged import logged_inputs
from airloop.prediction_request import FeatureScalar, assemble_inputs, example_body, parse_request
from airloop.use_cases.flight_delay import USE_CASE

FEATURES = [item for item in USE_CASE.inputs if item.request_field is None]


def logged(body: dict[str, Any], features: dict[str, FeatureScalar]) -> tuple[str, str, dict[str, Any]]:
    """A record's request and features, as the gateway keeps them, and the inputs that the model got."""
    request = parse_request(USE_CASE, json.dumps(body))
    kept = {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in request.fields.items()
    }
    return (
        json.dumps(kept, sort_keys=True),
        json.dumps(features, sort_keys=True),
        assemble_inputs(USE_CASE, request, features),
    )


def test_inputs_are_those_that_the_model_was_given() -> None:
    random = np.random.default_rng(0)
    bodies = [
        example_body(USE_CASE),
        example_body(USE_CASE) | {"tail_number": None, "dest": 'A"\\B'},
        example_body(USE_CASE)
        | {
            "scheduled_departure": "2013-07-04T23:59:59.500000-04:00",
            "scheduled_arrival": "2013-07-05T05:10:00Z",
        },
    ]
    records = []
    for number, body in enumerate(bodies):
        features: dict[str, FeatureScalar] = {
            item.name: 1_372_990_000 + number if item.type == "instant" else float(random.normal())
            for item in FEATURES
        }
        features["temperature_f"] = None
        if number == 2:
            del features["wind_gust_mph"]
            features["tail_last_event_at"] = None
        features["unheard_of"] = 3.0
        records.append(logged(body, features))
    requests, features_json, expected = zip(*records, strict=True)
    found = logged_inputs(USE_CASE, pa.array(requests), pa.array(features_json))
    assert set(found) == {item.name for item in USE_CASE.inputs}
    for item in USE_CASE.inputs:
        for row, inputs in enumerate(expected):
            value, wanted = found[item.name][row], inputs[item.name]
            if item.type == "double":
                assert value == np.float32(wanted) or (math.isnan(value) and math.isnan(wanted)), item.name
            else:
                assert value == wanted, item.name


def test_no_records_are_no_rows() -> None:
    found = logged_inputs(USE_CASE, pa.array([], pa.string()), pa.array([], pa.string()))
    assert {len(values) for values in found.values()} == {0}
