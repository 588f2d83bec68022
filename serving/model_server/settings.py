"""Everything that a model server can be told, and its command line.

Belongs here: the settings, their defaults, and the flags (TensorFlow Serving's own names). Does not belong
here: the models themselves (`config`). Imports no TensorFlow, so that a wrong flag is told at once.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from serving.model_server.errors import ServingError
from serving.model_server.option_files import Batching, Tls, read_batching, read_prometheus_path, read_tls


def _threads() -> int:
    # TensorFlow Serving's own default, for each of its two interfaces.
    return 4 * (os.cpu_count() or 1)


class Parallelism(NamedTuple):
    """Threads of TensorFlow's; 0 for as many as there are cores."""

    intra_op: int = 0
    inter_op: int = 0
    """With 1, a batch is run by the thread that has it, which spares handing over: right for small models."""


AUTOMATIC: Final = Parallelism()


@dataclass(frozen=True)
class Settings:
    """How to serve. A port of None does not serve that protocol; 0 takes a free one."""

    grpc_port: int | None = None
    rest_port: int | None = None
    bind_address: str = "127.0.0.1"
    model_config_file: Path | None = None
    model_config_file_poll_wait_seconds: float = 0.0
    model_name: str = "default"
    model_base_path: str = ""
    file_system_poll_wait_seconds: float = 1.0
    allow_version_labels_for_unavailable_models: bool = False
    max_num_load_retries: int = 0
    load_retry_interval_seconds: float = 60.0
    grpc_channel_arguments: tuple[tuple[str, int | str], ...] = ()
    """gRPC's own, such as `grpc.max_connection_age_ms`, so that clients see new servers."""
    grpc_threads: int = 8
    rest_threads: int = 8
    parallelism: Parallelism = AUTOMATIC
    shutdown_grace_seconds: float = 30.0
    batching: Batching | None = None
    """How requests are run together; each by itself if None."""
    prometheus_path: str | None = None
    """Path of the metrics page on the REST interface."""
    tls: Tls | None = None
    """For the gRPC interface; plain text if None."""
    warm_up: bool = True
    """Whether versions first answer the requests that they bring."""
    warm_up_iterations: int = 1


def parse_settings(arguments: Sequence[str]) -> Settings:
    """The settings that a command line asks for; exits with a usage message when it is wrong."""
    parser = _parser()
    flags = parser.parse_args(arguments)
    if not flags.model_config_file and not flags.model_base_path:
        parser.error("one of --model_config_file and --model_base_path is required")
    if flags.port == 0 and flags.rest_api_port == 0:
        parser.error("at least one of --port and --rest_api_port must not be 0")
    if flags.port == flags.rest_api_port:
        parser.error(f"--port and --rest_api_port must differ; both are {flags.port}")
    try:
        batching = _batching(flags.enable_batching, flags.batching_parameters_file)
        prometheus_path = (
            read_prometheus_path(Path(flags.monitoring_config_file)) if flags.monitoring_config_file else None
        )
        tls = read_tls(Path(flags.ssl_config_file)) if flags.ssl_config_file else None
    except ServingError as error:
        parser.error(error.message)
    return Settings(
        grpc_port=flags.port or None,
        rest_port=flags.rest_api_port or None,
        bind_address=flags.bind_address,
        model_config_file=Path(flags.model_config_file) if flags.model_config_file else None,
        model_config_file_poll_wait_seconds=flags.model_config_file_poll_wait_seconds,
        model_name=flags.model_name,
        model_base_path=flags.model_base_path,
        file_system_poll_wait_seconds=flags.file_system_poll_wait_seconds,
        allow_version_labels_for_unavailable_models=flags.allow_version_labels_for_unavailable_models,
        max_num_load_retries=flags.max_num_load_retries,
        load_retry_interval_seconds=flags.load_retry_interval_micros / 1e6,
        grpc_channel_arguments=flags.grpc_channel_arguments,
        grpc_threads=flags.grpc_max_threads,
        rest_threads=flags.rest_api_num_threads,
        parallelism=Parallelism(flags.tensorflow_intra_op_parallelism, flags.tensorflow_inter_op_parallelism),
        shutdown_grace_seconds=flags.shutdown_grace_seconds,
        batching=batching,
        prometheus_path=prometheus_path,
        tls=tls,
        warm_up=flags.enable_model_warmup,
        warm_up_iterations=flags.num_request_iterations_for_warmup,
    )


