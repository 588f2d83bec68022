"""TensorFlow Serving's public gRPC API: its messages and stubs, imported without TensorFlow.

Belongs here: the import, and nothing else. Does not belong here: calls (`model_server_client`).

The generated messages live in the packages `tensorflow.core` and `tensorflow_serving`; importing the first
the usual way runs all of TensorFlow (14 s and 700 MiB on two cores, against 0.4 s and 39 MiB), which a
client of the API has no use for. So while they are imported, `tensorflow` is an empty package that only
knows where its folder is; afterwards it is taken away again, and a later `import tensorflow` is the real one.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def _only_the_folder_of_tensorflow() -> Iterator[None]:
    if "tensorflow" in sys.modules:
        yield
        return
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
    package = ModuleType("tensorflow")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["tensorflow"] = package
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "tensorflow"]:
            del sys.modules[name]


with _only_the_folder_of_tensorflow():
    from tensorflow.core.framework.tensor_pb2 import TensorProto
    from tensorflow.core.framework.types_pb2 import DT_FLOAT, DT_INT64, DT_STRING
    from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
    from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus
    from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
    from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
    from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

__all__ = [
    "DT_FLOAT",
    "DT_INT64",
    "DT_STRING",
    "GetModelMetadataRequest",
    "GetModelStatusRequest",
    "ModelServerConfig",
    "ModelServiceStub",
    "ModelVersionStatus",
    "PredictRequest",
    "PredictResponse",
    "PredictionServiceStub",
    "ReloadConfigRequest",
    "SignatureDefMap",
    "TensorProto",
]
