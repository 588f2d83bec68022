"""An OpenTelemetry collector on loopback: takes spans by OTLP over HTTP, as a real one does.

Belongs here: receiving and decoding. Does not belong here: expectations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status


class Received(NamedTuple):
    """A span that arrived; ids are hexadecimal, `parent_id` is empty for a trace's first span."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    links: list[str]
    """Ids of the spans that it is linked to."""
    failed: bool
    events: int
    start_nanoseconds: int
    """Since 1970, as the end."""
    end_nanoseconds: int


class Collector(NamedTuple):
    """Where spans are sent, and those that came."""

    endpoint: str
    spans: list[Received]

    def named(self, name: str, service: str | None = None) -> list[Received]:
        """The spans of that name."""
        return [span for span in self.spans if span.name == name and service in (None, span.service)]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens until the end of the block."""
    received: list[Received] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            assert self.headers["Content-Type"] == "application/x-protobuf"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.extend(_spans(ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Collector(f"http://127.0.0.1:{server.server_port}", received)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for resource in request.resource_spans:
        service = _values(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Received(
                    service=service,
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    attributes=_values(span.attributes),
                    links=[link.span_id.hex() for link in span.links],
                    failed=span.status.code == Status.STATUS_CODE_ERROR,
                    events=len(span.events),
                    start_nanoseconds=span.start_time_unix_nano,
                    end_nanoseconds=span.end_time_unix_nano,
                )


def _values(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {item.key: _value(item.value) for item in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind is not None else None
