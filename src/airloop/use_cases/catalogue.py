"""Finds the use cases: every module of this package that defines `USE_CASE`.

Belongs here: discovery. Does not belong here: a list of use cases; adding a module is enough.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from traceback import extract_tb
from types import ModuleType

from airloop import use_cases
from airloop.errors import SpecError
from airloop.use_cases.spec import UseCase


@cache
def all_use_cases() -> tuple[UseCase, ...]:
    """Every use case, by name; raises `SpecError` for two of one name."""
    found: dict[str, UseCase] = {}
    for module_info in pkgutil.iter_modules(use_cases.__path__):
        module = _imported(module_info.name)
        spec = getattr(module, "USE_CASE", None)
        if not isinstance(spec, UseCase):
            continue
        if spec.name in found:
            raise SpecError(
                expected="use case names to be unique",
                found=f"{spec.name!r} again in {module.__name__}",
                next_step="rename one of the two",
            )
        found[spec.name] = spec
    for spec in found.values():
        _require_lent_online(spec, found)
    return tuple(found[name] for name in sorted(found))


def _require_lent_online(spec: UseCase, others: Mapping[str, UseCase]) -> None:
    lent = [table for table in spec.feature_tables if table.made_by is not None]
    lender = others.get(spec.lender) if spec.lender is not None else None
    if spec.is_online and lent and lender is not None and not lender.is_online:
        raise SpecError(
            expected=f"the features that {spec.name} borrows to be in the online store",
            found=f"{lender.name} is scored in batches, and writes none there",
            next_step=f"make serving of {lender.name} online, or that of {spec.name} batch",
        )


def _imported(name: str) -> ModuleType:
    """The module of that name; raises `SpecError` naming the file and the line of what is wrong."""
    file = f"src/airloop/use_cases/{name}.py"
    try:
        return importlib.import_module(f"{use_cases.__name__}.{name}")
    except SpecError as error:
        raise SpecError(
            expected=error.expected, found=error.found, next_step=f"{error.next_step} (it is {file})"
        ) from None
    except Exception as error:
        lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename.endswith(file)]
        line = getattr(error, "lineno", None) or next(reversed(lines), None)
        raise SpecError(
            expected=f"{file} to be a module that Python can import",
            found=f"{type(error).__name__}: {error}" + (f" (line {line})" if line else ""),
            next_step="mend that line; make try-use-case tells whether it holds",
        ) from error


def use_case(name: str) -> UseCase:
    """The use case called `name`; raises `SpecError` listing those there are."""
    for spec in all_use_cases():
        if spec.name == name:
            return spec
    raise SpecError(
        expected=f"one of the use cases {', '.join(spec.name for spec in all_use_cases()) or '(none)'}",
        found=repr(name),
        next_step="correct the name, or add its module under src/airloop/use_cases/",
    )
