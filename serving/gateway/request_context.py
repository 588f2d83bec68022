"""What every request has, whatever it asks: an id, a measured time and a count.

Belongs here: the middleware for it, and the Prometheus metrics. Does not belong here: any use case.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID_HEADER: Final = "X-Request-ID"
# What an id may be made of: it is written to logs and headers as it came.
_GOOD_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_BUCKETS: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """The gateway's Prometheus metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "airloop_gateway_requests", "Requests answered", ["route", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "airloop_gateway_request_seconds",
            "Time from the first byte of a request to the last of its answer",
            ["route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.features = Histogram(
            "airloop_gateway_features_seconds",
            "Time to read the online features",
            ["use_case"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.model = Histogram(
            "airloop_gateway_model_seconds",
            "Time of the model server's answer",
            ["use_case"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.predictions = Counter(
            "airloop_gateway_predictions",
            "Predictions, by the model version that made them",
            ["use_case", "version"],
            registry=self.registry,
        )
        self.missing = Counter(
            "airloop_gateway_missing_features",
            "Predictions made without a value of this feature",
            ["use_case", "feature"],
            registry=self.registry,
        )

    def count_prediction(self, use_case: str, version: int, missing: Iterable[str]) -> None:
        """One prediction by `version`, without the features `missing`."""
        self.predictions.labels(use_case, str(version)).inc()
        for feature in missing:
            self.missing.labels(use_case, feature).inc()


class RequestContext:
    """ASGI middleware: gives each request its id, returns it in a header, and measures the request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if _GOOD_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        begun = time.perf_counter()
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            # The route's own path, not the one asked for: strangers must not make up label values.
            route = getattr(scope.get("route"), "path", "unknown")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.latency.labels(route).observe(time.perf_counter() - begun)


def request_id_of(scope: Scope) -> str:
    """The id that the middleware gave the request."""
    state: dict[str, Any] = scope.get("state", {})
    return str(state.get("request_id", ""))
