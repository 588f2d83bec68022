"""What a line of a CSV or JSON lines file says: its values as text, each bad line set aside alone.

Belongs here: encodings, fields, quotes, JSON syntax. Does not belong here: types (`parsing`), files.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv as arrow_csv

from airloop.errors import SourceError
from airloop.sources.options import AdapterOptions
from airloop.sources.parsing import Problems, columns_of_documents, parse_json
from airloop.use_cases.spec import Feed


class CsvForm(NamedTuple):
    """How a CSV file is written."""

    delimiter: str
    encoding: str
    null_values: tuple[str, ...]
    quoting: bool
    quoted_line_ends: bool


class TextRows(NamedTuple):
    """Records as columns of text, all as long as the records; a record that cannot be read has a problem."""

    columns: Mapping[str, pa.Array]
    problems: Problems


def csv_header(line: bytes, form: CsvForm, name: str) -> tuple[str, ...]:
    """The column names in the first line of the file called `name`.

    Raises `SourceError` when they are no text, or when one stands twice.
    """
    try:
        text = line.decode(form.encoding)
    except UnicodeDecodeError as error:
        raise SourceError(
            expected=f"the header of {name} to be {form.encoding}",
            found=str(error),
            next_step="say the file's encoding in the source's options",
        ) from None
    fields = (
        next(csv.reader([text], delimiter=form.delimiter)) if form.quoting else text.split(form.delimiter)
    )
    names = tuple(fields)
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        raise SourceError(
            expected=f"each column of {name} once",
            found=f"{', '.join(map(repr, twice))} more than once",
            next_step="have the source mend the header",
        )
    return names


def csv_rows(
    feed: Feed, options: AdapterOptions, form: CsvForm, header: Sequence[str], records: Sequence[bytes]
) -> TextRows:
    """The feed's columns of CSV `records`, which are in the order of `header`."""
    problems: Problems = defaultdict(list)
    texts = _as_utf8(records, form.encoding, problems)
    if form.quoting:
        for row, text in enumerate(texts):
            if text is not None and text.count(b'"') % 2:
                problems[row].append("a quote is not closed")
                texts[row] = None
    places = [row for row, text in enumerate(texts) if text is not None]
    tables, invalid = _parsed([text for text in texts if text is not None], form, header, 0)
    for place, reason in invalid.items():
        problems[places[place]].append(reason)
    rows = [row for position, row in enumerate(places) if position not in invalid]
    table = pa.concat_tables(tables) if tables else None
    # Row r of the result is row `of[r]` of the table, or null.
    of = [None] * len(records)
    for position, row in enumerate(rows):
        of[row] = position  # type: ignore[call-overload]  # a list of None takes ints
    index = pa.array(of, pa.int64())
    columns = {
        column.name: pa.nulls(len(records), pa.string())
        if table is None
        else table[options.at_source(column.name)].combine_chunks().take(index)
        for column in feed.columns
    }
    return TextRows(columns, problems)


def json_rows(feed: Feed, options: AdapterOptions, records: Sequence[bytes]) -> tuple[TextRows, list[Any]]:
    """The feed's columns of JSON `records`, and the documents; one that cannot be read is None."""
    unread: Problems = defaultdict(list)
    texts = _as_utf8(records, "utf-8", unread)
    documents = []
    for row, text in enumerate(texts):
        document = None
        if text is not None:
            try:
                document = parse_json(text.decode())
            except ValueError as error:
                unread[row].append(f"no JSON: {error}")
            else:
                if not isinstance(document, dict):
                    unread[row].append("no JSON object")
                    document = None
        documents.append(document)
    columns, problems = columns_of_documents(feed, options, [document or {} for document in documents])
    return TextRows(columns, {**problems, **unread}), documents


def _as_utf8(records: Sequence[bytes], encoding: str, problems: Problems) -> list[bytes | None]:
    """`records` in UTF-8, None for each that is not of `encoding`."""
    if encoding == "utf-8":
        try:
            b"\n".join(records).decode()
            return list(records)
        except UnicodeDecodeError:
            pass
    texts: list[bytes | None] = []
    for row, record in enumerate(records):
        try:
            texts.append(record.decode(encoding).encode())
        except UnicodeDecodeError as error:
            problems[row].append(f"no {encoding} at byte {error.start + 1}: {record[error.start]:#04x}")
            texts.append(None)
    return texts


def _parsed(
    records: Sequence[bytes], form: CsvForm, header: Sequence[str], first: int
) -> tuple[list[pa.Table], dict[int, str]]:
    """The fields of `records` (without the invalid), and what is wrong with the invalid ones, by position.

    A stray quote may swallow the records after it. There are fewer rows than records then, and halving finds
    the one to blame. A row of no meaning at the end, dropped again, shows when it is the last.
    """
    if not records:
        return [], {}
    invalid: dict[int, str] = {}

    def skip(row: arrow_csv.InvalidRow) -> str:
        found, expected = row.actual_columns, row.expected_columns
        invalid[first + row.number - 1] = f"{found} fields instead of {expected}"
        return "skip"

    guard = form.delimiter.join("0" * len(header)).encode()
    text = b"\n".join([*records, guard])
    try:
        table = arrow_csv.read_csv(
            pa.py_buffer(text),
            # One block, so that rows have numbers and nothing is cut.
            read_options=arrow_csv.ReadOptions(
                use_threads=False, column_names=list(header), block_size=len(text) + 1
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=form.delimiter,
                quote_char='"' if form.quoting else False,
                newlines_in_values=form.quoted_line_ends,
                invalid_row_handler=skip,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()),
                null_values=list(form.null_values),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        table = None
    if table is not None and table.num_rows + len(invalid) == len(records) + 1:
        return [table[:-1]], invalid
    if len(records) == 1:
        return [], {first: "a quote stands where none may"}
    middle = len(records) // 2
    left, invalid_left = _parsed(records[:middle], form, header, first)
    right, invalid_right = _parsed(records[middle:], form, header, first + middle)
    return left + right, {**invalid_left, **invalid_right}


def is_line_encoding(encoding: str) -> bool:
    """Whether text in `encoding` can be cut at line ends as bytes: all but UTF-16 and its like."""
    sample = '\n\r",;\t0aZ'
    try:
        return sample.encode(encoding) == sample.encode("ascii")
    except LookupError:
        return False


def canonical_encoding(encoding: str) -> str:
    """`utf-8` however it is written; any other name as it is, in lower case."""
    lowered = encoding.lower()
    return "utf-8" if re.fullmatch(r"utf[-_]?8([-_]sig)?", lowered) else lowered
