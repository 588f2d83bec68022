"""Dotted paths: how a spec names code that is too heavy to import where the spec is parsed.

Belongs here: turning such a path into the object. Does not belong here: knowing any particular one.
"""

from __future__ import annotations

import importlib
from typing import Any

from airloop.errors import SpecError


def load(path: str) -> Any:
    """The module `package.module`, or the attribute of `package.module:attribute`.

    Raises `SpecError` when there is none of that name; an import error inside the module is left as it is.
    """
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
        return getattr(module, attribute) if attribute else module
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and not module_name.startswith(error.name or module_name):
            raise
        raise SpecError(
            expected=f"the spec's path {path!r} to name something importable",
            found=str(error),
            next_step="correct the path in the use case's spec",
        ) from None
