"""Files as a source: CSV, JSON lines or Parquet, on the local disk or in object storage.

Belongs here: which files an interval has, and the reading of each in pieces. Does not belong here: where
files lie (`file_store`), how text is cut and read (`text_lines`, `text_formats`), types (`parsing`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field as OptionField
from pydantic import field_validator

from airloop.connections import Connection
from airloop.errors import SourceError
from airloop.intervals import Interval
from airloop.settings import Settings
from airloop.sources.contract import ARROW_TYPES, Delivery
from airloop.sources.file_paths import expand
from airloop.sources.file_store import FileStore, StoredFile, open_store, understood
from airloop.sources.options import AdapterOptions, options_for
from airloop.sources.parsing import (
    PIECE_ROWS,
    TypedRows,
    deliver,
    payload_text,
    require_columns,
    require_types,
    type_rows,
)
from airloop.sources.text_formats import (
    CsvForm,
    TextRows,
    canonical_encoding,
    csv_header,
    csv_rows,
    is_line_encoding,
    json_rows,
)
from airloop.sources.text_lines import pieces_of
from airloop.use_cases.spec import Feed


class FileOptions(AdapterOptions):
    """Options of the `files` adapter."""

    path: str
    """A local path (relative to the repository) or `s3://bucket/key`; see `airloop.sources.file_paths`."""
    format: Literal["csv", "jsonl", "parquet"]
    missing: Literal["refuse", "allow"] = "refuse"
    """Whether a path that names no file is an error, or an hour without records."""
    delimiter: str = OptionField(",", min_length=1, max_length=1)
    encoding: str = "utf-8"
    null_values: str = ""
    """CSV fields that stand for no value, separated by commas; the empty field always does. A quoted field is
    a value."""
    quoting: bool = True
    """Whether `"` encloses CSV fields."""
    quoted_line_ends: bool = False
    """Whether a quoted CSV field may span lines."""

    @field_validator("delimiter")
    @classmethod
    def _ascii(cls, value: str) -> str:
        if not value.isascii() or value in '\r\n"':
            raise ValueError("one ASCII character is needed, no quote or line end")
        return value

    @field_validator("encoding")
    @classmethod
    def _of_lines(cls, value: str) -> str:
        if not is_line_encoding(value):
            raise ValueError(f"{value!r} is no encoding in which lines end with one byte")
        return canonical_encoding(value)

    @property
    def csv_form(self) -> CsvForm:
        """How the CSV files are written."""
        return CsvForm(
            delimiter=self.delimiter,
            encoding=self.encoding,
            null_values=("", *(value for value in self.null_values.split(",") if value)),
            quoting=self.quoting,
            quoted_line_ends=self.quoted_line_ends,
        )


class FilesSource:
    """Reads the files of an interval. A record's offset is `<path>@<version>:<line or row>`."""

    def __init__(
        self, settings: Settings, options: Mapping[str, str], connection: Connection | None = None
    ) -> None:
        self._settings, self._options, self._connection = settings, options, connection

    def read(self, feed: Feed, interval: Interval) -> Iterator[Delivery]:
        """See `SourceAdapter.read`."""
        options = options_for(FileOptions, feed, self._options)
        store = open_store(options.path, self._connection, self._settings.repository)
        for file in _files_of(feed, interval, options, store):
            reader = _FileReader(feed, interval, options, store, file)
            with understood(file.name):
                yield from reader.parquet() if options.format == "parquet" else reader.text()
            store.require_same(file)


def _files_of(
    feed: Feed, interval: Interval, options: FileOptions, store: FileStore
) -> tuple[StoredFile, ...]:
    """The files that hold the interval, each once; raises `SourceError` naming every path without one."""
    found: dict[str, StoredFile] = {}
    missing = []
    for path in expand(options.path, feed.name, interval):
        files = store.find(path)
        found.update((file.path, file) for file in files)
        if not files:
            missing.append(path)
    if missing and options.missing == "refuse":
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise SourceError(
            expected=f"a file of feed {feed.name!r} at each path of the interval",
            found=f"none at {', '.join(missing[:5])}{more}",
            next_step="have the source deliver it and run this again, or set the option missing to allow "
            "where an absent file means that nothing happened",
        )
    return tuple(found.values())


