"""The option files that TensorFlow Serving reads as text protobufs: monitoring, batching and TLS.

Belongs here: their messages and the values read from them. Does not belong here: the models to serve
(`config`), or what an option does.

`tensorflow-serving-api` publishes the messages of requests and of `ModelServerConfig`, and not these; so they
are declared here, by the names and types of TensorFlow Serving's own .proto files. A file that TensorFlow
Serving reads is read here too, and the other way round.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from serving.model_server.errors import Code, ServingError

PROMETHEUS_PATH: Final = "/monitoring/prometheus/metrics"
_PACKAGE: Final = "airloop.tf_serving_options"
_Field = descriptor_pb2.FieldDescriptorProto
_INT64: Final = f".{wrappers_pb2.Int64Value.DESCRIPTOR.full_name}"
_STRING: Final = f".{wrappers_pb2.StringValue.DESCRIPTOR.full_name}"
_BOOL: Final = f".{wrappers_pb2.BoolValue.DESCRIPTOR.full_name}"
# By message: each field's name and its type, or the message that wraps its value.
_MESSAGES: Final[dict[str, dict[str, int | str]]] = {
    "PrometheusConfig": {"enable": _Field.TYPE_BOOL, "path": _Field.TYPE_STRING},
    "MonitoringConfig": {"prometheus_config": f".{_PACKAGE}.PrometheusConfig"},
    "SSLConfig": {
        "server_key": _Field.TYPE_STRING,
        "server_cert": _Field.TYPE_STRING,
        "custom_ca": _Field.TYPE_STRING,
        "client_verify": _Field.TYPE_BOOL,
    },
    "BatchingParameters": {
        "max_batch_size": _INT64,
        "batch_timeout_micros": _INT64,
        "max_enqueued_batches": _INT64,
        "num_batch_threads": _INT64,
        "thread_pool_name": _STRING,
        "allowed_batch_sizes": _Field.TYPE_INT64,
        "pad_variable_length_inputs": _Field.TYPE_BOOL,
        "enable_large_batch_splitting": _BOOL,
        "max_execution_batch_size": _INT64,
    },
}
_REPEATED: Final = frozenset({"allowed_batch_sizes"})


@dataclass(frozen=True)
class Batching:
    """How requests are run together; the defaults are TensorFlow Serving's."""

    max_batch_size: int = 1000
    """Rows of a batch, and of a request, at most."""
    batch_timeout_seconds: float = 0.0
    """How long the first request of a batch waits for others while a thread is free."""
    max_enqueued_batches: int = 10
    """Full batches of rows that may wait for one signature; a request beyond is refused."""
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Batches that run at once."""
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    """The sizes that batches are filled up to; any size if empty."""


@dataclass(frozen=True)
class Tls:
    """PEM texts for the gRPC interface, as `SSLConfig` holds them."""

    key: bytes
    certificate: bytes
    client_authority: bytes = b""
    """Whose client certificates are asked for; empty if none are."""


def read_prometheus_path(path: Path) -> str | None:
    """The path of the metrics page that a `MonitoringConfig` file asks for; None if it asks for none."""
    config = _read(path, "MonitoringConfig").prometheus_config
    return (config.path or PROMETHEUS_PATH) if config.enable else None


def read_batching(path: Path) -> Batching:
    """The parameters in a `BatchingParameters` file.

    Raises ServingError (INVALID_ARGUMENT) for values that cannot be, and UNIMPLEMENTED for splitting of large
    requests and padding of unequal ones, which this server does not do.
    """
    found = _read(path, "BatchingParameters")
    for unsupported in ("enable_large_batch_splitting", "pad_variable_length_inputs"):
        value = getattr(found, unsupported)
        if getattr(value, "value", value):
            raise ServingError(
                Code.UNIMPLEMENTED, f"{path}: {unsupported} is not implemented; expected false or nothing"
            )
    given = {
        ours: getattr(found, theirs).value
        for ours, theirs in (
            ("max_batch_size", "max_batch_size"),
            ("max_enqueued_batches", "max_enqueued_batches"),
            ("threads", "num_batch_threads"),
        )
        if found.HasField(theirs)
    }
    for name, value in given.items():
        if value < 1:
            raise _invalid(path, f"{name} to be 1 or more", value)
    batching = Batching(
        **given,
        batch_timeout_seconds=found.batch_timeout_micros.value / 1e6,
        thread_pool_name=found.thread_pool_name.value or "batch_threads",
        allowed_batch_sizes=tuple(found.allowed_batch_sizes),
    )
    if batching.batch_timeout_seconds < 0:
        raise _invalid(path, "batch_timeout_micros to be 0 or more", found.batch_timeout_micros.value)
    sizes = batching.allowed_batch_sizes
    if sizes and (list(sizes) != sorted({*sizes}) or sizes[-1] != batching.max_batch_size):
        raise _invalid(
            path, f"allowed_batch_sizes to increase and end with {batching.max_batch_size}", list(sizes)
        )
    return batching


def read_tls(path: Path) -> Tls:
    """The key and certificates in an `SSLConfig` file."""
    found = _read(path, "SSLConfig")
    if not found.server_key or not found.server_cert:
        raise _invalid(path, "server_key and server_cert, as PEM", "one or both empty")
    if found.client_verify and not found.custom_ca:
        raise _invalid(path, "custom_ca beside client_verify", "none")
    authority = found.custom_ca.encode() if found.client_verify else b""
    return Tls(found.server_key.encode(), found.server_cert.encode(), authority)


def _read(path: Path, message: str) -> Any:
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), _classes[message]())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise _invalid(path, f"a text tensorflow.serving.{message}", error) from error


def _invalid(path: Path, expected: str, found: object) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, f"{path}: expected {expected}, found {found}")


def _declare() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="airloop/tf_serving_options.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field_name, kind) in enumerate(fields.items(), start=1):
            label = _Field.LABEL_REPEATED if field_name in _REPEATED else _Field.LABEL_OPTIONAL
            entry = message.field.add(name=field_name, number=number, label=label)
            if isinstance(kind, str):
                entry.type, entry.type_name = _Field.TYPE_MESSAGE, kind
            else:
                entry.type = kind  # type: ignore[assignment] # an enum's number
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_classes: Final = _declare()
