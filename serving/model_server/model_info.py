"""What the server tells about its models: their status and their signatures, as messages and as JSON.

Belongs here: the answers to GetModelStatus and GetModelMetadata. Does not belong here: the state they report
(`manager`), or predictions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from serving.model_server.errors import Code, ServingError
from serving.model_server.manager import ModelManager
from serving.model_server.model_choice import ModelChoice

_SIGNATURE_DEF: Final = "signature_def"


def model_status(manager: ModelManager, choice: ModelChoice) -> get_model_status_pb2.GetModelStatusResponse:
    """The state of one or of every version of a model.

    Raises ServingError (NOT_FOUND) when there is no such model or version.
    """
    response = get_model_status_pb2.GetModelStatusResponse()
    for status in manager.statuses(choice):
        entry = response.model_version_status.add(version=status.version, state=status.state.value)
        entry.status.error_code = Code.OK.value if status.error is None else status.error.code.value
        entry.status.error_message = "" if status.error is None else status.error.message
    return response


def model_metadata(
    manager: ModelManager, choice: ModelChoice, fields: Sequence[str] = (_SIGNATURE_DEF,)
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """The signatures of a model version; `fields` may name nothing but "signature_def".

    Raises ServingError: INVALID_ARGUMENT for other fields or none, NOT_FOUND for a version not available.
    """
    if not fields:
        raise ServingError(
            Code.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field"
        )
    for field in fields:
        if field != _SIGNATURE_DEF:
            raise ServingError(Code.INVALID_ARGUMENT, f"Metadata field {field} is not supported")
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    with manager.lease(choice) as servable:
        for name, definition in servable.signature_defs.items():
            signatures.signature_def[name].CopyFrom(definition)
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.version
    response.metadata[_SIGNATURE_DEF].Pack(signatures)
    return response


def status_json(response: get_model_status_pb2.GetModelStatusResponse) -> bytes:
    """The REST form of a status: versions as strings, states by name, every field written out."""
    return json_format.MessageToJson(
        response, always_print_fields_with_no_presence=True, preserving_proto_field_name=True, indent=1
    ).encode("utf-8")


def metadata_json(response: get_model_metadata_pb2.GetModelMetadataResponse) -> bytes:
    """The REST form of the metadata: the signatures stand unpacked under metadata.signature_def."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata[_SIGNATURE_DEF].Unpack(signatures)
    spec, definitions = (
        json_format.MessageToDict(
            message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
        )
        for message in (response.model_spec, signatures)
    )
    return json.dumps({"model_spec": spec, "metadata": {_SIGNATURE_DEF: definitions}}, indent=1).encode(
        "utf-8"
    )
