"""An ASGI application that is made at its first request.

Belongs here: the delay. Does not belong here: any application.

Airflow imports the plugin in every process, and most of them never serve a request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class LateApp:
    """What `build` returns, made once it is asked for anything."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build, self._app = build, None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, as ASGI has it."""
        if self._app is None:
            self._app = self._build()
        await self._app(scope, receive, send)
