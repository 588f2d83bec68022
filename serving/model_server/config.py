"""The models to serve, read from TensorFlow Serving's own `ModelServerConfig`.

Belongs here: reading, parsing and validating that message. Does not belong here: anything that depends on
what is being served at the moment (labels: `labels`; versions on disk: `versions`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from google.protobuf import text_format
from tensorflow_serving.config import file_system_storage_path_source_pb2, model_server_config_pb2

from serving.model_server.errors import Code, ServingError
from serving.model_server.versions import All, Latest, Specific, VersionPolicy

PLATFORM: Final = "tensorflow"


@dataclass(frozen=True)
class ModelConfig:
    """One model: its name, where its version folders are, which of them to serve, and their labels."""

    name: str
    base_path: Path
    policy: VersionPolicy = field(default_factory=Latest)
    labels: Mapping[str, int] = field(default_factory=dict)


def read_config_file(path: Path) -> tuple[ModelConfig, ...] | None:
    """The models of a `ModelServerConfig` text protobuf; None where the file is missing or says nothing.

    Raises ServingError (INVALID_ARGUMENT) when the file is not such a message or is not valid.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ServingError(
            Code.INVALID_ARGUMENT, f"Cannot read the model config file {path}: {error}"
        ) from error
    message = model_server_config_pb2.ModelServerConfig()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Invalid protobuf file {path}: expected a text tensorflow.serving.ModelServerConfig, "
            f"found {error}",
        ) from error
    if message.WhichOneof("config") is None:
        return None
    return models_of(message)


def models_of(message: model_server_config_pb2.ModelServerConfig) -> tuple[ModelConfig, ...]:
    """The models that `message` lists.

    Raises ServingError (INVALID_ARGUMENT) for a message without a model_config_list, a model listed twice,
    a base path that is not absolute, or a platform other than "tensorflow".
    """
    if message.WhichOneof("config") != "model_config_list":
        raise ServingError(
            Code.INVALID_ARGUMENT, "Invalid ServerModelConfig: only model_config_list is supported"
        )
    models: dict[str, ModelConfig] = {}
    for entry in message.model_config_list.config:
        if entry.name in models:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"Illegal to list model {entry.name} multiple times in config list"
            )
        models[entry.name] = _model_of(entry)
    return tuple(models.values())


def single_model(name: str, base_path: str) -> tuple[ModelConfig, ...]:
    """The configuration that `--model_name` and `--model_base_path` stand for.

    Raises ServingError (INVALID_ARGUMENT) for a base path that is not absolute.
    """
    message = model_server_config_pb2.ModelServerConfig()
    message.model_config_list.config.add(name=name, base_path=base_path, model_platform=PLATFORM)
    return models_of(message)


def _model_of(entry: model_server_config_pb2.ModelConfig) -> ModelConfig:
    if not entry.name:
        raise ServingError(
            Code.INVALID_ARGUMENT, f"A model has no name; its base_path is {entry.base_path!r}"
        )
    _check_platform(entry)
    base_path = Path(entry.base_path)
    if not base_path.is_absolute():
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}",
        )
    return ModelConfig(
        name=entry.name,
        base_path=base_path,
        policy=_policy_of(entry.model_version_policy),
        labels=dict(entry.version_labels),
    )


def _check_platform(entry: model_server_config_pb2.ModelConfig) -> None:
    # `model_type` is the deprecated spelling of `model_platform`; old configurations still use it.
    deprecated = entry.model_type != model_server_config_pb2.MODEL_TYPE_UNSPECIFIED
    if deprecated and entry.model_platform:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            f"ModelServerConfig::model_platform, model name is {entry.name}",
        )
    if entry.model_type == model_server_config_pb2.TENSORFLOW or entry.model_platform == PLATFORM:
        return
    if deprecated:
        raise ServingError(
            Code.INVALID_ARGUMENT, f"ModelServerConfig::model_type choice {entry.model_type} not supported."
        )
    if not entry.model_platform:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {entry.name}",
        )
    raise ServingError(
        Code.INVALID_ARGUMENT,
        f"Model {entry.name} requests unsupported platform {entry.model_platform}; expected {PLATFORM!r}",
    )


def _policy_of(
    policy: file_system_storage_path_source_pb2.FileSystemStoragePathSourceConfig.ServableVersionPolicy,
) -> VersionPolicy:
    match policy.WhichOneof("policy_choice"):
        case "all":
            return All()
        case "specific":
            return Specific(frozenset(policy.specific.versions))
        case _:
            return Latest(max(policy.latest.num_versions, 1))
