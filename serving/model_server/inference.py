"""Predict, Classify and Regress: a request's message to a version's answer.

Belongs here: what gRPC and warm-up do with a request, once the version that answers is known. Does not belong
here: finding that version (`manager`), JSON (`json_request`), or running a signature (`servable`).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, input_pb2, predict_pb2, regression_pb2

from serving.model_server import tensor_proto
from serving.model_server.errors import Code, ServingError
from serving.model_server.servable import Servable
from serving.model_server.signatures import DEFAULT_SIGNATURE, Signature
from serving.model_server.tensor_types import Array, object_array, type_name, type_of

_INPUTS: Final = "inputs"
_CLASSES: Final = "classes"
_SCORES: Final = "scores"
_OUTPUTS: Final = "outputs"


def predict(servable: Servable, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    """Run one signature on tensors.

    Raises ServingError: FAILED_PRECONDITION for a signature that there is not, and what `Servable.predict`
    raises.
    """
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
        raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    inputs = {alias: tensor_proto.decode(alias, proto) for alias, proto in request.inputs.items()}
    outputs = servable.predict(signature, inputs, tuple(request.output_filter))
    response = predict_pb2.PredictResponse()
    _say_who(response, servable, name)
    for alias, array in outputs.items():
        response.outputs[alias].CopyFrom(tensor_proto.encode(array))
    return response


def classify(
    servable: Servable, request: classification_pb2.ClassificationRequest
) -> classification_pb2.ClassificationResponse:
    """Run a signature with outputs "classes" or "scores" (or both) on `tf.train.Example`s.

    Raises ServingError (INVALID_ARGUMENT) for a signature that does not classify, an input without examples,
    or outputs of the wrong type or shape.
    """
    signature, examples = _prepared(servable, request)
    given = {alias for alias in (_CLASSES, _SCORES) if alias in signature.outputs}
    if len(signature.outputs) not in (1, 2):
        raise _invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if not given:
        raise _invalid(
            f'Expected classification signature outputs to contain at least one of "{_CLASSES}" or '
            f'"{_SCORES}". Signature was: {signature.name} with outputs {sorted(signature.outputs)}'
        )
    outputs = servable.predict(signature, {_INPUTS: examples}, tuple(sorted(given)), api="Classify")
    classes, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
    for name, array, dtype in ((_CLASSES, classes, tf.string), (_SCORES, scores, tf.float32)):
        if array is not None:
            _check_matrix(name, array, dtype, len(examples))
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise _invalid(
            "Tensors class and score should match in dim_size(1). Got "
            f"{classes.shape[1]} vs. {scores.shape[1]}"
        )
    response = classification_pb2.ClassificationResponse()
    _say_who(response, servable, signature.name)
    response.result.SetInParent()
    for row in range(len(examples)):
        classifications = response.result.classifications.add()
        for column in range(next(iter(outputs.values())).shape[1]):
            entry = classifications.classes.add()
            if classes is not None:
                entry.label = classes[row, column]
            if scores is not None:
                entry.score = scores[row, column]
    return response


def regress(
    servable: Servable, request: regression_pb2.RegressionRequest
) -> regression_pb2.RegressionResponse:
    """Run a signature with the one output "outputs" on `tf.train.Example`s.

    Raises ServingError (INVALID_ARGUMENT) for a signature that does not regress, an input without examples,
    or an output of the wrong type or shape.
    """
    signature, examples = _prepared(servable, request)
    if len(signature.outputs) != 1:
        raise _invalid("Expected one output Tensor.")
    if _OUTPUTS not in signature.outputs:
        raise _invalid(f"No regression outputs found in SignatureDef: {signature.name}")
    values = servable.predict(signature, {_INPUTS: examples}, api="Regress")[_OUTPUTS]
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise _invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{list(values.shape)}"
        )
    if len(values) != len(examples):
        raise _invalid(f"Input batch size did not match output batch size: {len(examples)} vs. {len(values)}")
    if values.dtype != np.float32:
        raise _invalid(f"Expected output Tensor of DT_FLOAT.  Got: {type_name(type_of(values))}")
    response = regression_pb2.RegressionResponse()
    _say_who(response, servable, signature.name)
    response.result.SetInParent()
    for value in values.ravel().tolist():
        response.result.regressions.add(value=value)
    return response


def _prepared(servable: Servable, request: Any) -> tuple[Signature, Array]:
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
        raise _invalid(f"No signature was found with the name: {name}")
    if len(signature.inputs) != 1:
        raise _invalid("Expected one input Tensor.")
    if _INPUTS not in signature.inputs:
        kind = "regression" if isinstance(request, regression_pb2.RegressionRequest) else "classification"
        raise _invalid(f"No {kind} inputs found in SignatureDef: {signature.name}")
    examples = _serialized(request.input)
    servable.metrics.examples(servable.name, len(examples))
    return signature, examples


def _serialized(given: input_pb2.Input) -> Array:
    """The examples of an `Input`, serialized, each with the features of their context if there is one."""
    context = b""
    match given.WhichOneof("kind"):
        case "example_list":
            examples = given.example_list.examples
        case "example_list_with_context":
            examples = given.example_list_with_context.examples
            # One message after the other is the two merged, as protobuf defines it.
            context = given.example_list_with_context.context.SerializeToString()
        case _:
            examples = ()
    if not examples:
        raise _invalid("Input is empty.")
    return object_array([context + example.SerializeToString() for example in examples], [len(examples)])


def _check_matrix(name: str, array: Array, dtype: tf.DType, rows: int) -> None:
    if array.ndim != 2:
        raise _invalid(f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}")
    if type_of(array) != dtype:
        expected = "DT_STRING" if dtype == tf.string else "DT_FLOAT"
        raise _invalid(f"Expected {name} Tensor of {expected}. Got: {type_name(type_of(array))}")
    if len(array) != rows:
        raise _invalid(f"Expected {name} output batch size of {rows}. Got: {len(array)}")


def _say_who(response: Any, servable: Servable, signature: str) -> None:
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    response.model_spec.signature_name = signature


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
