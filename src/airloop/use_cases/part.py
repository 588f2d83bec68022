"""What every part of a use case's spec is made of.

Belongs here: the base of the parts, and the texts that several have. Does not belong here: any part.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
DottedPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?$")]
Cron = Annotated[str, StringConstraints(pattern=r"^(\S+\s+){4}\S+$")]


class SpecPart(BaseModel):
    """Base of every part of a spec: frozen, unknown fields rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid")
