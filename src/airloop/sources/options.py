"""The options of a batch source, as a spec gives them: text by name, with exceptions for single feeds.

Belongs here: turning them into a typed, checked set for one feed, and the options that all adapters share.
Does not belong here: the options of one adapter (its own module).

A name is an option (`path`), an option for one feed (`weather.path`), the name that a column has at the
source (`column.tail_number`), or that for one feed (`planes.column.tail_number`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from airloop.errors import SpecError
from airloop.use_cases.spec import Feed

COLUMN: Final = "column"
"""Prefix of the options that name a column as the source does."""


class AdapterOptions(BaseModel):
    """What every adapter lets a spec say about a feed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_zone: str = "UTC"
    """IANA zone of the source's times that have no offset, for columns of type `timestamp`."""
    timestamp_unit: Literal["s", "ms", "us", "ns"] | None = None
    """Unit of times given as a whole number since 1970 in UTC; by default such a number is malformed."""
    nan_is_null: bool = False
    """Whether NaN in a number column stands for a missing value; by default it is malformed."""
    column: dict[str, str] = {}
    """What the source calls a column, by the feed's name of it; by default the same."""

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{value!r} is no IANA time zone") from None
        return value

    def at_source(self, name: str) -> str:
        """What the source calls the feed's column `name`."""
        return self.column.get(name, name)


Options = TypeVar("Options", bound=AdapterOptions)


def options_for(kind: type[Options], feed: Feed, given: Mapping[str, str]) -> Options:
    """The options that hold for `feed`: those of all feeds, overridden by the feed's own.

    Raises `SpecError` naming every unknown or unusable option at once.
    """
    general: dict[str, str] = {}
    own: dict[str, str] = {}
    columns: dict[str, str] = {}
    own_columns: dict[str, str] = {}
    problems = []
    for name, value in given.items():
        owner, dot, rest = name.partition(".")
        if not dot:
            general[name] = value
        elif owner == COLUMN:
            columns[rest] = value
        elif rest.startswith(f"{COLUMN}."):
            if owner == feed.name:
                own_columns[rest.removeprefix(f"{COLUMN}.")] = value
        elif rest not in kind.model_fields or rest == COLUMN:
            problems.append(f"{name}: there is no option {rest!r}")
        elif owner == feed.name:
            own[rest] = value
    names = {column.name for column in feed.columns}
    problems += [f"{feed.name}.{COLUMN}.{name}: no column of the feed" for name in own_columns.keys() - names]
    renamed = {name: at for name, at in {**columns, **own_columns}.items() if name in names}
    options = None
    try:
        options = kind.model_validate({**general, **own, COLUMN: renamed})
    except ValidationError as error:
        problems += [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
    if problems or options is None:
        raise SpecError(
            expected=f"options for feed {feed.name!r} among {', '.join(sorted(kind.model_fields))}, each of "
            "its form",
            found="; ".join(sorted(problems)),
            next_step="correct the source's options in the use case's spec; docs/how-to/add-a-source.md "
            "lists them",
        )
    return options
