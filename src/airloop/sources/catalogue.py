"""The batch adapters that a spec can name shortly.

Belongs here: names and dotted paths, light enough for Airflow to parse. Does not belong here: any adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from airloop.dotted import load
from airloop.errors import SpecError

if TYPE_CHECKING:
    from airloop.sources.contract import SourceAdapter

ADAPTERS: Final[Mapping[str, str]] = {
    "files": "airloop.sources.files:FilesSource",
    "http": "airloop.sources.http_api:HttpSource",
    "nycflights": "airloop.sources.nycflights:NycFlightsReplay",
    "sql": "airloop.sources.sql:SqlSource",
}


def adapter_class(name: str) -> type[SourceAdapter]:
    """The adapter that a spec calls `name`: a short name of `ADAPTERS`, or `module:Class`.

    Raises `SpecError` listing the short names for any other, and for a path that leads to nothing.
    """
    path = ADAPTERS.get(name, name)
    if ":" not in path:
        raise SpecError(
            expected=f"an adapter: {', '.join(sorted(ADAPTERS))}, or module:Class",
            found=repr(name),
            next_step="correct the source's adapter in the use case's spec",
        )
    adapter: type[SourceAdapter] = load(path)
    return adapter
