"""What a trace of a subject looks like, in a text, in bytes, in a column, in a column's bounds.

Belongs here: telling a trace from a longer name that merely contains it. Does not belong here: files and
tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from mmap import mmap
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from airloop.pseudonyms import pseudonym

Kind = Literal["exact", "similar"]
SHORTEST_BOUND = 8
"""Bytes of a cut-off bound that still point to one long value."""


@dataclass(frozen=True)
class Traces:
    """Everything that names one subject: its value, and the value's pseudonyms under each key.

    A trace is `exact` where nothing continues it, and `similar` where it is a part of a name that goes on
    after a hyphen or underscore (`N14228-1`): another subject, or this one inside a composed key; only a
    person can tell. Inside a longer word it is no trace.
    """

    values: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, subject: str, keys: Sequence[bytes]) -> Traces:
        """The traces of `subject` where pseudonyms were made with `keys`."""
        return cls((subject, *(pseudonym(subject, key) for key in keys)))

    @cached_property
    def forms(self) -> tuple[str, ...]:
        """The values as texts have them, also escaped as in JSON."""
        escaped = (json.dumps(value)[1:-1] for value in self.values)
        return tuple(dict.fromkeys((*self.values, *escaped)))

    @cached_property
    def _pattern(self) -> re.Pattern[bytes]:
        forms = b"|".join(re.escape(form.encode()) for form in self.forms)
        return re.compile(rb"(?<![A-Za-z0-9])(?:" + forms + rb")(?![A-Za-z0-9])")

    def places(self, data: bytes | mmap) -> Iterator[tuple[int, int, Kind]]:
        """Start, end and kind of each trace in `data`."""
        for match in self._pattern.finditer(data):
            start, end = match.span()
            before, after = data[max(0, start - 2) : start], data[end : end + 2]
            goes_on = re.fullmatch(rb"[A-Za-z0-9][-_]", before) or re.fullmatch(rb"[-_][A-Za-z0-9]", after)
            yield start, end, "similar" if goes_on else "exact"

    def kind_in(self, data: bytes | str) -> Kind | None:
        """The kind of trace in `data`, an exact one first; None where there is none."""
        kinds = {kind for *_, kind in self.places(data.encode() if isinstance(data, str) else data)}
        return "exact" if "exact" in kinds else "similar" if kinds else None

    def rows_named(self, column: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Whether each value of a string column is the subject."""
        return pc.is_in(column, value_set=pa.array(self.values, column.type))

    def kinds_of(self, column: pa.Array | pa.ChunkedArray) -> dict[int, Kind]:
        """The kind of trace in each value of a string or binary column that has one, by position."""
        found: dict[int, Kind] = {}
        start = 0
        # Chunk by chunk: Arrow crashes over the indices of a column without chunks.
        for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            for form in self.forms:
                there = pc.indices_nonzero(pc.match_substring(chunk, form).fill_null(False))
                for place in there.to_pylist():
                    kind = self.kind_in(chunk[place].as_py())
                    if kind is not None:
                        found[start + place] = kind
            start += len(chunk)
        return found

    def in_bound(self, bound: bytes) -> bool:
        """Whether a column's bound, which Iceberg may cut off (and round up), gives the subject away."""
        if self.kind_in(bound) == "exact":
            return True
        if len(bound) < SHORTEST_BOUND:
            return False
        rounded = bound[:-1] + bytes([max(bound[-1], 1) - 1])
        forms = [form.encode() for form in self.forms]
        return any(form.startswith((bound, rounded)) for form in forms)
