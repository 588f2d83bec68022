"""What the columns of a CSV file are, as far as a look at it tells.

Belongs here: types, names, which column is the time, which are categories. Does not belong here: what is
written from them (`write`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from airloop.errors import SourceError

MOST_CATEGORIES: Final = 200
"""Texts that differ more often are taken for names or free text, which are no inputs."""
LONGEST_NAME: Final = 40
TAKEN: Final = frozenset(
    {
        # By the files that are written,
        *("events", "events_7d", "hour", "last_event_at", "hours_since_last_event", "stays_away"),
        # and by the tables that the jobs make of them.
        *("event", "event_timestamp", "label", "outcome", "prediction_time", "request", "split"),
    }
)
"""Names that a column may not have: it is called `own_<name>`."""

_MAY_BE_TIMES: Final = (pa.types.is_timestamp, pa.types.is_date)
_EMPTY: Final = csv.ConvertOptions(null_values=[""], strings_can_be_null=True)
"""As the `files` adapter reads: an empty field is no value, and nothing else is."""


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
    repeats: bool
    """Whether some rows are about the same one at the same time."""

    @property
    def columns(self) -> tuple[CsvColumn, ...]:
        """All of them; those with a part of their own come first."""
        return (self.key, self.time, *self.categories, *self.numbers, *self.others)


def read_table(path: Path, *, key: str | None = None, time: str | None = None) -> CsvTable:
    """What `path` holds. `key` and `time` name columns of its header, where the file leaves it open.

    Columns without any value are left out. Raises `SourceError` for a file that cannot be read, where it does
    not tell which column is meant, and for days without a row.
    """
    table = _read(path)
    times = [name for name in table.column_names if _is_time(table[name].type)]
    time = _chosen(table.column_names, time, times, path, what="when each row happened", variable="TIME")
    if time not in times:
        raise SourceError(
            expected=f"times or dates, such as 2024-03-05T17:30:00Z or 2024-03-05, in {time} of {path}",
            found=f"{table[time].type}, such as {table[time][0]}",
            next_step="write them so in the file, or name another column with TIME=<column>",
        )
    others = [name for name in table.column_names if name != time]
    keys = [name for name in others if re.search(r"(^|_)id$|Id$|ID$", name)]
    key = _chosen(others, key, keys, path, what="whom or what each row is about", variable="KEY")
    for name in (key, time):
        if table[name].null_count:
            raise SourceError(
                expected=f"a value of {name} in each row of {path}",
                found=f"none in {table[name].null_count} of {table.num_rows}",
                next_step="leave those rows out, or name another column with KEY=<column> and TIME=<column>",
            )
    names = _names(table.column_names, time, path)
    found = {name: _column(names[name], name, table[name]) for name in table.column_names}
    rest = [column for name, column in found.items() if name not in (key, time)]
    texts = [column for column in rest if column.type == "string"]
    categories = [one for one in texts if pc.count_distinct(table[one.found_as]).as_py() <= MOST_CATEGORIES]
    first_day, last_day = _days(table[time], path)
    both = pa.table({"key": pc.cast(table[key], pa.string()), "time": table[time]})
    return CsvTable(
        path=path,
        rows=table.num_rows,
        key=CsvColumn(names[key], key, "string", complete=True, example=found[key].example),
        time=found[time],
        categories=tuple(categories),
        numbers=tuple(column for column in rest if column.type == "double"),
        others=tuple(
            column
            for column in rest
            if column.type == "timestamp" or (column in texts and column not in categories)
        ),
        first_day=first_day,
        last_day=last_day,
        repeats=both.group_by(["key", "time"]).aggregate([]).num_rows < table.num_rows,
    )


def _read(path: Path) -> pa.Table:
    try:
        table = csv.read_csv(path, convert_options=_EMPTY)
        twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
        if twice:
            raise pa.ArrowInvalid(f"the column {', '.join(twice)} twice in the header")
    except (OSError, pa.ArrowException) as error:
        raise SourceError(
            expected=f"a CSV file with a header at {path}",
            found=str(error),
            next_step="name one with CSV=<path>; fields are separated by commas, texts in UTF-8",
        ) from None
    if not table.num_rows:
        raise SourceError(
            expected=f"rows in {path}", found="none", next_step="name a file that has some, with CSV=<path>"
        )
    return table.select([name for name in table.column_names if table[name].null_count < table.num_rows])


def _is_time(found: pa.DataType) -> bool:
    return any(may_be(found) for may_be in _MAY_BE_TIMES)


def _chosen(
    names: Sequence[str], given: str | None, guesses: Sequence[str], path: Path, *, what: str, variable: str
) -> str:
    if given is not None and given in names:
        return given
    if given is None and len(guesses) == 1:
        return guesses[0]
    several = f"{' and '.join(guesses)} may both be it"
    raise SourceError(
        expected=f"one column of {path} that says {what}" + (f", called {given}" if given else ""),
        found=several if not given and guesses else f"columns {', '.join(names)}",
        next_step=f"name it with {variable}=<column>",
    )


def _days(times: pa.ChunkedArray, path: Path) -> tuple[date, date]:
    """The first and the last day; raises `SourceError` for days between them without a row."""
    days = set(pc.unique(pc.cast(times, pa.date32(), safe=False)).to_pylist())
    first, last = min(days), max(days)
    missing = sorted({first + timedelta(days=n) for n in range((last - first).days)} - days)
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise SourceError(
            expected=f"a row for each day from {first} to {last} in {path}: the audit takes one without "
            "for a day whose data were lost",
            found=f"none on {len(missing)} days: {shown}",
            next_step="name a file without gaps, or events that happen every day",
        )
    return first, last


def _names(header: Sequence[str], time: str, path: Path) -> dict[str, str]:
    """What each column is called; raises `SourceError` where two would be called alike."""
    taken = {*TAKEN, f"{identifier(time)}_local"}
    taken |= {f"{identifier(name)}{end}" for name in header for end in ("_7d", "_mean_7d")}
    names: dict[str, str] = {}
    for name in header:
        plain = identifier(name)
        plain = f"own_{plain}" if plain in taken else plain
        if plain in names.values():
            other = next(one for one, called in names.items() if called == plain)
            raise SourceError(
                expected=f"columns of {path} whose names differ in {LONGEST_NAME} letters and digits",
                found=f"{other!r} and {name!r}",
                next_step="rename one of the two in the file",
            )
        names[name] = plain
    return names


def _column(name: str, found_as: str, values: pa.ChunkedArray) -> CsvColumn:
    complete, known = values.null_count == 0, values.drop_null()
    if _is_time(values.type):
        moment = pc.cast(known, pa.timestamp("us"), safe=False)[-1].as_py()
        return CsvColumn(name, found_as, "timestamp", complete, f"{moment.isoformat()}+00:00")
    example = str(known[-1].as_py())
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        return CsvColumn(name, found_as, "double", complete, example, float(pc.min(values).as_py()))
    if pa.types.is_boolean(values.type):
        example = example.lower()
    return CsvColumn(name, found_as, "string", complete, example)


def identifier(name: str) -> str:
    """`name` as a spec can have it: `OrderDate` and `order date` become `order_date`."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    plain = re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_")
    plain = plain if re.match("[a-z]", plain) else f"column_{plain}"
    return plain[:LONGEST_NAME].strip("_")
