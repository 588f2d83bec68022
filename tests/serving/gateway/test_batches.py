"""Batches over HTTP: the answers that the instances would get one by one, all by one version, or none."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from airloop.prediction_request import example_body
from airloop.use_cases.flight_delay import USE_CASE
from serving.gateway.app import BATCH_BODY_LIMIT_BYTES
from serving.gateway.prediction import MOST_INSTANCES
from tests.serving.gateway.conftest import VERSION

SINGLE = f"/v1/{USE_CASE.name}/predict"
BATCH = f"/v1/{USE_CASE.name}/predict_batch"
EXAMPLE = example_body(USE_CASE)
INSTANCES: list[dict[str, Any]] = [
    EXAMPLE,
    {**EXAMPLE, "carrier": "ZZ"},
    {key: value for key, value in EXAMPLE.items() if key != "tail_number"},
    {**EXAMPLE, "scheduled_departure": "2013-11-05T21:30:00-05:00"},
]


def test_each_instance_is_answered_as_it_would_be_alone(client: httpx.Client) -> None:
    answer = client.post(BATCH, json={"instances": INSTANCES}, headers={"X-Request-ID": "batch-1"}).json()
    assert answer["request_id"] == "batch-1"
    assert answer["model"] == {"name": USE_CASE.model_name, "version": VERSION}
    alone = [client.post(SINGLE, json=instance).json() for instance in INSTANCES]
    assert len(answer["predictions"]) == len(INSTANCES)
    for found, expected in zip(answer["predictions"], alone, strict=True):
        assert found["prediction"] == pytest.approx(expected["prediction"], abs=1e-6)
        for name in ("prediction_time", "features", "missing_features"):
            assert found[name] == expected[name]
    assert len({json.dumps(found["missing_features"]) for found in answer["predictions"]}) > 1


def test_the_largest_batch_is_answered_and_one_more_is_refused(client: httpx.Client) -> None:
    answer = client.post(BATCH, json={"instances": [EXAMPLE] * MOST_INSTANCES})
    assert answer.status_code == 200
    assert len(answer.json()["predictions"]) == MOST_INSTANCES
    refused = client.post(BATCH, json={"instances": [EXAMPLE] * (MOST_INSTANCES + 1)})
    assert refused.status_code == 422
    assert f"{MOST_INSTANCES + 1} of them" in refused.json()["error"]["found"]


def test_wrong_fields_are_named_with_their_instance_and_nothing_is_predicted(client: httpx.Client) -> None:
    bad = {**EXAMPLE, "carrier": 12}
    response = client.post(BATCH, json={"instances": [EXAMPLE, bad, "no object", {**bad, "gate": "B"}]})
    assert response.status_code == 422
    fields = [fault["field"] for fault in response.json()["error"]["fields"]]
    assert fields == ["instances[1].carrier", "instances[2]", "instances[3].carrier", "instances[3].gate"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[1]", 400),
        (b'{"instances": []}', 422),
        (b'{"instances": {}}', 422),
        (b'{"rows": [1]}', 422),
        (b'{"instances": [{}], "more": 1}', 422),
        (b" " * (BATCH_BODY_LIMIT_BYTES + 1), 413),
    ],
)
def test_what_is_no_batch_is_refused(client: httpx.Client, body: bytes, status: int) -> None:
    response = client.post(BATCH, content=body)
    assert response.status_code == status
    assert all(response.json()["error"][part] for part in ("expected", "found", "next_step"))


def test_the_documented_example_works(client: httpx.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"][BATCH]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    assert client.post(BATCH, json=content["example"]).status_code == 200
    assert content["schema"]["properties"]["instances"]["maxItems"] == MOST_INSTANCES
