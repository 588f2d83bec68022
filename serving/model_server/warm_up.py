"""Warm-up: a version answers the requests that it brings before anyone else's.

Belongs here: reading `assets.extra/tf_serving_warmup_requests` and running what is in it. Does not belong
here: writing that file (training does), or when a version is loaded (`manager`).

TensorFlow compiles a function's graph at its first call, which takes seconds for a large one; without this
the first request after a rollout would wait that long.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from serving.model_server import inference
from serving.model_server.errors import Code, ServingError
from serving.model_server.servable import Servable

_log = logging.getLogger(__name__)

FILE: Final = Path("assets.extra", "tf_serving_warmup_requests")
MOST_RECORDS: Final = 1000
"""TensorFlow Serving's limit: warm-up delays every load."""

_OPERATION: Final = re.compile(r"^\{\{.*?\}\} | \[Op:\w+\].*$", re.DOTALL)
"""Which operation of TensorFlow's reader failed, around what its fault is."""


def warm_up(servable: Servable, path: Path, iterations: int = 1) -> int:
    """Run each request recorded in the version folder `path`, `iterations` times; returns how many there are.

    Raises ServingError for a file that is not one of `PredictionLog`s, holds too many or another kind of
    request, and when the model refuses one: a version that cannot answer what it was recorded to answer is
    not to be served.
    """
    file = path / FILE
    if not file.exists():
        return 0
    began = time.monotonic_ns()
    records, status = 0, "OK"
    try:
        for log in _read(file):
            for _ in range(iterations):
                _run(servable, log)
            records += 1
            if records > MOST_RECORDS:
                raise ServingError(
                    Code.INVALID_ARGUMENT,
                    f"Number of warmup records exceeds the maximum ({MOST_RECORDS}) at {file}",
                )
    except ServingError as error:
        status = str(error)
        raise
    finally:
        servable.metrics.warmed_up(str(path), status, records, time.monotonic_ns() - began)
    _log.info("Warmed up version %d of model %s: %d requests", servable.version, servable.name, records)
    return records


def _read(file: Path) -> Iterator[prediction_log_pb2.PredictionLog]:
    try:
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog()
            try:
                log.ParseFromString(record)
            except DecodeError as error:
                raise ServingError(
                    Code.INVALID_ARGUMENT, f"Failed to parse warmup record {record[:64]!r} from {file}"
                ) from error
            yield log
    except tf.errors.DataLossError as error:
        fault = _OPERATION.sub("", error.message or "")
        raise ServingError(
            Code.DATA_LOSS, f"{fault}. Please verify your warmup data is in TFRecord format."
        ) from error


def _run(servable: Servable, log: prediction_log_pb2.PredictionLog) -> None:
    match log.WhichOneof("log_type"):
        case "predict_log":
            inference.predict(servable, log.predict_log.request)
        case "classify_log":
            inference.classify(servable, log.classify_log.request)
        case "regress_log":
            inference.regress(servable, log.regress_log.request)
        case None:
            return
        case other:
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {other}")
