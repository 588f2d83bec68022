"""A version answers the requests that it brings before it serves, or it does not serve."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2, prediction_log_pb2

from serving.model_server import warm_up
from tests.serving.model_server.clients import Client, config
from tests.serving.model_server.models import publish

METRICS = "/metrics"


def a_request(inputs: dict[str, object]) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = "delay"
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    return log


GOOD = a_request({"x": np.zeros((2, 4), np.float32)})
BAD = a_request({"z": np.zeros((2, 4), np.float32)})
SESSION = prediction_log_pb2.PredictionLog(session_run_log=prediction_log_pb2.SessionRunLog())


def write(version: Path, records: Iterable[bytes]) -> None:
    file = version / warm_up.FILE
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)


@pytest.fixture
def version(saved: dict[str, Path], tmp_path: Path) -> Path:
    publish(saved["bias1"], tmp_path / "delay", 1)
    return tmp_path / "delay" / "1"


def load(client: Client, version: Path) -> None:
    client.reload(config(("delay", version.parent, {})))


def refusal(client: Client, version: Path) -> str:
    """Why the version does not serve."""
    with pytest.raises(grpc.RpcError, match="1 model\\(s\\) did not become available"):
        load(client, version)
    (status,) = client.status("delay").model_version_status
    assert status.state == get_model_status_pb2.ModelVersionStatus.END
    return str(status.status.error_message)


def test_recorded_requests_are_run_before_the_version_serves(
    version: Path, start_server: Callable[..., Client]
) -> None:
    write(version, [GOOD.SerializeToString()] * 5)
    client = start_server(prometheus_path=METRICS, warm_up_iterations=2)
    load(client, version)
    assert client.states("delay") == {1: "AVAILABLE"}
    page = client.text(METRICS)
    where = f'model_path="{version}",status="OK"'
    assert f":tensorflow:serving:model_warmup_records_read{{{where}}} 5" in page
    assert f":tensorflow:serving:model_warmup_latency_count{{{where}}} 1" in page
    assert (
        ':tensorflow:serving:runtime_latency_count{model_name="delay",API="Predict",runtime="TF1"} 10' in page
    )


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([BAD.SerializeToString()], "input size does not match signature"),
        ([b"\xff\xff no message"], "Failed to parse warmup record"),
        ([SESSION.SerializeToString()], "Unsupported log_type for warmup: session_run_log"),
        ([GOOD.SerializeToString()] * (warm_up.MOST_RECORDS + 1), "exceeds the maximum (1000)"),
    ],
)
def test_a_version_that_cannot_warm_up_does_not_serve(
    version: Path, start_server: Callable[..., Client], records: list[bytes], message: str
) -> None:
    write(version, records)
    assert message in refusal(start_server(), version)


def test_a_file_of_something_else_is_told(version: Path, start_server: Callable[..., Client]) -> None:
    write(version, [])
    (version / warm_up.FILE).write_bytes(b"this is no TFRecord file at all")
    found = refusal(start_server(), version)
    assert "corrupted record at 0 (Is this even a TFRecord file?)" in found
    assert found.endswith("Please verify your warmup data is in TFRecord format.")
    assert "{{" not in found


def test_warm_up_can_be_left_out(version: Path, start_server: Callable[..., Client]) -> None:
    write(version, [BAD.SerializeToString()])
    client = start_server(warm_up=False)
    load(client, version)
    assert client.states("delay") == {1: "AVAILABLE"}
