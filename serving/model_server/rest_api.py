"""The REST interface: TensorFlow Serving's paths, as an ASGI application.

Belongs here: paths and bodies to calls and back, and errors to HTTP statuses. Does not belong here: anything
that gRPC needs as well.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from concurrent.futures import Executor
from typing import Final
from urllib.parse import unquote

from opentelemetry.trace import Tracer
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.model_server import json_request, json_response, model_info
from serving.model_server.errors import Code, ServingError, http_status
from serving.model_server.grpc_api import UNSUPPORTED_METHOD
from serving.model_server.manager import ModelManager
from serving.model_server.metrics import Metrics
from serving.model_server.model_choice import ModelChoice
from serving.model_server.request_span import Headers, answered, lines_of, request_span
from serving.model_server.signatures import DEFAULT_SIGNATURE

_log = logging.getLogger(__name__)

_VERSION: Final = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_RUN_PATH: Final = re.compile(
    rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>classify|regress|predict)", re.IGNORECASE
)
_TELL_PATH: Final = re.compile(
    rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?P<metadata>/metadata)?", re.IGNORECASE
)
_LARGEST_VERSION: Final = 2**63 - 1


class RestApi:
    """The ASGI application. Models run on `executor`, so that the event loop never waits for one."""

    def __init__(
        self,
        manager: ModelManager,
        executor: Executor,
        metrics: Metrics,
        metrics_path: str | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._manager = manager
        self._tracer = tracer
        self._executor = executor
        self._metrics = metrics
        self._metrics_path = metrics_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        try:
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            return
        if scope["path"] == self._metrics_path:
            page = Response(self._metrics.page(), media_type="text/plain")
            await page(scope, receive, send)
            return
        path = scope.get("raw_path") or scope["path"].encode("utf-8")
        status, content = await asyncio.get_running_loop().run_in_executor(
            self._executor, self._answer, scope["method"], path.decode("latin-1"), body, scope["headers"]
        )
        await Response(content, status, media_type="application/json")(scope, receive, send)

    def _answer(self, method: str, path: str, body: bytes, headers: Headers) -> tuple[int, bytes]:
        began = time.monotonic_ns()
        match = _RUN_PATH.fullmatch(path)
        tracer = self._tracer if match else None
        with request_span(
            tracer, f"{method} /v1/models/{{name}}:{match and match['method']}", headers
        ) as span:
            try:
                content, code = self._content(method, path, body), Code.OK
            except ServingError as error:
                content, code = json_response.write_error(error.message), error.code
            except Exception as error:
                with lines_of(tracer, headers):
                    _log.exception("%s %s failed unexpectedly", method, path)
                content, code = json_response.write_error(f"{type(error).__name__}: {error}"), Code.INTERNAL
            answered(span, code)
        if match:
            name, api = unquote(match["name"]), match["method"].lower()
            self._metrics.request(name, api, "REST", code, time.monotonic_ns() - began)
        return http_status(code), content

    def _content(self, method: str, path: str, body: bytes) -> bytes:
        if not path.lower().startswith("/v1/"):
            raise ServingError(Code.NOT_FOUND, f"Not Found: {path}; expected a path under /v1/models")
        if method == "POST" and (match := _RUN_PATH.fullmatch(path)):
            return self._run(_choice(match), match["method"].lower(), body)
        if method == "GET" and (match := _TELL_PATH.fullmatch(path)):
            return self._tell(_choice(match), metadata=match["metadata"] is not None)
        raise ServingError(Code.INVALID_ARGUMENT, f"Malformed request: {method} {path}")

    def _run(self, choice: ModelChoice, method: str, body: bytes) -> bytes:
        if method != "predict":
            raise ServingError(Code.UNIMPLEMENTED, UNSUPPORTED_METHOD.format(method=method.capitalize()))
        document = json_request.parse_body(body)
        name = json_request.signature_name(document)
        with self._manager.lease(choice) as servable:
            signature = servable.signatures.get(name or DEFAULT_SIGNATURE)
            if signature is None:
                raise ServingError(
                    Code.INVALID_ARGUMENT,
                    f'Serving signature name: "{name or DEFAULT_SIGNATURE}" not found in signature def',
                )
            if not signature.inputs:
                raise ServingError(
                    Code.INVALID_ARGUMENT, f"Failed to get input map for signature: {name or 'DEFAULT'}"
                )
            form, inputs = json_request.read_inputs(document, signature.inputs)
            outputs = servable.predict(signature, inputs)
        return json_response.write_outputs(form, outputs)

    def _tell(self, choice: ModelChoice, *, metadata: bool) -> bytes:
        if not choice.name:
            raise ServingError(Code.INVALID_ARGUMENT, "Missing model name in request.")
        if metadata:
            return model_info.metadata_json(model_info.model_metadata(self._manager, choice))
        return model_info.status_json(model_info.model_status(self._manager, choice))


def _choice(match: re.Match[str]) -> ModelChoice:
    version = match["version"]
    if version is not None and int(version) > _LARGEST_VERSION:
        raise ServingError(Code.INVALID_ARGUMENT, f"Failed to convert version: {version} to numeric.")
    return ModelChoice(
        name=unquote(match["name"] or ""),
        version=None if version is None else int(version),
        label=None if match["label"] is None else unquote(match["label"]),
    )
