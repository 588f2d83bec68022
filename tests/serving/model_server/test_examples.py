"""Classify and Regress: signatures that take `tf.train.Example`s."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, regression_pb2

from tests.serving.model_server.clients import Client, config
from tests.serving.model_server.models import publish, save_examples, save_regressor


@pytest.fixture(scope="module")
def saved_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    save_examples(folder / "examples")
    save_regressor(folder / "plain", 1.0)
    return folder


@pytest.fixture
def client(saved_examples: Path, tmp_path: Path, start_server: Callable[..., Client]) -> Client:
    for name in ("examples", "plain"):
        publish(saved_examples / name, tmp_path / name, 7)
    started = start_server()
    started.reload(config(*((name, tmp_path / name, {}) for name in ("examples", "plain"))))
    return started


def example(x: float) -> tf.train.Example:
    feature = tf.train.Feature(float_list=tf.train.FloatList(value=[x]))
    return tf.train.Example(features=tf.train.Features(feature={"x": feature}))


def classification(*values: float, model: str = "examples", signature: str = "") -> Any:
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.input.example_list.examples.extend(example(value) for value in values)
    return request


def regression(*values: float, signature: str = "regress") -> Any:
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "examples"
    request.model_spec.signature_name = signature
    request.input.example_list.examples.extend(example(value) for value in values)
    return request


def test_each_example_is_classified(client: Client) -> None:
    answer = client.prediction.Classify(classification(0.25, 0.75), timeout=20)
    assert answer.model_spec.version.value == 7
    assert answer.model_spec.signature_name == "serving_default"
    found = [[(c.label, c.score) for c in item.classes] for item in answer.result.classifications]
    assert found == [[("late", 0.25), ("on time", 0.75)], [("late", 0.75), ("on time", 0.25)]]


def test_each_example_gets_a_number(client: Client) -> None:
    answer = client.prediction.Regress(regression(1.5, 2.0), timeout=20)
    assert [item.value for item in answer.result.regressions] == [15.0, 20.0]


def test_a_context_is_part_of_every_example(client: Client) -> None:
    request = regression()
    request.input.Clear()
    request.input.example_list_with_context.context.CopyFrom(example(3.0))
    request.input.example_list_with_context.examples.extend([tf.train.Example(), example(4.0)])
    answer = client.prediction.Regress(request, timeout=20)
    assert [item.value for item in answer.result.regressions] == [30.0, 40.0]


@pytest.mark.parametrize(
    ("method", "request_", "message"),
    [
        ("Classify", classification(), "Input is empty."),
        ("Classify", classification(1, signature="gone"), "No signature was found with the name: gone"),
        ("Classify", classification(1, model="plain"), "No classification inputs found in SignatureDef"),
        ("Classify", classification(1, signature="regress"), 'at least one of "classes" or "scores"'),
        ("Regress", regression(1, signature="serving_default"), "Expected one output Tensor."),
        ("Regress", regression(1, signature="square"), "to be either [batch_size] or [batch_size, 1]"),
    ],
)
def test_what_does_not_fit_is_refused(client: Client, method: str, request_: Any, message: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        getattr(client.prediction, method)(request_, timeout=20)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in error.value.details()
