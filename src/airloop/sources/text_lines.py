"""Cuts a stream of bytes into records of lines, in pieces of bounded size.

Belongs here: lines, their numbers, and records that span lines. Does not belong here: what a line says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Final, NamedTuple

from airloop.errors import SourceError
from airloop.sources.parsing import PIECE_ROWS

BLOCK_BYTES: Final = 8 << 20
LONGEST_LINE: Final = 8 << 20
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
LONGEST_RECORD_LINES: Final = 1_000
"""A quoted value that spans more lines than this was not meant to be: its quote is a stray one."""


class Lines(NamedTuple):
    """Some records as received, and the number of each one's first line (the file's first line is 1)."""

    numbers: list[int]
    texts: list[bytes]


def pieces_of(stream: IO[bytes], name: str, *, quoted_line_ends: bool = False) -> Iterator[Lines]:
    """The records of `stream`, blank lines left out, at most `PIECE_ROWS` or a few megabytes at a time.

    With `quoted_line_ends`, a line end within double quotes is part of a value.
    Raises `SourceError` naming the file for a line longer than `LONGEST_LINE` bytes.
    """
    first, rest = 1, b""
    at_start = True
    held = Lines([], [])
    while True:
        block = stream.read(BLOCK_BYTES)
        if at_start:
            block, at_start = block.removeprefix(BYTE_ORDER_MARK), False
        texts = (rest + block).split(b"\n")
        rest = texts.pop() if block else b""
        if len(rest) > LONGEST_LINE:
            raise SourceError(
                expected=f"lines of at most {LONGEST_LINE >> 20} MiB in {name}",
                found=f"a longer one, line {first + len(texts)}",
                next_step="check that the file is of the format that the source's options say",
            )
        numbers = list(range(first, first + len(texts)))
        first += len(texts)
        found = Lines(held.numbers + numbers, held.texts + texts)
        if quoted_line_ends:
            found, held = _joined(found, last=not block)
        filled = [
            (number, text.removesuffix(b"\r"))
            for number, text in zip(found.numbers, found.texts, strict=True)
            if text and text != b"\r"
        ]
        for start in range(0, len(filled), PIECE_ROWS):
            piece = filled[start : start + PIECE_ROWS]
            yield Lines([number for number, _ in piece], [text for _, text in piece])
        if not block:
            return


def _joined(lines: Lines, *, last: bool) -> tuple[Lines, Lines]:
    """`lines` as records whose quotes are closed, and the lines of an unfinished one at the end."""
    records = Lines([], [])
    position, count = 0, len(lines.texts)
    while position < count:
        end, quotes = position, lines.texts[position].count(b'"')
        while quotes % 2 and end + 1 < count and end - position < LONGEST_RECORD_LINES:
            end += 1
            quotes += lines.texts[end].count(b'"')
        if quotes % 2:
            if not last and end - position < LONGEST_RECORD_LINES:
                return records, Lines(lines.numbers[position:], lines.texts[position:])
            end = position  # the quote is a stray one; only its own line suffers
        records.numbers.append(lines.numbers[position])
        records.texts.append(b"\n".join(lines.texts[position : end + 1]))
        position = end + 1
    return records, Lines([], [])
