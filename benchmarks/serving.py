"""Benchmark: requests a second of the model server, beside a plain endpoint that calls the same SavedModel.

    make bench-serving        (or: python -m benchmarks.serving [--seconds 5])

One SavedModel of flight_delay's network, untrained: what it computes costs the same. Three sides, each asked
for one row at a time by 1 to 64 clients that each wait for their answer; the clients are a process of their
own, on the same processors:

- *plain*: `benchmarks.plain_endpoint`, a FastAPI endpoint.
- *grpc*: the embedded model server with the stack's flags, over gRPC, as the gateway asks it.
- *rest*: the same server over its REST interface.

"At equal p99" is read as: the plain endpoint where it answers most requests a second, and the model server
where it answers most with a p99 no longer than the plain one's there. Ends with one line of JSON; exits with
1 when the model server, over gRPC, answers less than twice as many.

Belongs here: the measure. Does not belong here: sending requests (`benchmarks.load`).
"""

from __future__ import annotations

import argparse
import base64
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from airloop.dotted import load
from airloop.settings import Settings, load_settings
from airloop.training import statistics
from airloop.training.calibration import IDENTITY
from airloop.training.network import Network
from airloop.training.served_model import SIGNATURE, export
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from benchmarks.load import Load, Measured
from benchmarks.training import synthetic_rows
from serving.model_server_client import predict_request

LEAST_RATIO: Final = 2.0
CLIENTS: Final = (1, 2, 4, 8, 16, 32, 64)
PREDICT: Final = "/tensorflow.serving.PredictionService/Predict"
START_SECONDS: Final = 120.0


def save_model(spec: UseCase, folder: Path) -> dict[str, list[Any]]:
    """Export an untrained network of `spec` to `folder`; returns a row of its inputs."""
    rows = synthetic_rows(spec, 5_000, spec.training.seed)
    bins = int(spec.training.parameters["quantile_bins"])
    facts = statistics.compute(spec, rows, bins=bins)
    network: Network = load(spec.training.model_builder)(spec, facts, spec.training.parameters)
    export(network.served(IDENTITY), spec, folder)
    row = rows.at(np.array([0])).columns
    return {item.name: row[item.name].tolist() for item in spec.inputs}


@contextmanager
def running(settings: Settings, port: int, *arguments: str) -> Iterator[None]:
    """A Python program that listens on `port`, for a `with` block."""
    process = subprocess.Popen([sys.executable, "-m", *arguments], cwd=settings.repository)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{arguments[0]} did not start; see its output above") from None
                time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def send(request: Load) -> Measured:
    """`request`'s load, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.load", request.model_dump_json()]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Measured.model_validate_json(done.stdout.splitlines()[-1])


def measure(settings: Settings, spec: UseCase, seconds: float, folder: Path) -> dict[str, list[Measured]]:
    """Every side at every number of clients, the sides in turns."""
    row = save_model(spec, folder / spec.model_name / "1")
    plain_port, grpc_port, rest_port = free_port(), free_port(), free_port()
    serving = settings.repository / "serving"
    server = (
        *("serving.model_server", "--port", str(grpc_port), "--rest_api_port", str(rest_port)),
        *("--model_name", spec.model_name, "--model_base_path", str(folder / spec.model_name)),
        *("--enable_batching", f"--batching_parameters_file={serving / 'batching.config'}"),
        "--grpc_max_threads=64",
        *("--tensorflow_intra_op_parallelism=1", "--tensorflow_inter_op_parallelism=1"),
    )
    plain = ("benchmarks.plain_endpoint", str(folder / spec.model_name / "1"), str(plain_port))
    values = {name: [None if item != item else item for item in found] for name, found in row.items()}
    message = predict_request(spec, row, version=1).SerializeToString()
    loads = {
        "plain": ("http", plain_port, "/predict", json.dumps({"inputs": values}).encode()),
        "grpc": ("grpc", grpc_port, PREDICT, message),
        "rest": (
            *("http", rest_port, f"/v1/models/{spec.model_name}:predict"),
            # TensorFlow Serving takes NaN for a number that is missing, and no null.
            json.dumps({"signature_name": SIGNATURE, "inputs": row}).encode(),
        ),
    }
    found: dict[str, list[Measured]] = {side: [] for side in loads}
    with running(settings, plain_port, *plain), running(settings, grpc_port, *server):
        for clients in CLIENTS:
            for side, (protocol, port, path, body) in loads.items():
                request = Load(
                    protocol=protocol,  # type: ignore[arg-type]
                    address=f"127.0.0.1:{port}",
                    path=path,
                    request=base64.b64encode(body).decode(),
                    clients=clients,
                    seconds=seconds,
                )
                one = send(request)
                found[side].append(one)
                print(
                    f"{side:<6}{clients:4} clients {one.requests_per_second:8.1f} requests a second, "
                    f"p50 {one.p50_milliseconds:7.2f} ms, p99 {one.p99_milliseconds:7.2f} ms, "
                    f"{one.failed} failed",
                    flush=True,
                )
    return found


def summary(found: dict[str, list[Measured]]) -> dict[str, Any]:
    """The sides at equal p99, and how many times the plain endpoint's requests the model server answers."""
    plain = max(found["plain"], key=lambda one: one.requests_per_second)
    figures: dict[str, Any] = {"plain": plain.model_dump()}
    for side in ("grpc", "rest"):
        quick = [one for one in found[side] if one.p99_milliseconds <= plain.p99_milliseconds]
        best = max(quick, key=lambda one: one.requests_per_second, default=None)
        figures[side] = best and best.model_dump()
        rate = best.requests_per_second if best else 0.0
        figures[f"{side}_ratio"] = round(rate / plain.requests_per_second, 2)
    figures["failed"] = sum(one.failed for side in found.values() for one in side)
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Requests a second of the model server.")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured seconds of each side and step")
    arguments = parser.parse_args(argv)
    settings, spec = load_settings(), use_case("flight_delay")
    settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-serving-", dir=settings.scratch_dir) as folder:
        figures = summary(measure(settings, spec, arguments.seconds, Path(folder)))
    print(json.dumps(figures))
    return 0 if figures["grpc_ratio"] >= LEAST_RATIO and not figures["failed"] else 1


if __name__ == "__main__":
    sys.exit(main())
