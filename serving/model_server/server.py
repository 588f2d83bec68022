"""The model server as a whole: both interfaces, the manager and the polling, started and stopped together.

Belongs here: the order of starting and stopping. Does not belong here: the command line (`settings`,
`__main__`).
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc
import uvicorn
from opentelemetry.trace import Tracer
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from serving.model_server.batching import BatchScheduler
from serving.model_server.config import ModelConfig, read_config_file, single_model
from serving.model_server.errors import Code, ServingError
from serving.model_server.grpc_api import ModelService, PredictionService
from serving.model_server.manager import LoadRetries, ModelManager
from serving.model_server.metrics import Metrics
from serving.model_server.polling import PeriodicCheck
from serving.model_server.rest_api import RestApi
from serving.model_server.servable import Servable, load_servable
from serving.model_server.settings import Settings
from serving.model_server.warm_up import warm_up

_log = logging.getLogger(__name__)

_GRPC_OPTIONS: Final = (
    # Sharing the port with another process would hide that it is taken.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)
_REST_START_SECONDS: Final = 10.0


class ModelServer:
    """A model server in this process.

    `grpc_port` and `rest_port` are the ports that it listens on (None where a protocol is not served).
    """

    def __init__(self, settings: Settings, tracer: Tracer | None = None) -> None:
        """Requests have spans of `tracer`, if given."""
        self._settings = settings
        self._tracer = tracer
        self.metrics = Metrics()
        self._batches = BatchScheduler(settings.batching, self.metrics) if settings.batching else None
        self.manager = ModelManager(
            self._load,
            allow_labels_for_unavailable=settings.allow_version_labels_for_unavailable_models,
            retries=LoadRetries(settings.max_num_load_retries, settings.load_retry_interval_seconds),
        )
        self.grpc_port: int | None = None
        self.rest_port: int | None = None
        self._grpc_threads = ThreadPoolExecutor(settings.grpc_threads, thread_name_prefix="grpc")
        self._rest_threads = ThreadPoolExecutor(settings.rest_threads, thread_name_prefix="rest")
        self._grpc_server: grpc.Server | None = None
        self._rest_socket: socket.socket | None = None
        self._rest_server: uvicorn.Server | None = None
        self._rest_thread: threading.Thread | None = None
        self._checks: list[PeriodicCheck] = []

    def start(self) -> None:
        """Take the ports, load the models, then answer requests.

        A model that cannot be loaded is logged and reported by GetModelStatus; the others serve.

        Raises ServingError: INVALID_ARGUMENT or FAILED_PRECONDITION for a configuration that cannot take
        effect, UNAVAILABLE for a port that is taken. Nothing is left running then.
        """
        try:
            models = self._configured()
            self._take_ports()
            self._load_first(models)
            self._answer()
        except BaseException:
            self.stop(grace=0.0)
            raise
        self._start_checks()

    def stop(self, grace: float | None = None) -> None:
        """Take no more requests, let those under way finish for up to `grace` seconds, and release all."""
        seconds = self._settings.shutdown_grace_seconds if grace is None else grace
        deadline = time.monotonic() + seconds
        self.manager.close()
        grpc_stopped = self._grpc_server.stop(seconds) if self._grpc_server else None
        if self._rest_server is not None:
            self._rest_server.should_exit = True
        for check in self._checks:
            check.stop(max(deadline - time.monotonic(), 0.0))
        if self._rest_thread is not None:
            # uvicorn ends by itself within its own grace period; a little longer lets it do so.
            self._rest_thread.join(max(deadline - time.monotonic(), 0.0) + 1.0)
        if self._rest_socket is not None:
            self._rest_socket.close()
        if grpc_stopped is not None:
            grpc_stopped.wait()
        if self._batches is not None:
            self._batches.stop()
        self._grpc_threads.shutdown(wait=False, cancel_futures=True)
        self._rest_threads.shutdown(wait=False, cancel_futures=True)

    def _load(self, name: str, version: int, path: Path) -> Servable:
        servable = load_servable(
            name,
            version,
            path,
            metrics=self.metrics,
            batches=self._batches,
            parallelism=self._settings.parallelism,
        )
        if self._settings.warm_up:
            warm_up(servable, path, self._settings.warm_up_iterations)
        return servable

    def _configured(self) -> tuple[ModelConfig, ...]:
        settings = self._settings
        if settings.model_config_file is not None:
            return read_config_file(settings.model_config_file) or ()
        if settings.model_base_path:
            return single_model(settings.model_name, settings.model_base_path)
        return ()

    def _take_ports(self) -> None:
        settings = self._settings
        if settings.grpc_port is not None:
            self._grpc_server = grpc.server(
                self._grpc_threads, options=(*_GRPC_OPTIONS, *settings.grpc_channel_arguments)
            )
            prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
                PredictionService(self.manager, self.metrics, self._tracer), self._grpc_server
            )
            model_service_pb2_grpc.add_ModelServiceServicer_to_server(
                ModelService(self.manager), self._grpc_server
            )
            address = f"{settings.bind_address}:{settings.grpc_port}"
            try:
                self.grpc_port = self._listen(self._grpc_server, address)
            except RuntimeError as error:
                raise ServingError(
                    Code.UNAVAILABLE, f"Cannot listen on {address} for gRPC: is the port taken?"
                ) from error
        if settings.rest_port is not None:
            try:
                self._rest_socket = socket.create_server(
                    (settings.bind_address, settings.rest_port), backlog=2048
                )
            except OSError as error:
                raise ServingError(
                    Code.UNAVAILABLE,
                    f"Cannot listen on {settings.bind_address}:{settings.rest_port} for REST: "
                    f"{error.strerror}",
                ) from error
            self.rest_port = self._rest_socket.getsockname()[1]

    def _listen(self, server: grpc.Server, address: str) -> int:
        tls = self._settings.tls
        if tls is None:
            return int(server.add_insecure_port(address))
        credentials = grpc.ssl_server_credentials(
            [(tls.key, tls.certificate)],
            root_certificates=tls.client_authority or None,
            require_client_auth=bool(tls.client_authority),
        )
        return int(server.add_secure_port(address, credentials))

    def _load_first(self, models: tuple[ModelConfig, ...]) -> None:
        try:
            self.manager.reload(models)
        except ServingError as error:
            # One bad model must not keep the others, or the repair by a reload, from being served.
            if error.code is not Code.UNKNOWN:
                raise
            _log.error("%s", error.message)

    def _answer(self) -> None:
        if self._grpc_server is not None:
            self._grpc_server.start()
            _log.info("gRPC on %s:%d", self._settings.bind_address, self.grpc_port)
        if self._rest_socket is None:
            return
        server = uvicorn.Server(
            uvicorn.Config(
                RestApi(
                    self.manager,
                    self._rest_threads,
                    self.metrics,
                    self._settings.prometheus_path,
                    self._tracer,
                ),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=max(int(self._settings.shutdown_grace_seconds), 1),
            )
        )
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [self._rest_socket]}, name="rest", daemon=True
        )
        self._rest_server, self._rest_thread = server, thread
        thread.start()
        deadline = time.monotonic() + _REST_START_SECONDS
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise ServingError(Code.INTERNAL, "The REST interface did not start; see the log above")
            time.sleep(0.005)
        _log.info("REST on %s:%d", self._settings.bind_address, self.rest_port)

    def _start_checks(self) -> None:
        settings = self._settings
        planned: list[tuple[str, float, Callable[[], None]]] = [
            ("version polling", settings.file_system_poll_wait_seconds, self.manager.poll)
        ]
        if settings.model_config_file is not None:
            planned.append(
                ("model config polling", settings.model_config_file_poll_wait_seconds, self._reload_file)
            )
        for name, seconds, check in planned:
            if seconds > 0:
                self._checks.append(PeriodicCheck(name, seconds, check))
                self._checks[-1].start()

    def _reload_file(self) -> None:
        # A file that is missing is being replaced, or has not been written yet: not a wish to serve nothing.
        if self._settings.model_config_file is not None:
            models = read_config_file(self._settings.model_config_file)
            if models is not None:
                self.manager.reload(models)
