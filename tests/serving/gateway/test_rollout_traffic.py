"""What clients get beside a shadow, a canary or an experiment, and what is kept of it."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import tensorflow as tf

from airloop.lakehouse.catalog import open_catalog
from airloop.prediction_log import outcome, record, variants
from airloop.prediction_log.land import land
from airloop.prediction_log.logs import OUTCOMES
from airloop.prediction_log.spool import Spool
from airloop.prediction_request import example_body
from airloop.routing_document import Routing, Split
from airloop.settings import Settings
from airloop.use_cases.flight_delay import USE_CASE
from serving.model_config import ServedModel, config_message
from serving.model_server_client import CHAMPION, ModelServer, ModelServerRefused
from serving.routing import write_routing
from tests.serving.gateway.conftest import VERSION, Loop, gateway_app, listening
from tests.serving.rollout.stack import (
    TinyModel,
    free_port,
    model_server_process,
    save_model,
    some_rows,
    wait_until,
)

PATH = f"/v1/{USE_CASE.name}/predict"
CANDIDATE, NOT_A_NUMBER, REFUSES, SLOW, FEWER_INPUTS = 8, 9, 10, 11, 12
SLOW_SECONDS = 4 * USE_CASE.rollout.candidate_timeout_seconds
TYPES = {"string": tf.string, "double": tf.float32, "instant": tf.int64, "local_time": tf.int64}


class Bad(TinyModel):
    """A model that fails for half of all origins, as `fault` says."""

    def __init__(self, fault: str) -> None:
        super().__init__(USE_CASE, 0.0)
        self._fault = fault

    def answer(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """As that of a good one, or none."""
        good = super().answer(**inputs)["probability"]
        bad = tf.strings.to_hash_bucket_fast(inputs["origin"], 2) == 0
        if self._fault == "nan":
            return {"probability": tf.where(bad, float("nan"), good)}
        if self._fault == "refuses":
            with tf.control_dependencies([tf.debugging.Assert(~tf.reduce_any(bad), ["as the test asks"])]):
                return {"probability": tf.identity(good)}
        waited = tf.cond(tf.reduce_any(bad), lambda: wait(SLOW_SECONDS), lambda: tf.constant(0, tf.int64))
        return {"probability": good + 0.0 * tf.cast(waited, tf.float32)}


def wait(seconds: float) -> tf.Tensor:
    """0, after `seconds`; takes no processor, and as long on any machine."""
    kind = {"output_types": [tf.int64], "output_shapes": [[]]}
    asleep = tf.raw_ops.SleepDataset(
        input_dataset=tf.data.Dataset.range(1)._variant_tensor, sleep_microseconds=int(seconds * 1e6), **kind
    )
    return tf.raw_ops.DatasetToSingleElement(dataset=asleep, **kind)[0]


def save_bad(fault: str, folder: Path) -> None:
    model = Bad(fault)
    signature = {i.name: tf.TensorSpec([None], TYPES[i.type], name=i.name) for i in USE_CASE.inputs}
    model.call = tf.function(model.answer)
    tf.saved_model.save(
        model, str(folder), signatures={"serving_default": model.call.get_concrete_function(**signature)}
    )


@dataclass(frozen=True)
class Rollout:
    """A gateway over a champion and candidates, each bad in a way of its own."""

    settings: Settings
    client: httpx.Client

    def route(self, **what: Any) -> None:
        write_routing(self.settings, USE_CASE.model_name, Routing(**what))

    def ask(self, number: int, **fields: Any) -> httpx.Response:
        body = example_body(USE_CASE) | {"origin": f"A{number}"} | fields
        return self.client.post(PATH, json=body, headers={"X-Request-ID": f"request-{number}"})

    def kept(self) -> list[dict[str, Any]]:
        land(self.settings)
        found: list[dict[str, Any]] = (
            open_catalog(self.settings).load_table(record.TABLE).scan().to_arrow().to_pylist()
        )
        return found


@pytest.fixture(scope="module")
def served(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("rollout-traffic")
    settings = loop.settings.model_copy(
        update={"state_dir": folder / "state", "model_server_grpc_port": free_port()}
    )
    models = settings.models_dir / USE_CASE.model_name
    save_model(USE_CASE, -0.5, models / str(VERSION))
    save_model(USE_CASE, 0.5, models / str(CANDIDATE))
    for version, fault in ((NOT_A_NUMBER, "nan"), (REFUSES, "refuses"), (SLOW, "slow")):
        save_bad(fault, models / str(version))
    older = USE_CASE.model_copy(update={"inputs": USE_CASE.inputs[:-3]})
    save_model(older, 0.0, models / str(FEWER_INPUTS))
    (settings.state_dir / "feast").symlink_to(loop.settings.feast_dir)
    name = USE_CASE.model_name
    with model_server_process(settings, folder / "model_server.log"), ModelServer.of(settings) as server:
        plain = ServedModel(name, models, frozenset(range(VERSION, FEWER_INPUTS + 1)))
        server.reload(config_message({name: plain}), timeout=60)
        labelled = ServedModel(name, models, plain.versions, {CHAMPION: VERSION})
        server.reload(config_message({name: labelled}), timeout=60)
        # As warm-up requests do: the first of all takes longer than a canary may.
        for version in plain.versions:
            inputs = server.inputs(name, version)
            with suppress(ModelServerRefused):
                server.predict(USE_CASE, some_rows(USE_CASE), version=version, timeout=60, inputs=inputs)
        yield settings


@pytest.fixture
def rollout(served: Settings, tmp_path: Path) -> Iterator[Rollout]:
    settings = served.model_copy(update={"state_dir": tmp_path / "state"})
    settings.models_dir.mkdir(parents=True)
    (settings.state_dir / "feast").symlink_to(served.feast_dir)
    with (
        closing(Spool(settings.prediction_spool_dir)) as spool,
        closing(Spool(settings.outcome_spool_dir)) as outcomes,
        listening(gateway_app(settings, spool=spool, outcomes=outcomes)) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        yield Rollout(settings, client)


def test_a_shadow_gets_copies_and_no_client_sees_it(rollout: Rollout) -> None:
    rollout.route(shadow=CANDIDATE)
    answers = [rollout.ask(number).json() for number in range(20)]
    assert {answer["model"]["version"] for answer in answers} == {VERSION}
    assert {answer["variant"] for answer in answers} == {variants.CHAMPION}
    wait_until(lambda: len(rollout.kept()) == 40, seconds=20, what="copies are answered and kept")
    rows = rollout.kept()
    assert Counter(row["variant"] for row in rows) == {variants.CHAMPION: 20, variants.SHADOW: 20}
    pairs = {row["request_id"]: row for row in rows if row["variant"] == variants.SHADOW}
    for row in rows:
        pair = pairs[row["request_id"]]
        assert pair["version"] == CANDIDATE
        assert pair["features"] == row["features"]
        assert row["variant"] == variants.SHADOW or row["answer"] < pair["answer"]
        assert row["model_seconds"] > 0
    # Copies stop with the next request.
    rollout.route()
    rollout.ask(99)
    time.sleep(0.5)
    assert len(rollout.kept()) == 41


def test_where_clients_wait_a_shadow_gets_no_copies(served: Settings, tmp_path: Path) -> None:
    """With a quarter of four places taken, every request but the first one comes to a crowd."""
    settings = served.model_copy(update={"state_dir": tmp_path / "state"})
    settings.models_dir.mkdir(parents=True)
    (settings.state_dir / "feast").symlink_to(served.feast_dir)
    with (
        closing(Spool(settings.prediction_spool_dir)) as spool,
        listening(gateway_app(settings, spool=spool, most_in_flight=4)) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
        ThreadPoolExecutor(3) as pool,
    ):
        rollout = Rollout(settings, client)
        rollout.route(shadow=CANDIDATE)
        assert rollout.ask(0).status_code == 200
        wait_until(lambda: len(rollout.kept()) == 2, seconds=20, what="one that is alone is copied")
        answers = list(pool.map(rollout.ask, range(1, 61)))
        assert {answer.status_code for answer in answers} == {200}
        text = client.get("/metrics").text
        (left_out,) = re.findall(r"airloop_gateway_uncopied_requests_total\{.*\} (\S+)", text)
        assert float(left_out) > 0
        wait_until(
            lambda: len(rollout.kept()) == 2 * 61 - float(left_out), seconds=20, what="the rest is copied"
        )


def test_a_shadow_that_hangs_or_fails_costs_clients_nothing(rollout: Rollout) -> None:
    rollout.route(shadow=SLOW)
    assert {rollout.ask(number).status_code for number in range(30)} == {200}
    rollout.route(shadow=REFUSES)
    assert {rollout.ask(number).status_code for number in range(30, 60)} == {200}
    wait_until(
        lambda: any(row["error"] == variants.REFUSED for row in rollout.kept()),
        seconds=20,
        what="the refusals are kept",
    )
    assert {row["variant"] for row in rollout.kept() if row["error"]} == {variants.SHADOW}


@pytest.mark.parametrize(
    ("version", "error"),
    [(NOT_A_NUMBER, variants.NOT_FINITE), (REFUSES, variants.REFUSED), (SLOW, variants.LATE), (77, "down")],
)
def test_where_a_canary_fails_the_champion_answers(rollout: Rollout, version: int, error: str) -> None:
    rollout.route(split=Split(version=version, share=0.999, salt="s"))
    answers = [rollout.ask(number) for number in range(12)]
    assert {answer.status_code for answer in answers} == {200}
    found = Counter((answer.json()["model"]["version"], answer.json()["variant"]) for answer in answers)
    assert found[VERSION, variants.FALLBACK] >= 1
    assert all(0 < answer.json()["prediction"][USE_CASE.label.name] < 1 for answer in answers)
    rows = rollout.kept()
    failed = [row for row in rows if row["error"]]
    assert failed
    assert {(row["version"], row["variant"], row["error"]) for row in failed} == {
        (version, variants.CANARY, error)
    }
    assert [row["answer"] for row in failed] == [None] * len(failed)
    given = Counter(row["request_id"] for row in rows if row["error"] is None)
    assert given == {f"request-{number}": 1 for number in range(12)}


def test_a_canary_is_sticky_and_says_which_version_answered(rollout: Rollout) -> None:
    rollout.route(shadow=CANDIDATE, split=Split(version=CANDIDATE, share=0.5, salt="s"))
    first = {number: rollout.ask(number).json() for number in range(40)}
    again = {number: rollout.ask(number).json() for number in range(40)}
    versions = Counter(answer["model"]["version"] for answer in first.values())
    assert set(versions) == {VERSION, CANDIDATE}
    for number, answer in first.items():
        assert answer["model"] == again[number]["model"]
        canary = answer["model"]["version"] == CANDIDATE
        assert answer["variant"] == (variants.CANARY if canary else variants.CHAMPION)
    rollout.route(split=Split(version=CANDIDATE, share=0.5, salt="s", experiment="ab"))
    arms = {rollout.ask(number).json()["variant"] for number in range(40)}
    assert arms == {variants.CONTROL, variants.TREATMENT}
    status = rollout.client.get(f"/v1/{USE_CASE.name}").json()
    assert status["model"]["version"] == VERSION
    assert status["routing"]["split"]["experiment"] == "ab"


def test_a_version_of_an_older_spec_is_given_the_inputs_that_it_takes(rollout: Rollout) -> None:
    rollout.route(split=Split(version=FEWER_INPUTS, share=0.999, salt="s"))
    answer = rollout.ask(1).json()
    assert (answer["model"]["version"], answer["variant"]) == (FEWER_INPUTS, variants.CANARY)
    absent = {item.name for item in USE_CASE.inputs[-3:]}
    assert absent & set(answer["features"]) == set()
    assert absent & set(answer["missing_features"]) == set()


def test_outcomes_are_kept_before_they_are_confirmed_and_told_again_they_replace(rollout: Rollout) -> None:
    path = f"/v1/{USE_CASE.name}/feedback"
    told = {"outcomes": [{"request_id": "request-1", "label": 0}, {"request_id": "request-2", "label": 1}]}
    answer = rollout.client.post(path, json=told)
    assert (answer.status_code, answer.json()["kept"]) == (202, 2)
    rollout.client.post(path, json={"outcomes": [{"request_id": "request-1", "label": 1}]})
    assert land(rollout.settings, OUTCOMES).rows == 3
    rows = open_catalog(rollout.settings).load_table(outcome.TABLE).scan().to_arrow()
    labels = {row["request_id"]: row["label"] for row in outcome.latest(rows).to_pylist()}
    assert labels == {"request-1": 1.0, "request-2": 1.0}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ("[]", 400, ""),
        ("{", 400, ""),
        ("{}", 422, "outcomes"),
        ('{"outcomes": []}', 422, "outcomes"),
        ('{"outcomes": [{"request_id": "a b", "label": 1}]}', 422, "outcomes[0].request_id"),
        ('{"outcomes": [{"request_id": "a", "label": 2}]}', 422, "outcomes[0].label"),
        ('{"outcomes": [{"request_id": "a", "label": 1, "why": 1}]}', 422, "outcomes[0].why"),
        (
            '{"outcomes": [{"request_id": "a", "label": 1, "observed_at": "now"}]}',
            422,
            "outcomes[0].observed_at",
        ),
    ],
)
def test_outcomes_that_are_no_outcomes_are_refused_by_field(
    rollout: Rollout, body: str, status: int, field: str
) -> None:
    answer = rollout.client.post(f"/v1/{USE_CASE.name}/feedback", content=body)
    assert answer.status_code == status
    assert [item["field"] for item in answer.json()["error"]["fields"]] == [field]
    assert land(rollout.settings, OUTCOMES).rows == 0


def test_an_outcome_that_cannot_be_kept_is_not_confirmed(served: Settings, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the spool's folder should be")
    with (
        closing(Spool(blocked)) as outcomes,
        listening(gateway_app(served, outcomes=outcomes)) as url,
    ):
        told = {"outcomes": [{"request_id": "r", "label": 0}]}
        answer = httpx.post(f"{url}/v1/{USE_CASE.name}/feedback", json=told, trust_env=False)
        assert answer.status_code == 503
        assert answer.json()["error"]["type"] == "NotKept"
        assert json.loads(answer.headers["Retry-After"]) > 0
