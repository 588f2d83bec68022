"""Explanations of single predictions: those of the model card's code, through the model server."""

from __future__ import annotations

import math
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from airloop.prediction_request import example_body
from airloop.training.explain import Explainer, background_document
from airloop.training.served_model import ServedModel
from airloop.use_cases.flight_delay import USE_CASE
from serving.staged import explanation_file
from tests.serving.gateway.conftest import VERSION, Loop, gateway_app, listening
from tests.serving.rollout.stack import ROWS, some_rows

PATH = f"/v1/{USE_CASE.name}/explain"
TYPES = {"string": object, "double": np.float32}


@pytest.fixture
def background(loop: Loop) -> Iterator[dict[str, np.ndarray]]:
    types = {item.name: TYPES.get(item.type, np.int64) for item in USE_CASE.inputs}
    rows = {name: np.array(values, types[name]) for name, values in some_rows(USE_CASE).items()}
    file = explanation_file(loop.settings.models_dir, USE_CASE.model_name, VERSION)
    file.parent.mkdir(exist_ok=True)
    file.write_text(background_document(rows))
    yield rows
    file.unlink()


def test_contributions_are_the_explainers_own_and_add_up(
    loop: Loop, client: httpx.Client, background: dict[str, np.ndarray]
) -> None:
    body = example_body(USE_CASE)
    answer = client.post(PATH, json=body, timeout=120)
    assert answer.status_code == 200
    found = answer.json()
    assert found["model"] == {"name": USE_CASE.model_name, "version": VERSION}
    predicted = client.post(f"/v1/{USE_CASE.name}/predict", json=body).json()
    probability = predicted["prediction"][USE_CASE.label.name]
    assert found["prediction"][USE_CASE.label.name] == pytest.approx(probability, abs=1e-4)
    total = found["base"] + sum(item["contribution"] for item in found["contributions"])
    assert total == pytest.approx(math.log(probability / (1 - probability)), abs=1e-3)
    sizes = [abs(item["contribution"]) for item in found["contributions"]]
    assert sizes == sorted(sizes, reverse=True)
    assert {item["input"] for item in found["contributions"]} == {item.name for item in USE_CASE.inputs}

    values = {item["input"]: item["value"] for item in found["contributions"]}
    row = {
        item.name: np.array(
            [math.nan if values[item.name] is None else values[item.name]], TYPES.get(item.type, np.int64)
        )
        for item in USE_CASE.inputs
    }
    direct = Explainer(
        USE_CASE.label.target, ServedModel(loop.model), background, seed=USE_CASE.training.seed
    ).explain(row)
    for item in found["contributions"]:
        assert item["contribution"] == pytest.approx(direct.contributions[item["input"]][0], abs=1e-3)
    assert len(background["origin"]) == ROWS


def test_a_champion_without_an_explainer_says_so(loop: Loop) -> None:
    with listening(gateway_app(loop.settings)) as url:
        answer = httpx.post(f"{url}{PATH}", json=example_body(USE_CASE), timeout=30, trust_env=False)
    assert answer.status_code == 503
    assert answer.json()["error"]["type"] == "NoExplainer"


def test_what_cannot_be_predicted_cannot_be_explained(client: httpx.Client) -> None:
    assert client.post(PATH, content=b"{").status_code == 400
    assert client.post(PATH, json={"origin": 1}).status_code == 422
