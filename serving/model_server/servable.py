"""One loaded model version: its signatures, and how to run them.

Belongs here: loading a SavedModel and running it. Does not belong here: when it is loaded or unloaded
(`manager`), or any wire format.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from airloop.traces import span
from serving.model_server.batching import Arrays, BatchScheduler, Queue
from serving.model_server.errors import Code, ServingError
from serving.model_server.metrics import Metrics
from serving.model_server.saved_model import Function, load_functions
from serving.model_server.settings import AUTOMATIC, Parallelism
from serving.model_server.signatures import Signature, read_signature
from serving.model_server.tensor_types import Array

_TAGS: Final = frozenset({"serve"})
# TensorFlow in Python puts the trace of the graph's construction before the fault; clients of TensorFlow
# Serving see the fault alone, and the paths of the machine that trained the model are not for them.
_GRAPH_TRACE: Final = re.compile(r"\A.*?<stack traces unavailable>\n", re.DOTALL)


class Servable:
    """One version of a model, ready to answer.

    `signature_defs` is everything that the SavedModel declares; `signatures` the part that can be run.
    Threads may share a servable.
    """

    def __init__(
        self,
        name: str,
        version: int,
        signature_defs: Mapping[str, meta_graph_pb2.SignatureDef],
        functions: Mapping[str, Function],
        metrics: Metrics,
        batches: BatchScheduler | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.signature_defs = signature_defs
        self.signatures = {
            key: read_signature(key, definition)
            for key, definition in signature_defs.items()
            if key in functions
        }
        self.metrics = metrics
        self._batches = batches
        self._queues: dict[object, Queue] = {}
        self._functions = functions

    def predict(
        self,
        signature: Signature,
        inputs: Mapping[str, Array],
        output_filter: Sequence[str] = (),
        *,
        api: str = "Predict",
    ) -> dict[str, Array]:
        """The outputs of `signature` for `inputs`, by alias; `api` is what the metrics call the request.

        Raises ServingError: INVALID_ARGUMENT when the inputs or the filter do not fit the signature, what
        batching raises, or the code that TensorFlow gives when the model itself fails.
        """
        complete = signature.complete(inputs)
        selected = signature.select(output_filter)
        began = time.monotonic_ns()
        rows = _rows(complete)
        about = {"airloop.model": self.name, "airloop.version": self.version, "airloop.rows": rows or 0}
        # With batching, the wait for the batch and the batch itself: both are what this request took.
        with span("run model", attributes=about):
            if self._batches is None or rows is None:
                outputs = self._run(signature, complete, selected)
            else:
                outputs = self._batches.run(self._queue(signature, complete), complete, rows)
        self.metrics.ran(self.name, api, time.monotonic_ns() - began)
        return {alias: outputs[alias] for alias in selected}

    def _queue(self, signature: Signature, inputs: Arrays) -> Queue:
        """Where inputs wait that can be run with these: of one signature, and alike but for their rows."""
        key = (signature.name, *((alias, inputs[alias].shape[1:]) for alias in sorted(inputs)))
        queue = self._queues.get(key)
        if queue is None:
            queue = Queue(lambda inputs: self._run(signature, inputs, signature.outputs))
            queue = self._queues.setdefault(key, queue)
        return queue

    def _run(self, signature: Signature, inputs: Arrays, selected: Sequence[str]) -> dict[str, Array]:
        try:
            outputs = self._functions[signature.name](inputs)
            return {alias: outputs[alias] for alias in selected}
        except (tf.errors.OpError, ValueError, TypeError) as error:
            _raise_as_serving_error(error)


def load_servable(
    name: str,
    version: int,
    path: Path,
    *,
    metrics: Metrics,
    batches: BatchScheduler | None = None,
    parallelism: Parallelism = AUTOMATIC,
) -> Servable:
    """Load the SavedModel in the folder `path`; its requests are run by `batches`, if given, else at once.

    Raises ServingError when it is not there, is corrupt, or has no graph for serving.
    """
    well = False
    try:
        _require_graph(path)
        definitions, functions = load_functions(path, _TAGS, parallelism)
        servable = Servable(name, version, definitions, functions, metrics, batches)
        well = True
    except ServingError:
        raise
    except Exception as error:
        _raise_as_serving_error(error)
    finally:
        metrics.loaded(str(path), well=well)
    return servable


def _require_graph(path: Path) -> None:
    """Raises ServingError, in the words of TensorFlow Serving, where there is nothing to load."""
    try:
        content = (path / "saved_model.pb").read_bytes()
    except OSError as error:
        raise ServingError(
            Code.NOT_FOUND,
            f"Could not find SavedModel .pb at supplied export directory path: {path}. Check that the "
            f"directory exists and that you have the right permissions for accessing it ({error.strerror}).",
        ) from error
    saved_model = saved_model_pb2.SavedModel()
    try:
        saved_model.ParseFromString(content)
    except DecodeError as error:
        raise ServingError(
            Code.DATA_LOSS, f"Can't parse {path / 'saved_model.pb'} as binary proto"
        ) from error
    found = [sorted(graph.meta_info_def.tags) for graph in saved_model.meta_graphs]
    if sorted(_TAGS) in found:
        return
    raise ServingError(
        Code.NOT_FOUND,
        f"Could not find meta graph def matching supplied tags: {{ serve }} in {path}; found {found}",
    )


def _rows(inputs: Arrays) -> int | None:
    """How many rows all of `inputs` have; None where they do not have one number of them, or none at all."""
    sizes = {array.shape[0] if array.shape else 0 for array in inputs.values()}
    return sizes.pop() or None if len(sizes) == 1 else None


def _raise_as_serving_error(error: Exception) -> NoReturn:
    if isinstance(error, tf.errors.OpError):
        message = _GRAPH_TRACE.sub("", error.message or "")
        raise ServingError(Code(error.error_code), message) from error
    code = Code.NOT_FOUND if isinstance(error, FileNotFoundError) else Code.INTERNAL
    raise ServingError(code, f"{type(error).__name__}: {error}") from error
