"""What the registry says of a model: schema, example, environment, cost, and what it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import mlflow.tensorflow
import numpy as np
import pytest
import tensorflow as tf
from mlflow.models import Model

from airloop.references import RegisteredModel
from airloop.registry import (
    CHALLENGER,
    RECORDED_REQUESTS,
    SAVED_MODEL,
    SIGNATURE_DIGEST,
    download_artifacts,
    drop_alias,
    open_registry,
    tags_of,
)
from airloop.settings import REPOSITORY
from airloop.signed_models import download_verified
from airloop.training.devices import Devices
from airloop.training.model_metadata import cost_of, schema_of, write_environment_lock, write_model_file
from airloop.training.register import register
from tests.training.conftest import COMMIT, Trained


@pytest.fixture(scope="module")
def folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The candidate's SavedModel as MLflow has it."""
    destination = tmp_path_factory.mktemp("model")
    return download_artifacts(trained.settings, trained.candidate.run_id, SAVED_MODEL, destination)


@pytest.fixture
def registered(trained: Trained) -> Iterator[RegisteredModel]:
    yield register(trained.settings, trained.spec, trained.evaluated)
    drop_alias(trained.settings, "planted", CHALLENGER)


def test_the_schema_is_the_serving_signature(trained: Trained, folder: Path) -> None:
    signature = Model.load(str(folder)).signature
    assert signature == schema_of(trained.spec)
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    found = {name: spec.dtype for name, spec in served.structured_input_signature[1].items()}
    said = {spec.name: tf.as_dtype(spec.type) for spec in signature.inputs}
    assert said == found
    assert [(spec.name, spec.shape) for spec in signature.outputs] == [("probability", (-1,))]


def test_the_example_is_a_recorded_request_that_the_model_answers_as_recorded(
    trained: Trained, folder: Path, tmp_path: Path
) -> None:
    example = Model.load(str(folder)).load_input_example(str(folder))
    path = download_artifacts(trained.settings, trained.candidate.run_id, RECORDED_REQUESTS, tmp_path)
    recorded = json.loads(path.read_text())
    assert {name: values.tolist() for name, values in example.items()} == {
        name: [values[0]] if values[0] is not None else [pytest.approx(np.nan, nan_ok=True)]
        for name, values in recorded["inputs"].items()
    }
    # MLflow's own way of loading it, from the schema's types.
    model = mlflow.tensorflow.load_model(str(folder))
    types = {spec.name: tf.as_dtype(spec.type) for spec in schema_of(trained.spec).inputs}
    batch = {name: tf.constant(values.tolist(), types[name]) for name, values in example.items()}
    answer = model.signatures["serving_default"](**batch)["probability"].numpy()
    assert answer == pytest.approx(recorded["probability"][:1], abs=1e-6)


def test_a_missing_number_is_null_in_the_example_and_nan_for_mlflow(trained: Trained, tmp_path: Path) -> None:
    row = {
        item.name: np.array(["red"] if item.type == "string" else [7], dtype=object)
        for item in trained.spec.inputs
    }
    row["heat"] = np.array([np.nan, 1.0])
    write_model_file(tmp_path, trained.spec, "run", row)
    assert json.loads((tmp_path / "input_example.json").read_text())["heat"] == [None]
    example = Model.load(str(tmp_path)).load_input_example(str(tmp_path))
    assert np.isnan(example["heat"]).tolist() == [True]


def test_the_run_has_the_lock_of_its_environment_and_what_it_cost(trained: Trained, tmp_path: Path) -> None:
    run = open_registry(trained.settings).get_run(trained.candidate.run_id)
    lock = download_artifacts(trained.settings, run.info.run_id, "training.lock", tmp_path).read_bytes()
    assert b"tensorflow==" in lock
    digest = hashlib.sha256(lock).hexdigest()
    assert run.data.tags["airloop.environment_lock_sha256"] == digest
    assert run.data.tags["airloop.feature_service"] == trained.spec.feature_service
    assert run.data.tags["airloop.device_kind"]
    assert run.data.metrics["training_devices"] == 1
    assert run.data.metrics["training_seconds"] > 0
    assert "training_price" not in run.data.metrics


def test_a_price_follows_from_the_time_and_only_from_a_price_per_hour() -> None:
    devices = Devices(tf.distribute.get_strategy())
    cost = cost_of(1800.0, devices, 3.0)
    assert cost.metrics == {"training_seconds": 1800.0, "training_devices": 1.0, "training_price": 1.5}
    assert cost_of(1800.0, devices, 0.0).price == 0.0
    assert cost_of(1800.0, devices, None).price is None


def test_code_without_its_locks_says_so(tmp_path: Path) -> None:
    assert write_environment_lock(tmp_path, tmp_path) == "unknown"
    assert list(tmp_path.iterdir()) == []
    assert len(write_environment_lock(tmp_path, REPOSITORY)) == 64


def test_the_version_says_what_it_came_from_and_what_signs_it(
    trained: Trained, registered: RegisteredModel, tmp_path: Path
) -> None:
    tags = tags_of(trained.settings, "planted", registered.version)
    assert tags["feature_service"] == trained.spec.feature_service
    assert tags["code_commit"] == COMMIT
    assert tags["training_set"] == trained.training_set.tag
    assert tags["snapshot_id"] == str(trained.training_set.snapshot_id)
    assert tags["verdict_uri"] == trained.evaluated.verdict_uri
    client = open_registry(trained.settings)
    signature = client.download_artifacts(registered.run_id, "saved_model.sig", str(tmp_path))
    assert tags[SIGNATURE_DIGEST] == hashlib.sha256(Path(signature).read_bytes()).hexdigest()
    assert register(trained.settings, trained.spec, trained.evaluated) == registered
    assert tags_of(trained.settings, "planted", registered.version) == tags
    verified = download_verified(trained.settings, "planted", registered.version, tmp_path / "verified")
    assert (verified / SAVED_MODEL / "MLmodel").is_file()


def test_mlflows_page_of_the_version_finds_the_schema_where_it_looks(
    trained: Trained, registered: RegisteredModel, tmp_path: Path
) -> None:
    """The page asks the server for `MLmodel` below the version's source."""
    source = open_registry(trained.settings).get_model_version("planted", str(registered.version)).source
    text = (Path(source.removeprefix("file://")) / "MLmodel").read_text()
    assert "signature:" in text
    assert trained.candidate.run_id in text
