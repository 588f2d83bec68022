"""The real parts that the rollout's and the gateway's tests run against, each as small as it can be.

Belongs here: a tiny SavedModel with a use case's signature, its MLflow run, free ports and processes.
Does not belong here: fixtures (the conftest modules) and tests.
"""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf

from airloop import registry
from airloop.prediction_request import InputValue, assemble_inputs, example_request
from airloop.settings import Settings, environment_of
from airloop.signed_models import sign_run
from airloop.use_cases.spec import UseCase
from airloop.use_cases.target import Binary, Multiclass, Quantiles
from serving.model_server.option_files import Tls
from serving.model_server.server import ModelServer as EmbeddedServer
from serving.model_server.settings import Settings as ServerSettings

REPOSITORY = Path(__file__).resolve().parents[3]
ROWS = 8


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Return as soon as `condition` holds; fail the test when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)


@contextmanager
def process(arguments: Sequence[str], settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process of the repository with `settings` in its environment; ended on leaving."""
    path = f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY}"
    with log.open("wb") as output:
        started = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=REPOSITORY,
            env={**os.environ, **environment_of(settings), "PYTHONPATH": path},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextmanager
def model_server_process(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The embedded model server, answering on the settings' gRPC port."""
    arguments = [
        "-m",
        "serving.model_server",
        f"--port={settings.model_server_grpc_port}",
        f"--model_config_file={settings.model_config_file}",
        "--allow_version_labels_for_unavailable_models",
    ]
    with process(arguments, settings, log) as started:
        with grpc.insecure_channel(settings.model_server_address) as channel:
            grpc.channel_ready_future(channel).result(90)
        yield started


class Replica:
    """One of several model servers, in this process: it starts from a config file, and can be down."""

    def __init__(self, config_file: Path, *, address: str = "127.0.0.1", tls: Tls | None = None) -> None:
        self.config_file = config_file
        self._address = address
        self._tls = tls
        self._port = free_port()
        self._server: EmbeddedServer | None = None

    @property
    def place(self) -> str:
        """Its address and port, the same whenever it is up."""
        return f"{self._address}:{self._port}"

    def up(self, config_file: Path | None = None) -> None:
        """Start from the config file, or from another one; returns once it answers."""
        self._server = EmbeddedServer(
            ServerSettings(
                grpc_port=self._port,
                bind_address=self._address,
                model_config_file=config_file or self.config_file,
                allow_version_labels_for_unavailable_models=True,
                tls=self._tls,
            )
        )
        self._server.start()

    def down(self) -> None:
        """End it, once what it was asked is answered."""
        if self._server is not None:
            self._server.stop(grace=5.0)
        self._server = None


class TinyModel(tf.Module):
    """A sum over every input, so that a wrong, swapped or dropped input shows, as an answer of its kind."""

    def __init__(self, spec: UseCase, bias: float) -> None:
        super().__init__()
        self._spec = spec
        self._bias = tf.Variable(bias, dtype=tf.float32)

    def answer(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """An answer for each row, by the output's name."""
        logit = self._bias + 0.0
        for position, item in enumerate(self._spec.inputs):
            value = inputs[item.name]
            if item.type == "string":
                number = tf.cast(tf.strings.to_hash_bucket_fast(value, 997), tf.float32) / 997.0
            elif item.type == "double":
                number = tf.where(tf.math.is_nan(value), -1.0, tf.math.tanh(value / 50.0))
            else:
                number = tf.cast(tf.math.floormod(value, 86_400), tf.float32) / 86_400.0
            logit += number * (0.05 + 0.01 * position)
        target = self._spec.label.target
        match target:
            case Binary():
                answers = tf.math.sigmoid(logit)
            case Multiclass(classes=classes):
                answers = tf.nn.softmax(logit[:, None] * tf.linspace(1.0, -1.0, len(classes)))
            case Quantiles(levels=levels):
                answers = logit[:, None] + tf.constant(levels)
            case _:
                answers = logit
        return {target.output: answers}


def save_model(spec: UseCase, bias: float, folder: Path) -> Path:
    """A SavedModel of `TinyModel` with the contract's serving signature."""
    types = {"string": tf.string, "double": tf.float32, "instant": tf.int64, "local_time": tf.int64}
    model = TinyModel(spec, bias)
    signature = {item.name: tf.TensorSpec([None], types[item.type], name=item.name) for item in spec.inputs}
    model.call = tf.function(model.answer)
    tf.saved_model.save(
        model, str(folder), signatures={"serving_default": model.call.get_concrete_function(**signature)}
    )
    return folder


def answer_directly(folder: Path, spec: UseCase, columns: Mapping[str, Sequence[InputValue]]) -> list[Any]:
    """The SavedModel's answers, without any server."""
    types = {"string": tf.string, "double": tf.float32, "instant": tf.int64, "local_time": tf.int64}
    loaded = tf.saved_model.load(str(folder))
    inputs = {item.name: tf.constant(list(columns[item.name]), types[item.type]) for item in spec.inputs}
    (answers,) = loaded.signatures["serving_default"](**inputs).values()
    found: list[Any] = answers.numpy().astype(float).tolist()
    return found


def some_rows(spec: UseCase) -> dict[str, list[InputValue]]:
    """`ROWS` rows of model inputs, some of them missing."""
    base = assemble_inputs(spec, example_request(spec), {})
    columns: dict[str, list[InputValue]] = {}
    for position, item in enumerate(spec.inputs):
        value = base[item.name]
        if item.type == "double":
            columns[item.name] = [
                math.nan if (row + position) % 3 == 0 else float(row * position) for row in range(ROWS)
            ]
        elif isinstance(value, str):
            columns[item.name] = [value if row % 2 else f"{value}{row}" for row in range(ROWS)]
        else:
            columns[item.name] = [int(value) + 600 * row for row in range(ROWS)]
    return columns


def register(
    settings: Settings,
    spec: UseCase,
    model: Path,
    artifacts: Path,
    *,
    shift: float = 0.0,
    broken: bool = False,
) -> int:
    """Sign and register `model` as training would, with recorded answers that are `shift` away from its own.

    A `broken` one cannot be loaded: its graph is no graph.
    """
    columns = some_rows(spec)
    recorded = (np.array(answer_directly(model, spec, columns)) + shift).tolist()
    plain = {
        name: [None if isinstance(value, float) and math.isnan(value) else value for value in values]
        for name, values in columns.items()
    }
    client = registry.open_registry(settings)
    found = client.get_experiment_by_name(spec.name)
    experiment = (
        found.experiment_id
        if found
        else client.create_experiment(spec.name, artifact_location=(artifacts / spec.name).as_uri())
    )
    run = client.create_run(experiment)
    run_id: str = run.info.run_id
    client.log_artifacts(run_id, str(model), registry.SAVED_MODEL)
    if broken:
        client.log_text(run_id, "not a model", f"{registry.SAVED_MODEL}/saved_model.pb")
    recording = {"inputs": plain, spec.label.target.output: recorded}
    client.log_text(run_id, json.dumps(recording), registry.RECORDED_REQUESTS)
    source = f"{run.info.artifact_uri}/{registry.SAVED_MODEL}"
    version = registry.register_version(
        settings,
        name=spec.model_name,
        run_id=run_id,
        source=source,
        tags={
            "verdict": "accepted",
            registry.SIGNATURE_DIGEST: sign_run(settings, spec.model_name, run_id),
        },
    )
    registry.set_alias(settings, spec.model_name, registry.CHALLENGER, version)
    return version
