"""The option files of TensorFlow Serving: monitoring, batching, TLS."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from serving.model_server.errors import ServingError
from serving.model_server.option_files import Batching, Tls, read_batching, read_prometheus_path, read_tls
from serving.model_server.settings import parse_settings
from tests.serving.model_server.clients import Client

PARAMETERS = """
max_batch_size { value: 64 }
batch_timeout_micros { value: 500 }
max_enqueued_batches { value: 7 }
num_batch_threads { value: 3 }
thread_pool_name { value: "shared" }
allowed_batch_sizes: 8
allowed_batch_sizes: 64
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "options.config"
        path.write_text(text, "utf-8")
        return path

    return write


def test_batching_parameters(written: Callable[[str], Path]) -> None:
    expected = Batching(
        max_batch_size=64,
        batch_timeout_seconds=0.0005,
        max_enqueued_batches=7,
        threads=3,
        thread_pool_name="shared",
        allowed_batch_sizes=(8, 64),
    )
    path = written(PARAMETERS)
    assert read_batching(path) == expected
    base = ["--model_base_path=/models", "--rest_api_port=8501"]
    flags = ["--enable_batching", f"--batching_parameters_file={path}"]
    assert parse_settings(base).batching is None
    assert parse_settings([*base, flags[0]]).batching == Batching()
    assert parse_settings([*base, *flags]).batching == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size { value: 0 }", "expected max_batch_size to be 1 or more, found 0"),
        ("batch_timeout_micros { value: -1 }", "expected batch_timeout_micros to be 0 or more, found -1"),
        ("max_batch_size { value: 4 } allowed_batch_sizes: 2", "to increase and end with 4, found [2]"),
        ("pad_variable_length_inputs: true", "pad_variable_length_inputs is not implemented"),
        ("batch: 3", "expected a text tensorflow.serving.BatchingParameters"),
    ],
)
def test_parameters_that_cannot_be(written: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(ServingError) as error:
        read_batching(written(text))
    assert message in error.value.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prometheus_config { enable: true }", "/monitoring/prometheus/metrics"),
        ('prometheus_config { enable: true path: "/m" }', "/m"),
        ("prometheus_config { enable: false }", None),
        ("", None),
    ],
)
def test_where_the_metrics_are(written: Callable[[str], Path], text: str, expected: str | None) -> None:
    assert read_prometheus_path(written(text)) == expected


def test_grpc_over_tls(
    tmp_path: Path, written: Callable[[str], Path], start_server: Callable[..., Client]
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "1",
                "-subj",
                "/CN=localhost",
            ),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    texts = {"server_key": key.read_text("utf-8"), "server_cert": certificate.read_text("utf-8")}
    lines = [f"{name}: {text!r}" for name, text in texts.items()]
    tls = read_tls(written("\n".join(lines)))
    assert tls == Tls(key.read_bytes(), certificate.read_bytes())
    client = start_server(tls=tls)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "none"
    port = client.grpc_port
    trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
    for channel, code in (
        (grpc.secure_channel(f"localhost:{port}", trusted), grpc.StatusCode.NOT_FOUND),
        (grpc.insecure_channel(f"localhost:{port}"), grpc.StatusCode.UNAVAILABLE),
    ):
        with channel, pytest.raises(grpc.RpcError) as error:
            model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=10)
        assert error.value.code() is code


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('server_key: "k"', "expected server_key and server_cert"),
        ('server_key: "k" server_cert: "c" client_verify: true', "expected custom_ca beside client_verify"),
    ],
)
def test_incomplete_tls(written: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(ServingError) as error:
        read_tls(written(text))
    assert message in error.value.message
