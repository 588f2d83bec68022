"""Which model version a request asks for.

Belongs here: the choice itself and its reading from a `ModelSpec`. Does not belong here: finding the version
(`manager`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serving.model_server.errors import Code, ServingError


@dataclass(frozen=True)
class ModelChoice:
    """A model by name, and a version by number, by label, or (neither given) the highest available."""

    name: str
    version: int | None = None
    label: str | None = None


def choice_of(request: Any) -> ModelChoice:
    """The choice in a request message that has a `model_spec`.

    Raises ServingError (INVALID_ARGUMENT) when the message has no model spec.
    """
    if not request.HasField("model_spec"):
        raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
    spec = request.model_spec
    match spec.WhichOneof("version_choice"):
        case "version":
            return ModelChoice(spec.name, version=spec.version.value)
        case "version_label":
            return ModelChoice(spec.name, label=spec.version_label)
        case _:
            return ModelChoice(spec.name)
