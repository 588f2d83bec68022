"""Ports for a stack that a test has for itself.

Belongs here: finding them. Does not belong here: the stack.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any, Final

PORTS: Final = (
    "airflow_port",
    "mlflow_port",
    "gateway_port",
    "model_server_grpc_port",
    "model_server_rest_port",
)
"""The settings of the embedded stack's programs."""


def free_ports() -> dict[str, Any]:
    """A port that nobody listens on for each program, by its setting."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in PORTS]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return {name: listener.getsockname()[1] for name, listener in zip(PORTS, sockets, strict=True)}
