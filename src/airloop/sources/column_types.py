"""What counts as a value of each column type, whether it comes as text or from a typed source.

Belongs here: the conversion of one column, and finding the values that do not fit. Does not belong here: rows
and feeds (`parsing`).

A column is converted whole by Arrow's kernels. Where a kernel refuses, halving finds the values that it
refuses, so that a good value becomes the same whatever its neighbours are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from airloop.sources.contract import ARROW_TYPES
from airloop.sources.options import AdapterOptions
from airloop.use_cases.spec import ColumnType

MEANING: Final[Mapping[ColumnType, str]] = {
    "string": "text",
    "long": "whole number of 64 bits",
    "integer": "whole number of 32 bits",
    "double": "finite number",
    "float": "finite number of 32 bits",
    "boolean": "boolean",
    "timestamp": "instant",
    "local_timestamp": "wall-clock time without an offset",
}
"""What a reason calls a value of the type."""

SHOWN: Final = 80
"""Characters of a bad value that a reason repeats."""

_INSTANT, _WALL_CLOCK = ARROW_TYPES["timestamp"], ARROW_TYPES["local_timestamp"]
_NUMBERS: Final = ("long", "integer", "double", "float")
_WHOLE: Final = "^-?[0-9]+$"
_DECIMAL: Final = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_TRUTH: Final = "^(?i:true|false|0|1)$"
_WALL_TIME: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}(:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?)?)?"
_OFFSET: Final = "(Z|[+-][0-9]{2}(:?[0-9]{2})?)"
_BEYOND_MICROSECONDS: Final = r"(\.[0-9]{6})[0-9]+"


def type_column(
    values: pa.Array, declared: ColumnType, options: AdapterOptions
) -> tuple[pa.Array, Sequence[int]]:
    """`values` as `declared`, null where they cannot be, and the rows where they cannot."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    target = ARROW_TYPES[declared]
    if options.nan_is_null and declared in _NUMBERS:
        values = _without_nan(values)
    convert = _from_text(declared, options) if values.type == pa.string() else _from_arrow(declared, options)
    converted = pa.chunked_array(_halved(values, convert, target), target).combine_chunks()
    if declared in ("double", "float"):
        converted = pc.if_else(pc.is_finite(converted), converted, None)
    refused = pc.and_(converted.is_null(), values.is_valid())
    return converted, pc.indices_nonzero(refused).to_pylist()


def can_become(found: pa.DataType, declared: ColumnType) -> bool:
    """Whether values of `found` are values of `declared` without guessing; single ones may not fit."""
    types = pa.types
    if types.is_null(found):
        return True
    if types.is_dictionary(found):
        return can_become(found.value_type, declared)
    number = types.is_integer(found) or types.is_floating(found) or types.is_decimal(found)
    allowed: dict[ColumnType, bool] = {
        "string": types.is_string(found) or types.is_large_string(found) or types.is_string_view(found),
        "long": number,
        "integer": number,
        "double": number,
        "float": number,
        "boolean": types.is_boolean(found),
        "timestamp": types.is_timestamp(found),
        "local_timestamp": types.is_timestamp(found) and found.tz is None,
    }
    return allowed[declared]


def _halved(values: pa.Array, convert: Callable[[pa.Array], pa.Array], target: pa.DataType) -> list[pa.Array]:
    """`values` converted, in chunks; null where `convert` refuses."""
    try:
        return [convert(values)]
    except pa.ArrowInvalid:
        if len(values) == 1:
            return [pa.nulls(1, target)]
    middle = len(values) // 2
    return _halved(values[:middle], convert, target) + _halved(values[middle:], convert, target)


def _from_text(declared: ColumnType, options: AdapterOptions) -> Callable[[pa.Array], pa.Array]:
    """What converts text: null where it is not of the type's form; Arrow refuses the rest."""
    target = ARROW_TYPES[declared]

    def of_form(values: pa.Array, form: str) -> pa.Array:
        values = pc.utf8_trim_whitespace(values)
        return pc.if_else(pc.match_substring_regex(values, form), values, None)

    def number(values: pa.Array) -> pa.Array:
        # Without a form of our own, Arrow would read 0x1A as 26.
        return pc.cast(of_form(values, _WHOLE if pa.types.is_integer(target) else _DECIMAL), target)

    def wall_clock(values: pa.Array) -> pa.Array:
        return pc.cast(pc.replace_substring_regex(values, _BEYOND_MICROSECONDS, r"\1"), _WALL_CLOCK)

    def local_time(values: pa.Array) -> pa.Array:
        return wall_clock(of_form(values, _WALL_TIME + "$"))

    def instant(values: pa.Array) -> pa.Array:
        exact = of_form(values, _WALL_TIME + _OFFSET + "$")
        exact = pc.cast(pc.replace_substring_regex(exact, _BEYOND_MICROSECONDS, r"\1"), target)
        local = pc.assume_timezone(local_time(values), options.time_zone)
        found = pc.coalesce(exact, pc.cast(local, target))
        if options.timestamp_unit is not None:
            counted = pc.cast(of_form(values, _WHOLE), pa.int64())
            counted = _microseconds(pc.cast(counted, pa.timestamp(options.timestamp_unit, tz="UTC")), "UTC")
            found = pc.coalesce(found, counted)
        return found

    forms: dict[ColumnType, Callable[[pa.Array], pa.Array]] = {
        "string": lambda values: values,
        "boolean": lambda values: pc.cast(of_form(values, _TRUTH), target),
        "timestamp": instant,
        "local_timestamp": local_time,
    }
    return forms.get(declared, number)


def _from_arrow(declared: ColumnType, options: AdapterOptions) -> Callable[[pa.Array], pa.Array]:
    """What converts values that have a type already."""
    target = ARROW_TYPES[declared]

    def convert(values: pa.Array) -> pa.Array:
        if pa.types.is_timestamp(target) and not pa.types.is_null(values.type):
            return _microseconds(values, options.time_zone if declared == "timestamp" else None)
        if pa.types.is_floating(target) and pa.types.is_decimal(values.type):
            return pc.cast(values, target, safe=False)
        return pc.cast(values, target)

    return convert


def _without_nan(values: pa.Array) -> pa.Array:
    """`values` with null in place of NaN, where their type has it."""
    if pa.types.is_floating(values.type):
        return pc.if_else(pc.is_nan(values), None, values)
    if values.type == pa.string():
        return pc.if_else(pc.match_substring_regex(values, r"(?i)^\s*nan\s*$"), None, values)
    return values


def _microseconds(values: pa.Array, zone: str | None) -> pa.Array:
    """Timestamps of any unit; what is finer than a microsecond is cut off."""
    if zone is not None and values.type.tz is None:
        values = pc.assume_timezone(values, zone)
    target = _WALL_CLOCK if zone is None else _INSTANT
    return pc.cast(values, options=pc.CastOptions(target, allow_time_truncate=True))


def shown(value: Any) -> str:
    """`value` as a reason repeats it: quoted, cut short, never unprintable."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = ascii(value) if isinstance(value, str) and not is_unicode(value) else repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def is_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8; half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
