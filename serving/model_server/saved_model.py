"""A SavedModel in a session, as TensorFlow Serving runs one: arrays in, arrays out.

Belongs here: loading one, and a function for each of its signatures. Does not belong here: checking what is
fed (`signatures`), batching, or any wire format.

A signature is compiled once, with what it feeds and fetches (a session's callable, which Python has under a
private name only). Measured with flight_delay's network, 52 inputs and one row: 0.4 ms, where the eager call
of the loaded signature takes 2.3, most of it for making a tensor of each input and for looking for the graph
(docs/adr/0023-sessions.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.util import deprecation

from serving.model_server.settings import Parallelism
from serving.model_server.tensor_types import Array

Function = Callable[[Mapping[str, Array]], dict[str, Array]]
_OWN: Final = "__"
"""Signatures whose names begin so are the SavedModel's own, to initialise it."""
_CALLERS_THREAD: Final = -1


def load_functions(
    path: Path, tags: frozenset[str], parallelism: Parallelism
) -> tuple[dict[str, meta_graph_pb2.SignatureDef], dict[str, Function]]:
    """What the SavedModel in `path` declares, and a function for each signature that can be run.

    Each takes one array for each input. They keep the session, and threads may share them. Raises whatever
    TensorFlow raises: `OSError`, `RuntimeError`, or one of `tf.errors`.
    """
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=parallelism.intra_op, inter_op_parallelism_threads=parallelism.inter_op
    )
    graph = tf.Graph()
    # That it is TensorFlow 1's way is decided (see above), and nothing for the log of every load.
    with graph.as_default(), deprecation.silence():
        session = tf.compat.v1.Session(graph=graph, config=config)
        declared = tf.compat.v1.saved_model.load(session, sorted(tags), str(path)).signature_def
    definitions = dict(declared)
    functions = {
        name: _function(session, definition, parallelism)
        for name, definition in definitions.items()
        if not name.startswith(_OWN) and _is_dense(definition)
    }
    return definitions, functions


def _is_dense(definition: meta_graph_pb2.SignatureDef) -> bool:
    ends = [*definition.inputs.values(), *definition.outputs.values()]
    return bool(definition.outputs) and all(end.WhichOneof("encoding") == "name" for end in ends)


def _function(
    session: tf.compat.v1.Session, definition: meta_graph_pb2.SignatureDef, parallelism: Parallelism
) -> Function:
    inputs, outputs = sorted(definition.inputs), sorted(definition.outputs)
    options = config_pb2.CallableOptions(
        feed=[definition.inputs[alias].name for alias in inputs],
        fetch=[definition.outputs[alias].name for alias in outputs],
    )
    if parallelism.inter_op == 1:
        options.run_options.inter_op_thread_pool = _CALLERS_THREAD
    compiled = session._make_callable_from_options(options)

    def run(given: Mapping[str, Array]) -> dict[str, Array]:
        found = compiled(*(given[alias] for alias in inputs))
        return {alias: _array(value) for alias, value in zip(outputs, found, strict=True)}

    return run


def _array(value: Any) -> Array:
    if isinstance(value, np.ndarray):
        return value
    # NumPy would turn a lone byte string into its own string type, which drops trailing zero bytes.
    return np.array(value, dtype=object if isinstance(value, bytes) else None)
