"""What every request has, whatever it asks: an id, a trace, a measured time and a count.

Belongs here: the middleware for it, and the Prometheus metrics. Does not belong here: any use case.

The trace is W3C's (https://www.w3.org/TR/trace-context/): a `traceparent` that comes with a request is
carried on to the model server with a span of ours, and its trace id is in the log line; one is made up
otherwise. So it is without a collector too; with one (`airloop.traces`), that span is sent there.
"""

from __future__ import annotations

import random
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from opentelemetry import context
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airloop.prediction_log.record import PredictionRecord
from airloop.prediction_log.spool import Spool
from airloop.prediction_log.variants import SHADOW
from airloop.traces import fail, from_headers

REQUEST_ID_HEADER: Final = "X-Request-ID"
# What an id may be made of: it is written to logs and headers as it came.
_GOOD_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_LIMITED: Final = "/v1/"
CROWDED_SHARE: Final = 0.25
"""Of the requests that may be under way: from there on shadows get no copies. Requests pile up where answers
take too long, and copies would make them take longer."""
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_IDS: Final = random.SystemRandom()
_BUCKETS: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


Shed = Callable[[Scope, Receive, Send], Awaitable[None]]
"""What answers a request that is not taken."""


class Metrics:
    """The gateway's Prometheus metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # What the process itself uses: whoever pays for its machine wants to know.
        ProcessCollector(registry=self.registry)
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
        self.shed = Counter(
            "airloop_gateway_shed_requests",
            "Requests refused because too many were under way",
            registry=self.registry,
        )
        self.lost = Gauge(
            "airloop_gateway_lost_predictions",
            "Predictions that were answered and could not be kept, since the start",
            registry=self.registry,
        )
        self.spool_bytes = Gauge(
            "airloop_gateway_spool_bytes",
            "Whole files of a log that are not in its table yet, of all gateways that share the folder",
            ["log"],
            registry=self.registry,
        )
        self.spool_age = Gauge(
            "airloop_gateway_spool_oldest_seconds",
            "How long ago the file that waits longest for its table was last written to",
            ["log"],
            registry=self.registry,
        )
        self.predictions = Counter(
            "airloop_gateway_predictions",
            "Predictions, by the model version that made them, why it was asked, and why it failed",
            ["use_case", "version", "variant", "error"],
            registry=self.registry,
        )
        self.missing = Counter(
            "airloop_gateway_missing_features",
            "Predictions that a client got and that were made without a value of this feature",
            ["use_case", "feature"],
            registry=self.registry,
        )
        self.uncopied = Counter(
            "airloop_gateway_uncopied_requests",
            "Requests that a shadow was given no copy of, because too many copies or requests were under way",
            ["use_case"],
            registry=self.registry,
        )
        self.outcomes = Counter(
            "airloop_gateway_outcomes",
            "Outcomes that were told",
            ["use_case"],
            registry=self.registry,
        )

    def watch(self, log: str, spool: Spool) -> None:
        """Have the page say what of `log` waits in `spool`."""
        self.spool_bytes.labels(log).set_function(lambda: spool.backlog().bytes)
        self.spool_age.labels(log).set_function(lambda: spool.backlog().oldest_seconds)

    def count(self, record: PredictionRecord) -> None:
        """One attempt at a prediction."""
        version = str(record.version)
        self.predictions.labels(record.use_case, version, record.variant, record.error or "").inc()
        if record.variant != SHADOW and record.error is None:
            for feature in record.missing_features:
                self.missing.labels(record.use_case, feature).inc()


@dataclass(frozen=True)
class Caller:
    """Who a request is, to those that only pass it on."""

    request_id: str
    trace_id: str
    """32 hexadecimal digits."""
    trace: tuple[tuple[str, str], ...] = ()
    """Headers that carry the trace on."""
    name: str = ""
    """The API key's name."""
    crowded: bool = False
    """Whether so many requests were under way when it came that only what clients wait for should be done."""


class RequestContext:
    """ASGI middleware: gives each request its id and trace, returns the id in a header, and measures it.

    More than `most_in_flight` requests under /v1 are not taken: they would wait for a thread until their
    clients have gone, and those after them too. Health and metrics are answered all the same.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, most_in_flight: int, shed: Shed, tracer: Tracer | None = None
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._tracer = tracer
        self._most, self._shed = most_in_flight, shed
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if _GOOD_ID.fullmatch(given) else uuid.uuid4().hex
        crowded = self._in_flight >= self._most * CROWDED_SHARE
        counted = scope["path"].startswith(_LIMITED)
        # How the gateway is, somebody asks every few seconds: no trace of that.
        span = _span(self._tracer if counted else None, Headers(scope=scope))
        of_span = set_span_in_context(span, Context())
        scope.setdefault("state", {})["caller"] = _caller(request_id, of_span, crowded)
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        begun = time.perf_counter()
        if counted and self._in_flight >= self._most:
            self._metrics.shed.inc()
            await self._shed(scope, receive, send_with_id)
            _end(span, scope["method"], "unknown", status, request_id)
            return
        self._in_flight += counted
        token = context.attach(of_span)
        try:
            await self._app(scope, receive, send_with_id)
            # Left in place by an exception: the server's own line about it, in this task, has the trace too.
            context.detach(token)
        finally:
            self._in_flight -= counted
            # The route's own path, not the one asked for: strangers must not make up label values.
            route = getattr(scope.get("route"), "path", "unknown")
            _end(span, scope["method"], route, status, request_id)
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.latency.labels(route).observe(time.perf_counter() - begun)


def caller_of(scope: Scope) -> Caller:
    """What the middleware knows of the request."""
    state: dict[str, Any] = scope.get("state", {})
    caller = state.get("caller")
    return caller if isinstance(caller, Caller) else Caller("", "")


def name_caller(scope: Scope, name: str) -> None:
    """Say whose API key the request has."""
    scope.setdefault("state", {})["caller"] = replace(caller_of(scope), name=name)


def _span(tracer: Tracer | None, headers: Headers) -> Span:
    """The request's span, in the trace that it came with or a new one; without a tracer, only its ids."""
    above = from_headers(dict(headers))
    if tracer is not None:
        return tracer.start_span("request", above, kind=SpanKind.SERVER)
    given = get_current_span(above).get_span_context()
    made = SpanContext(
        trace_id=given.trace_id if given.is_valid else _IDS.getrandbits(128) or 1,
        span_id=_IDS.getrandbits(64) or 1,
        is_remote=False,
        trace_flags=given.trace_flags,
        trace_state=given.trace_state,
    )
    return NonRecordingSpan(made)


def _end(span: Span, method: str, route: str, status: int, request_id: str) -> None:
    if not span.is_recording():
        return
    span.update_name(f"{method} {route}")
    span.set_attributes(
        {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "http.request.id": request_id,
        }
    )
    if status >= 500:
        fail(span, str(status))
    span.end()


def _caller(request_id: str, of_span: Context, crowded: bool) -> Caller:
    carried: dict[str, str] = {}
    _PROPAGATOR.inject(carried, of_span)
    trace_id = get_current_span(of_span).get_span_context().trace_id
    return Caller(request_id, f"{trace_id:032x}", tuple(carried.items()), crowded=crowded)