def _batching(enabled: bool, file: str) -> Batching | None:
    if not enabled:
        return None
    return read_batching(Path(file)) if file else Batching()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.model_server",
        description="Serves SavedModels over TensorFlow Serving's gRPC and REST interfaces.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--port", type=_port, default=8500, help="port of the gRPC interface; 0 for none")
    add("--rest_api_port", type=_port, default=0, help="port of the REST interface; 0 for none")
    add("--bind_address", default="127.0.0.1", help="address that both interfaces listen on")
    add("--model_config_file", default="", help="text protobuf tensorflow.serving.ModelServerConfig")
    add("--model_config_file_poll_wait_seconds", type=_seconds, default=0.0, help="0 reads it once")
    add("--model_name", default="default", help="name of the model in --model_base_path")
    add("--model_base_path", default="", help="folder of version folders; not with --model_config_file")
    add("--file_system_poll_wait_seconds", type=_seconds, default=1.0, help="0 looks for versions once")
    add(
        "--allow_version_labels_for_unavailable_models",
        type=_boolean,
        nargs="?",
        const=True,
        default=False,
        help="let labels that are not in use name versions that are not available yet",
    )
    add("--max_num_load_retries", type=_count, default=0, help="further attempts at a load that failed")
    add("--load_retry_interval_micros", type=_count, default=60_000_000, help="pause between attempts")
    add(
        "--grpc_channel_arguments",
        type=_channel_arguments,
        default="",
        help="of the gRPC server: name=value,..., such as grpc.max_connection_age_ms=30000",
    )
    add("--grpc_max_threads", type=_positive, default=_threads(), help="threads that answer gRPC")
    add("--rest_api_num_threads", type=_positive, default=_threads(), help="threads that answer REST")
    add(
        "--tensorflow_intra_op_parallelism", type=_count, default=0, help="threads in one op; 0 for all cores"
    )
    add("--tensorflow_inter_op_parallelism", type=_count, default=0, help="ops at a time; 0 for all cores")
    add("--batching_parameters_file", default="", help="text protobuf tensorflow.serving.BatchingParameters")
    add("--monitoring_config_file", default="", help="text protobuf tensorflow.serving.MonitoringConfig")
    add("--ssl_config_file", default="", help="text protobuf tensorflow.serving.SSLConfig, for gRPC")
    add("--num_request_iterations_for_warmup", type=_positive, default=1, help="runs of each such request")
    for flag, default, text in (
        ("--enable_batching", False, "run requests that come together as one"),
        ("--enable_model_warmup", True, "let versions first answer the requests that they bring"),
    ):
        add(flag, type=_boolean, nargs="?", const=True, default=default, help=text)
    add(
        "--shutdown_grace_seconds", type=_seconds, default=30.0, help="time for requests under way at the end"
    )
    return parser


def _port(text: str) -> int:
    port = _count(text)
    if port > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, found {text}")
    return port


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, found {text!r}")
    return int(text)


def _channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    pairs = [part.partition("=") for part in text.split(",") if part]
    if not all(name and equals for name, equals, _ in pairs):
        raise argparse.ArgumentTypeError(f"expected name=value,..., found {text!r}")
    return tuple((name, int(value) if value.isdecimal() else value) for name, _, value in pairs)


def _positive(text: str) -> int:
    if _count(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more, found {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds, 0 or more, found {text!r}")
    return seconds


def _boolean(text: str) -> bool:
    match text.lower():
        case "true" | "1":
            return True
        case "false" | "0":
            return False
        case _:
            raise argparse.ArgumentTypeError(f"expected true or false, found {text!r}")