class _FileReader:
    """One file being read for one feed and interval."""

    def __init__(
        self, feed: Feed, interval: Interval, options: FileOptions, store: FileStore, file: StoredFile
    ) -> None:
        self._feed, self._interval, self._options = feed, interval, options
        self._store, self._file = store, file

    def text(self) -> Iterator[Delivery]:
        """The records of a CSV or JSON lines file."""
        is_csv = self._options.format == "csv"
        header: tuple[str, ...] | None = None
        first = True
        with self._store.unpacked(self._file) as stream:
            for numbers, texts in pieces_of(
                stream, self._file.name, quoted_line_ends=is_csv and self._options.quoted_line_ends
            ):
                if is_csv and header is None:
                    header = self._header(texts.pop(0))
                    numbers.pop(0)
                rows = self._csv(header, texts) if header else self._json(texts, first)
                typed = type_rows(self._feed, rows.columns, self._options, rows.problems)
                yield self._delivery(typed, numbers, texts)
                first = False
        if is_csv and header is None:
            raise SourceError(
                expected=f"a header in {self._file.name}",
                found="an empty file",
                next_step="have the source deliver the file again; nothing was ingested",
            )

    def parquet(self) -> Iterator[Delivery]:
        """The records of a Parquet file."""
        names = list(dict.fromkeys(self._options.at_source(column.name) for column in self._feed.columns))
        row = 0
        with (
            self._store.open(self._file) as raw,
            pq.ParquetFile(
                raw, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True
            ) as file,
        ):
            require_columns(self._feed, self._options, file.schema_arrow.names, where=self._file.name)
            require_types(self._feed, self._options, file.schema_arrow, where=self._file.name)
            for batch in file.iter_batches(batch_size=PIECE_ROWS, columns=names, use_threads=False):
                columns = {
                    column.name: batch.column(self._options.at_source(column.name))
                    for column in self._feed.columns
                }
                typed = type_rows(self._feed, columns, self._options)
                yield self._delivery(typed, list(range(row + 1, row + batch.num_rows + 1)), batch)
                row += batch.num_rows

    def _header(self, line: bytes) -> tuple[str, ...]:
        header = csv_header(line, self._options.csv_form, self._file.name)
        require_columns(self._feed, self._options, header, where=self._file.name)
        return header

    def _csv(self, header: tuple[str, ...], texts: list[bytes]) -> TextRows:
        return csv_rows(self._feed, self._options, self._options.csv_form, header, texts)

    def _json(self, texts: list[bytes], first: bool) -> TextRows:
        """Rows of JSON; when no record at the file's start has a required field, it was renamed."""
        rows, documents = json_rows(self._feed, self._options, texts)
        objects = [document for document in documents if document is not None]
        if first and objects:
            fields = sorted({field for document in objects for field in document})
            required = tuple(column for column in self._feed.columns if column.required)
            present = [
                *fields,
                *(
                    at
                    for column in required
                    if "." in (at := self._options.at_source(column.name)) and at.partition(".")[0] in fields
                ),
            ]
            if required:
                narrowed = self._feed.model_copy(update={"columns": required})
                require_columns(narrowed, self._options, present, where=f"the records of {self._file.name}")
        return rows

    def _delivery(self, typed: TypedRows, numbers: list[int], received: Any) -> Delivery:
        place = f"{self._file.name}@{self._file.version}:"
        offsets = pa.array([f"{place}{number:010d}" for number in numbers], pa.string())
        times = pa.array([self._file.modified] * len(numbers), ARROW_TYPES["timestamp"])

        def payload(row: int) -> str:
            if isinstance(received, pa.RecordBatch):
                return json.dumps(received.slice(row, 1).to_pylist()[0], default=str)
            return payload_text(received[row])

        return deliver(self._feed, self._interval, typed, offsets=offsets, times=times, payload=payload)
