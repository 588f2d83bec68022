"""References as command-line arguments.

Belongs here: parsing them, with an error that a person can act on. Does not belong here: what a job does.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from airloop.errors import SpecError
from airloop.references import Reference

R = TypeVar("R", bound=Reference)


def parse_reference(kind: type[R], text: str, flag: str) -> R:
    """The reference that `text`, the value of `flag`, is in JSON; raises `SpecError` for anything else."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'the text'}: {item['msg']}" for item in error.errors()
        )
        raise SpecError(
            expected=f"{flag} to be a {kind.__name__} reference in JSON",
            found=found,
            next_step=f"pass what the job that makes the {kind.__name__} wrote to its result file",
        ) from None
