"""What a training run says about its model beside the model: schema, example, environment and cost.

Belongs here: MLflow's own `MLmodel` file, from which its UI shows a version's schema, the environment's lock,
and what the training cost. Does not belong here: what leads to data and code (`tracking`), measures of
quality (`evaluate`), or writing the model (`served_model`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import tensorflow as tf
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, Schema, TensorSpec

from airloop.training.devices import Devices
from airloop.training.examples import Columns
from airloop.training.provenance import UNKNOWN
from airloop.training.served_model import input_signature
from airloop.training.tracking import TRAINING_PRICE
from airloop.use_cases.spec import UseCase

log = logging.getLogger(__name__)

MODEL_FILE: Final = "MLmodel"
INPUT_EXAMPLE: Final = "input_example.json"
"""Both beside the SavedModel's own files, where MLflow looks for them; model servers ignore them."""
ENVIRONMENT_LOCK: Final = "training.lock"
"""Artifact, and file in `requirements/`, with the version and hash of every package that training uses."""
ENVIRONMENT_LOCK_DIGEST: Final = "airloop.environment_lock_sha256"
"""Tag of a run: the lock's SHA-256, or `unknown` where the code came without its locks."""
DEVICE_KIND: Final = "airloop.device_kind"


def write_model_file(saved_model: Path, use_case: UseCase, run_id: str, example: Columns) -> None:
    """Write `MLmodel` and an input example into the folder of a SavedModel.

    The example is the first row of `example`, NaN as null. `mlflow.tensorflow.load_model` can load the folder
    then, and MLflow's page of a version that was registered from it shows the schema.
    """
    described = Model(
        run_id=run_id,
        artifact_path=saved_model.name,
        signature=schema_of(use_case),
        saved_input_example_info={"artifact_path": INPUT_EXAMPLE, "type": "ndarray"},
    )
    described.add_flavor("tensorflow", saved_model_dir=".", model_type="tf2-module")
    described.save(str(saved_model / MODEL_FILE))
    row = {item.name: _without_nan(example[item.name][:1]) for item in use_case.inputs}
    (saved_model / INPUT_EXAMPLE).write_text(json.dumps(row, allow_nan=False), encoding="utf-8")


def schema_of(use_case: UseCase) -> ModelSignature:
    """The serving signature in MLflow's terms: named vectors of length batch, to answers."""
    target = use_case.label.target
    wide = (len(target.answers),) if target.is_wide else ()
    inputs: list[ColSpec | TensorSpec] = [
        TensorSpec(_type_of(spec.dtype), (-1,), name) for name, spec in input_signature(use_case).items()
    ]
    return ModelSignature(
        inputs=Schema(inputs),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *wide), target.output)]),
    )


def write_environment_lock(folder: Path, repository: Path) -> str:
    """Copy the lock of the training environment to `folder`; its SHA-256, or `UNKNOWN` without one."""
    lock = repository / "requirements" / ENVIRONMENT_LOCK
    if not lock.is_file():
        log.warning("no %s: the run does not say which packages trained it", lock)
        return UNKNOWN
    content = lock.read_bytes()
    (folder / ENVIRONMENT_LOCK).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


class Cost(NamedTuple):
    """What a training took, from its first row to its last artifact; time before a restart is not counted."""

    seconds: float
    device_kind: str
    devices: int
    """Devices that shared each batch, over all workers."""
    price: float | None
    """In the deployment's currency; None where it has no price."""

    @property
    def metrics(self) -> dict[str, float]:
        """As the run logs it."""
        measured = {"training_seconds": self.seconds, "training_devices": float(self.devices)}
        return measured if self.price is None else {**measured, TRAINING_PRICE: self.price}


def cost_of(seconds: float, devices: Devices, price_per_hour: float | None) -> Cost:
    """The cost of `seconds` of wall clock on `devices`, at a price for all their machines together."""
    price = None if price_per_hour is None else seconds / 3600 * price_per_hour
    return Cost(seconds, _kind_of(devices), devices.replicas, price)


def _kind_of(devices: Devices) -> str:
    if isinstance(devices.strategy, tf.distribute.TPUStrategy):
        return "TPU"
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        return str(details.get("device_name", "GPU"))
    return "CPU"


def _type_of(dtype: tf.DType) -> np.dtype:
    return np.dtype(str) if dtype == tf.string else np.dtype(dtype.as_numpy_dtype)


def _without_nan(values: np.ndarray) -> list[str | int | float | None]:
    return [None if value != value else value for value in values.tolist()]
