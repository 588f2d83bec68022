"""The requests that a model server answers before it lets a version serve, written beside the SavedModel.

Belongs here: TensorFlow Serving's file of them. Does not belong here: running them (the model server does),
or the requests whose answers a rollout compares (`served_model.recorded_requests`).

See https://www.tensorflow.org/tfx/serving/saved_model_warmup for the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from airloop.training.examples import Columns
from airloop.training.served_model import SIGNATURE, input_signature
from airloop.use_cases.spec import UseCase

FILE: Final = Path("assets.extra", "tf_serving_warmup_requests")


def write_warm_up_requests(saved_model: Path, use_case: UseCase, columns: Columns) -> int:
    """Write one request for a single row and one for all rows of `columns`, which has every model input.

    One row is what the gateway asks, many are what a batch is; each takes a path of its own through
    TensorFlow. Returns the number of requests.
    """
    file = saved_model / FILE
    file.parent.mkdir(exist_ok=True)
    rows = (slice(0, 1), slice(None))
    with tf.io.TFRecordWriter(str(file)) as writer:
        for part in rows:
            log = PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = use_case.model_name
            request.model_spec.signature_name = SIGNATURE
            request.output_filter.append(use_case.label.target.output)
            for name, spec in input_signature(use_case).items():
                values = tf.constant(columns[name][part], spec.dtype)
                request.inputs[name].CopyFrom(tf.make_tensor_proto(values.numpy(), spec.dtype))
            writer.write(log.SerializeToString())
    return len(rows)
