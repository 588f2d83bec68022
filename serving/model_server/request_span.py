"""The span of a request, in the trace that the request came with.

Belongs here: what both interfaces say of a request. Does not belong here: how spans are made and sent
(`airloop.traces`), or the step within that runs the model (`servable`).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Tracer

from airloop.traces import VARIABLES, begin, fail, from_headers
from serving.model_server.errors import Code

Headers = Iterable[tuple[str | bytes, str | bytes]]
"""HTTP's as ASGI has them, or gRPC's metadata."""
_CARRIERS: Final = frozenset(name.lower() for name in VARIABLES)
_FAULTS: Final = frozenset(
    {
        Code.UNKNOWN,
        Code.DEADLINE_EXCEEDED,
        Code.UNIMPLEMENTED,
        Code.INTERNAL,
        Code.UNAVAILABLE,
        Code.DATA_LOSS,
    }
)
"""The codes that OpenTelemetry counts as a server's own failure; the others are the client's."""


def request_span(tracer: Tracer | None, name: str, headers: Headers) -> AbstractContextManager[Span]:
    """The span `name` of a request with `headers`; none without a tracer."""
    if tracer is None:
        return nullcontext(INVALID_SPAN)
    return begin(tracer, name, _above(headers), kind=SpanKind.SERVER)


def answered(span: Span, code: Code) -> None:
    """Say how the request of `span` was answered."""
    span.set_attribute("rpc.grpc.status_code", code.value)
    if code in _FAULTS:
        fail(span, code.name)


def lines_of(tracer: Tracer | None, headers: Headers) -> AbstractContextManager[Span]:
    """Has log lines bear the ids of the request with `headers` where it has no span of ours that does."""
    return nullcontext(INVALID_SPAN) if tracer is not None else begin(None, "", _above(headers))


def _above(headers: Headers) -> Context:
    found = {_text(name).lower(): value for name, value in headers}
    return from_headers({name: _text(found[name]) for name in _CARRIERS & found.keys()})


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
