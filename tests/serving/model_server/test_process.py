"""The real process: it starts, serves, tells its errors in one line, and stops without losing a request."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import predict_pb2

from serving.model_server.errors import ServingError
from serving.model_server.server import ModelServer
from serving.model_server.settings import Settings
from tests.serving.model_server.clients import Client, eventually
from tests.serving.model_server.models import publish

_ROOT = Path(__file__).parents[3]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "serving.model_server", *flags]


def test_sigterm_finishes_the_requests_under_way_and_exits_0(saved: dict[str, Path], tmp_path: Path) -> None:
    publish(saved["everything"], tmp_path / "everything", 1)
    grpc_port, rest_port = _free_port(), _free_port()
    flags = (
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        "--model_name=everything",
        f"--model_base_path={tmp_path / 'everything'}",
    )
    process = subprocess.Popen(_command(*flags), cwd=_ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    # Reading the log to its end keeps the process from blocking on a full pipe.
    ready, log = threading.Event(), []

    def follow() -> None:
        for line in process.stderr or ():
            log.append(line)
            if "REST on" in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=follow)
    reader.start()
    try:
        assert ready.wait(120), "".join(log)
        assert process.poll() is None, "".join(log)
        client = Client(grpc_port, rest_port)
        client.predict("everything", {"wait": np.zeros(1, np.float32)}, signature="slow")
        outcomes: list[object] = []

        def over_grpc() -> None:
            response = client.predict("everything", {"wait": np.ones(1, np.float32)}, signature="slow")
            outcomes.append(list(response.outputs["done"].float_val))

        def over_rest() -> None:
            body = {"signature_name": "slow", "inputs": [1.0]}
            outcomes.append(client.post("/v1/models/everything:predict", body)[1]["outputs"])

        requests = [threading.Thread(target=call) for call in (over_grpc, over_rest)]
        for request in requests:
            request.start()
        threading.Event().wait(0.3)
        assert not outcomes, "the slow requests ended before the signal; make them slower"
        process.send_signal(signal.SIGTERM)
        for request in requests:
            request.join()
        assert process.wait(20) == 0
        assert outcomes == [[1.0], [1.0]]
        with pytest.raises(grpc.RpcError) as refused:
            client.prediction.Predict(predict_pb2.PredictRequest(), timeout=5)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        client.channel.close()
    finally:
        process.kill()
        process.wait()
        reader.join()


def test_a_malformed_configuration_ends_the_process_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text("model_config_list { config { nme: 'delay' } }")
    ended = subprocess.run(
        _command(f"--model_config_file={file}"),
        check=False,
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"model server: Invalid protobuf file {file}")
    assert 'has no field named "nme"' in line


@pytest.mark.parametrize("protocol", ["grpc_port", "rest_port"])
def test_a_port_that_is_taken_is_one_clear_error(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = ModelServer(Settings(**{protocol: port}))
        with pytest.raises(ServingError, match=f"Cannot listen on 127.0.0.1:{port}"):
            server.start()


def test_connections_are_made_anew_when_they_are_of_the_age_that_was_asked_for(
    start_server: Callable[..., Client],
) -> None:
    client = start_server(grpc_channel_arguments=(("grpc.max_connection_age_ms", 200),))
    seen: list[grpc.ChannelConnectivity] = []
    client.channel.subscribe(seen.append, try_to_connect=True)
    assert eventually(lambda: grpc.ChannelConnectivity.READY in seen)
    assert eventually(lambda: seen[-1] is grpc.ChannelConnectivity.IDLE)
