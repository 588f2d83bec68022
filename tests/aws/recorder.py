"""Writes down every call that boto3 and aiobotocore make in a process: service, operation, parameters.

Belongs here: listening, and reading what was heard. Does not belong here: what is expected of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import botocore
from botocore.loaders import create_loader

LOADER = create_loader()
"""One for all sessions: services' models are read once, and not for each of a task's clients."""


class Call(NamedTuple):
    """One request as the client was asked for it."""

    service: str
    operation: str
    parameters: dict[str, Any]


class Recorder:
    """A file that several processes write to, a line for each call."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def listen(self) -> None:
        """Have each session that is made from now on in this process write its calls down."""
        botocore.register_initializer(self._attach)

    def stop(self) -> None:
        """Have no new session do so."""
        botocore.unregister_initializer(self._attach)

    def _attach(self, session: Any) -> None:
        session.register_component("data_loader", LOADER)
        session.register("before-parameter-build", self._heard)

    def _heard(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        said = [model.service_model.service_name, model.name, params]
        with self.file.open("a") as stream:
            stream.write(json.dumps(said, default=lambda value: f"<{type(value).__name__}>") + "\n")

    def calls(self, operation: str = "") -> list[Call]:
        """What was heard, of one operation or of all."""
        return [call for call in self._all() if operation in ("", call.operation)]

    def _all(self) -> Iterator[Call]:
        if self.file.exists():
            for line in self.file.read_text().splitlines():
                yield Call(*json.loads(line))
