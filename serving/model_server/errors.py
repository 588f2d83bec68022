"""The one error type of the model server, and how each protocol shows it.

Belongs here: status codes and their gRPC and HTTP forms. Does not belong here: the wording of any single
error, which stays with the code that finds the fault.
"""

from __future__ import annotations

import enum
from typing import Final

import grpc

# TensorFlow Serving cuts long gRPC messages here; past a few kilobytes gRPC itself would refuse to send them.
_GRPC_MESSAGE_LIMIT: Final = 1024


class Code(enum.IntEnum):
    """The canonical status codes shared by gRPC and TensorFlow, with their wire numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_HTTP_STATUS: Final[dict[Code, int]] = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}

_GRPC_STATUS: Final[dict[int, grpc.StatusCode]] = {status.value[0]: status for status in grpc.StatusCode}


class ServingError(Exception):
    """A request, a configuration or a model that cannot be served.

    `code` says what kind of fault it is, on both protocols; `message` says what was expected and found.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


def http_status(code: Code) -> int:
    """The HTTP status TensorFlow Serving answers for `code` (500 for the codes that HTTP has no word for)."""
    return _HTTP_STATUS.get(code, 500)


def grpc_status(error: ServingError) -> tuple[grpc.StatusCode, str]:
    """The gRPC status and the message, cut to a length that gRPC can carry."""
    message = error.message
    if len(message) > _GRPC_MESSAGE_LIMIT:
        message = message[:_GRPC_MESSAGE_LIMIT] + "...TRUNCATED"
    return _GRPC_STATUS[int(error.code)], message
