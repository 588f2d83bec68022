"""Scanning files for traces of a subject, whatever refers to them.

Belongs here: decoding a file as what it is (Parquet column by column, Avro value by value, anything else as
bytes) and counting. Does not belong here: which files are scanned, or what is done about a trace.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.avro.file import AvroFile
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.typedef import Record

from airloop.erasure.traces import Traces
from airloop.lakehouse.files import StoredFile, fetched
from airloop.settings import Settings

_BATCH_ROWS: Final = 100_000
_TEXT_SAMPLE: Final = 8192


@dataclass
class Scan:
    """What scanning found; adds up over files."""

    files: int = 0
    values: int = 0
    """Strings decoded; a file that is scanned as bytes counts as one."""
    unreadable: list[str] = field(default_factory=list)
    """Files that claim to be Parquet or Avro and cannot be decoded; they were scanned as bytes."""
    exact: Counter[str] = field(default_factory=Counter)
    """Traces by place: file, and column where there is one."""
    similar: Counter[str] = field(default_factory=Counter)

    def add(self, place: str, kinds: Mapping[int, str]) -> None:
        """Count the traces of one column at `place`."""
        for kind in kinds.values():
            (self.exact if kind == "exact" else self.similar)[place] += 1

    def merge(self, other: Scan) -> None:
        """Add what `other` found."""
        self.files, self.values = self.files + other.files, self.values + other.values
        self.unreadable += other.unreadable
        self.exact += other.exact
        self.similar += other.similar


def scan_stored(settings: Settings, file: StoredFile, traces: Traces) -> Scan:
    """As `scan_file`, a file of the warehouse, wherever that is."""
    try:
        with fetched(settings, file) as path:
            return scan_file(path, traces, place=file.location)
    except FileNotFoundError:
        return Scan(files=1)


def scan_file(path: Path, traces: Traces, place: str | None = None) -> Scan:
    """Scan one file, called `place`; one that disappears meanwhile counts as scanned and empty."""
    place = place or str(path)
    scan = Scan(files=1)
    try:
        if path.suffix in (".parquet", ".avro"):
            try:
                if path.suffix == ".parquet":
                    with path.open("rb") as file:
                        scan_parquet(file, place, traces, scan)
                else:
                    _scan_avro(path, place, traces, scan)
                return scan
            except FileNotFoundError:
                return scan
            except Exception:  # whatever a decoder raises over damage
                scan = Scan(files=1, unreadable=[place])
        _scan_bytes(path, place, traces, scan)
    except FileNotFoundError:
        pass
    return scan


def scan_parquet(file: IO[bytes] | Any, place: str, traces: Traces, scan: Scan) -> None:
    """Scan every string and binary column of a Parquet file, and the file's own metadata."""
    parquet = pq.ParquetFile(file)
    names = [item.name for item in parquet.schema_arrow if _holds_text(item.type)]
    for key, value in (parquet.schema_arrow.metadata or {}).items():
        scan.values += 1
        scan.add(f"{place} (metadata)", _kind(traces, key + b"\n" + value))
    for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=names) if names else ():
        for name in names:
            for leaf in _leaves(batch.column(name)):
                scan.values += len(leaf) - leaf.null_count
                scan.add(f"{place} column {name}", traces.kinds_of(leaf))


def is_text(path: Path) -> bool:
    """Whether the file looks like text, which can be masked in place."""
    with path.open("rb") as file:
        return b"\0" not in file.read(_TEXT_SAMPLE)


def _scan_avro(path: Path, place: str, traces: Traces, scan: Scan) -> None:
    with AvroFile[Record](PyArrowFileIO().new_input(str(path))) as records:
        for name, text in records.header.meta.items():
            scan.values += 1
            scan.add(f"{place} (metadata)", _kind(traces, f"{name}\n{text}"))
        for record in records:
            for value in _avro_values(record):
                scan.values += 1
                kind = _kind(traces, value)
                scan.add(place, kind)
                if not kind and isinstance(value, bytes) and traces.in_bound(value):
                    scan.exact[f"{place} (bound)"] += 1


def _avro_values(value: Any) -> Iterator[str | bytes]:
    if isinstance(value, str | bytes):
        yield value
    elif isinstance(value, Record):
        for item in value._data:
            yield from _avro_values(item)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _avro_values(key)
            yield from _avro_values(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _avro_values(item)


def _scan_bytes(path: Path, place: str, traces: Traces, scan: Scan) -> None:
    scan.values += 1
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for _, _, kind in traces.places(data):
            (scan.exact if kind == "exact" else scan.similar)[place] += 1


def _kind(traces: Traces, data: bytes | str) -> dict[int, str]:
    kind = traces.kind_in(data)
    return {} if kind is None else {0: kind}


def _holds_text(type_: pa.DataType) -> bool:
    if pa.types.is_nested(type_):
        return any(_holds_text(type_.field(place).type) for place in range(type_.num_fields))
    return _is_leaf(type_)


def _is_leaf(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(type_)
        or pa.types.is_large_string(type_)
        or pa.types.is_binary(type_)
        or pa.types.is_large_binary(type_)
    )


def _leaves(array: pa.Array) -> Iterator[pa.Array]:
    if pa.types.is_dictionary(array.type):
        yield from _leaves(array.dictionary_decode())
    elif pa.types.is_struct(array.type):
        for item in array.flatten():
            yield from _leaves(item)
    elif pa.types.is_map(array.type):
        yield from _leaves(array.keys)
        yield from _leaves(array.items)
    elif pa.types.is_nested(array.type):
        yield from _leaves(array.flatten())
    elif _is_leaf(array.type):
        yield array
