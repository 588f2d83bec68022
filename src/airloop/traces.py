"""Traces: this process's OpenTelemetry spans, sent by OTLP over HTTP where the deployment says where to.

Belongs here: switching that on, how a span is begun and how it is handed to another process. Does not belong
here: which steps have one, and log lines (`logs`).

A span says how long something took and whether it failed, never what was in it: no erasure reaches the place
that it is sent to. So an exception leaves its type there and not its message.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from airloop.settings import Settings

NAME: Final = "airloop"
TRACES_PATH: Final = "/v1/traces"
SEND_SECONDS: Final = 3.0
"""That a process waits for the collector when it ends; one that is down costs spans, never a job."""
VARIABLES: Final = ("TRACEPARENT", "TRACESTATE")
"""In which a process is told the span that it works for: W3C's headers, as OpenTelemetry names them for
environments."""
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_TRACER: Final = trace.get_tracer(NAME)
_NO_SPAN: Final = nullcontext(trace.INVALID_SPAN)


@contextmanager
def tracing(settings: Settings, service: str) -> Iterator[Tracer | None]:
    """This process's tracer, whose spans are those of `service`; None where no endpoint is set.

    Call it once in a process, at its edge. On leaving, what has not been sent is sent. The sampler, headers
    and what else the SDK reads come from OpenTelemetry's own variables (`OTEL_TRACES_SAMPLER`, ...).
    """
    if not settings.otlp_endpoint:
        yield None
        return
    # Imported here: a process without traces must pay nothing for them, not even the imports.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    endpoint = settings.otlp_endpoint.rstrip("/") + TRACES_PATH
    resource = Resource.create({"service.name": service, "service.namespace": NAME})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=SEND_SECONDS)))
    trace.set_tracer_provider(provider)
    try:
        yield provider.get_tracer(NAME)
    finally:
        provider.shutdown()


def begin(
    tracer: Tracer | None,
    name: str,
    parent: Context,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, AttributeValue] | None = None,
) -> AbstractContextManager[Span]:
    """A span below the one in `parent`, or the first of a trace; it is the current one until it is left.

    Without a tracer there is no span, but the one in `parent` is the current one, so that log lines have it.
    """
    if tracer is None:
        return _attached(parent)
    return _recorded(tracer, name, parent, kind, attributes)


def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, AttributeValue] | None = None,
) -> AbstractContextManager[Span]:
    """A span below the current one; none, at next to no cost, where the current one is not recorded."""
    if not trace.get_current_span().is_recording():
        return _NO_SPAN
    return _recorded(_TRACER, name, None, kind, attributes)


def carried() -> dict[str, str]:
    """The headers (W3C) that hand the current span to another process; none where there is no span."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers)
    return headers


def from_headers(headers: Mapping[str, str]) -> Context:
    """The context with the span that `headers` (names in lower case) carry; an empty one without one."""
    return _PROPAGATOR.extract(headers, Context())


def to_environment() -> dict[str, str]:
    """As `carried`, for a process that is to be started."""
    return {name.upper(): value for name, value in carried().items()}


def from_environment() -> Context:
    """The context with the span that this process was started for; an empty one without one."""
    return from_headers({name.lower(): os.environ[name] for name in VARIABLES if name in os.environ})


@contextmanager
def _recorded(
    tracer: Tracer,
    name: str,
    parent: Context | None,
    kind: SpanKind,
    attributes: Mapping[str, AttributeValue] | None,
) -> Iterator[Span]:
    with tracer.start_as_current_span(
        name,
        parent,
        kind=kind,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as begun:
        try:
            yield begun
        except BaseException as error:
            fail(begun, type(error).__name__)
            raise


def fail(failed: Span, kind: str) -> None:
    """Say that what the span is about failed, and the `kind` of failure."""
    failed.set_attribute("error.type", kind)
    failed.set_status(StatusCode.ERROR, kind)


@contextmanager
def _attached(parent: Context) -> Iterator[Span]:
    token = context.attach(parent)
    try:
        yield trace.get_current_span()
    finally:
        context.detach(token)
