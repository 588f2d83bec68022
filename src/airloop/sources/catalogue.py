"""The batch adapters by the short names that a spec uses.

Belongs here: names. Does not belong here: any adapter, which is imported only when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from airloop.dotted import load
from airloop.errors import SpecError
from airloop.sources.contract import SourceAdapter

ADAPTERS: Final[Mapping[str, str]] = {
    "files": "airloop.sources.files:Files",
    "http": "airloop.sources.http_api:HttpApi",
    "nycflights": "airloop.sources.nycflights:NycFlightsReplay",
    "sql": "airloop.sources.sql:Sql",
}


def adapter_class(name: str) -> type[SourceAdapter]:
    """The adapter called `name`: a short name of `ADAPTERS`, or `module:Class`.

    Raises `SpecError` listing the short names when `name` is neither.
    """
    path = ADAPTERS.get(name, name)
    if ":" not in path:
        raise SpecError(
            expected=f"an adapter: {', '.join(sorted(ADAPTERS))}, or module:Class",
            found=repr(name),
            next_step="correct the source's adapter in the use case's spec",
        )
    return cast(type[SourceAdapter], load(path))
