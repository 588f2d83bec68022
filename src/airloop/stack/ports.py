"""Whether the stack's ports are free.

Belongs here: the check and its message. Does not belong here: which ports there are (`programs`).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from airloop.errors import StackError
from airloop.settings import PREFIX


def require_free(host: str, ports: Mapping[str, int]) -> None:
    """Raise `StackError` that names every port of `ports` (setting to number) in use on `host`."""
    taken = [(setting, port) for setting, port in ports.items() if not _is_free(host, port)]
    if taken:
        raise StackError(
            expected="the stack's ports to be free on " + host,
            found="in use: " + ", ".join(f"{port} ({setting})" for setting, port in taken),
            next_step="stop what listens there (`ss -ltnp` names it), or choose other ports: "
            + " ".join(f"{PREFIX}{setting.upper()}={port + 10000}" for setting, port in taken)
            + " make run",
        )


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a connection of an earlier run that still lingers must not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
