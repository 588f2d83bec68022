"""What the columns of a CSV file are, as far as a look at it tells.

Belongs here: types, names, which column is the time, which are categories. Does not belong here: what is
written from them (`write`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from airloop.errors import SourceError

MOST_CATEGORIES: Final = 200
"""Texts that differ more often are taken for names or free text, which are no inputs."""

_MAY_BE_TIMES: Final = (pa.types.is_timestamp, pa.types.is_date)


@dataclass(frozen=True)
class CsvColumn:
    """A column of the file."""

    name: str
    """As the use case calls it."""
    found_as: str
    """As the file's header has it."""
    type: Literal["string", "double", "timestamp"]
    complete: bool
    """Whether every row has a value."""
    example: str
    """A value of it; of a time, with its offset."""
    smallest: float | None = None
    """Of numbers."""


@dataclass(frozen=True)
class CsvTable:
    """The file: who or what its rows are about, when each happened, and what else they say."""

    path: Path
    rows: int
    key: CsvColumn
    time: CsvColumn
    categories: tuple[CsvColumn, ...]
    numbers: tuple[CsvColumn, ...]
    others: tuple[CsvColumn, ...]
    """Texts that are no categories, and further times."""
    first_day: date
    last_day: date

    @property
    def columns(self) -> tuple[CsvColumn, ...]:
        """All of them; those with a part of their own come first."""
        return (self.key, self.time, *self.categories, *self.numbers, *self.others)


def read_table(path: Path, *, key: str | None = None, time: str | None = None) -> CsvTable:
    """What `path` holds. `key` and `time` name columns of its header, where the file leaves it open.

    Raises `SourceError` for a file that cannot be read, and where it does not tell which column is meant.
    """
    try:
        table = csv.read_csv(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise SourceError(
            expected=f"a CSV file with a header at {path}",
            found=str(error),
            next_step="name one with CSV=<path>; fields are separated by commas, texts in UTF-8",
        ) from None
    if not table.num_rows:
        raise SourceError(
            expected=f"rows in {path}", found="none", next_step="name a file that has some, with CSV=<path>"
        )
    times = [name for name in table.column_names if _is_time(table[name].type)]
    time = _chosen(table.column_names, time, times, path, what="when each row happened", variable="TIME")
    if time not in times:
        raise SourceError(
            expected=f"times or dates, such as 2024-03-05T17:30:00Z or 2024-03-05, in {time} of {path}",
            found=f"{table[time].type}, such as {table[time][0]}",
            next_step="write them so in the file, or name another column with TIME=<column>",
        )
    keys = [name for name in table.column_names if re.search(r"(^|_)id$|Id$|ID$", name)]
    key = _chosen(table.column_names, key, keys, path, what="whom or what each row is about", variable="KEY")
    found = {name: _column(name, table[name]) for name in table.column_names}
    named: dict[str, str] = {}
    for name, column in found.items():
        if column.name in named:
            raise SourceError(
                expected=f"columns of {path} whose names differ in letters and digits",
                found=f"{named[column.name]!r} and {name!r}",
                next_step="rename one of the two in the file",
            )
        named[column.name] = name
    rest = [column for name, column in found.items() if name not in (key, time)]
    texts = [column for column in rest if column.type == "string"]
    categories = [one for one in texts if pc.count_distinct(table[one.found_as]).as_py() <= MOST_CATEGORIES]
    days = pc.min_max(pc.cast(table[time], pa.date32())).as_py()
    return CsvTable(
        path=path,
        rows=table.num_rows,
        key=CsvColumn(found[key].name, key, "string", found[key].complete, found[key].example),
        time=found[time],
        categories=tuple(categories),
        numbers=tuple(column for column in rest if column.type == "double"),
        others=tuple(
            column
            for column in rest
            if column.type == "timestamp" or (column in texts and column not in categories)
        ),
        first_day=days["min"],
        last_day=days["max"],
    )


def _is_time(found: pa.DataType) -> bool:
    return any(may_be(found) for may_be in _MAY_BE_TIMES)


def _chosen(
    names: Sequence[str], given: str | None, guesses: Sequence[str], path: Path, *, what: str, variable: str
) -> str:
    if given is not None and given in names:
        return given
    if given is None and len(guesses) == 1:
        return guesses[0]
    raise SourceError(
        expected=f"one column of {path} that says {what}" + (f", called {given}" if given else ""),
        found=f"{' and '.join(guesses)} may both be it"
        if not given and guesses
        else f"columns {', '.join(names)}",
        next_step=f"name it with {variable}=<column>",
    )


def _column(name: str, values: pa.ChunkedArray) -> CsvColumn:
    complete, known = values.null_count == 0, values.drop_null()
    example = known[-1].as_py() if len(known) else ""
    if _is_time(values.type):
        moment = pc.cast(known, pa.timestamp("us"))[-1].as_py() if len(known) else None
        said = f"{moment.isoformat()}+00:00" if moment else ""
        return CsvColumn(identifier(name), name, "timestamp", complete, said)
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        smallest = float(pc.min(values).as_py())
        return CsvColumn(identifier(name), name, "double", complete, str(example), smallest)
    complete = complete and not pc.any(pc.equal(pc.cast(values, pa.string()), "")).as_py()
    return CsvColumn(identifier(name), name, "string", complete, str(example))


def identifier(name: str) -> str:
    """`name` as a spec can have it: `OrderDate` and `order date` become `order_date`."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    plain = re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_")
    return plain if re.match("[a-z]", plain) else f"column_{plain}"
