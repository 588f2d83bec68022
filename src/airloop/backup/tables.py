"""Iceberg tables: what the catalog says, the files that make up a table, and both back in place.

Belongs here: tables as PyIceberg sees them, in any catalog and any warehouse. Does not belong here: which
tables a backup is to have (`create`).

Iceberg's metadata names every file by its whole path, and its files never change: so a copy that has every
file which a table's metadata reaches is consistent, whatever is written meanwhile, and goes back to where it
was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Final, NamedTuple

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import TableAlreadyExistsError
from pyiceberg.io import FileIO, load_file_io
from pyiceberg.serializers import FromInputFile
from pyiceberg.table.metadata import TableMetadata

from airloop.backup.place import PIECE_BYTES
from airloop.lakehouse.catalog import open_catalog
from airloop.settings import Settings

NOT_REBUILT: Final = ("raw", "serving", "monitoring", "training")
"""Namespaces whose tables nothing makes again as they were: sources may be gone, predictions and outcomes are
made once, and models name the snapshots of their training sets."""


class Pointed(NamedTuple):
    """What a catalog says of a table."""

    name: str
    metadata_location: str
    io: FileIO


def warehouse_io(settings: Settings) -> FileIO:
    """What reads and writes the warehouse's files, configured as the catalog is."""
    return load_file_io(open_catalog(settings).properties, settings.warehouse_location)


def namespaces(catalog: Catalog) -> dict[str, dict[str, str]]:
    """Every namespace and its properties."""
    return {
        ".".join(found): {key: str(value) for key, value in catalog.load_namespace_properties(found).items()}
        for found in catalog.list_namespaces()
    }


def pointed(catalog: Catalog) -> list[Pointed]:
    """Every table of the catalog, at the version that it has now."""
    return [
        point(catalog, ".".join(identifier))
        for namespace in sorted(catalog.list_namespaces())
        for identifier in sorted(catalog.list_tables(namespace))
    ]


def point(catalog: Catalog, name: str) -> Pointed:
    """One of them; raises `NoSuchTableError`."""
    table = catalog.load_table(name)
    return Pointed(name, table.metadata_location, table.io)


def files_of(table: Pointed) -> Iterator[str]:
    """Every file that a reader of any of the table's snapshots may need, its metadata first, each once.

    Raises `FileNotFoundError` when maintenance removed one meanwhile: the table has another version then.
    """
    yield table.metadata_location
    metadata: TableMetadata = FromInputFile.table_metadata(table.io.new_input(table.metadata_location))
    seen: set[str] = set()
    for snapshot in metadata.snapshots:
        if snapshot.manifest_list:
            yield snapshot.manifest_list
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path in seen:
                continue
            seen.add(manifest.manifest_path)
            yield manifest.manifest_path
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                path = entry.data_file.file_path
                if path not in seen:
                    seen.add(path)
                    yield path
    for statistics in (*metadata.statistics, *metadata.partition_statistics):
        yield statistics.statistics_path


def open_file(io: FileIO, location: str) -> IO[bytes]:
    """Read a file of the warehouse; raises `FileNotFoundError`."""
    source: IO[bytes] = io.new_input(location).open()  # type: ignore[assignment]  # its stream has read and close
    return source


def write_file(io: FileIO, location: str, source: IO[bytes]) -> None:
    """Write a file of the warehouse, over what a restore that was killed left there."""
    with io.new_output(location).create(overwrite=True) as target:
        while piece := source.read(PIECE_BYTES):
            target.write(piece)


def exists(io: FileIO, location: str) -> bool:
    """Whether a file of the warehouse is there."""
    return bool(io.new_input(location).exists())


def register(catalog: Catalog, wanted: Mapping[str, Mapping[str, str]], tables: Mapping[str, str]) -> None:
    """Make the namespaces `wanted`, and have each of `tables` (name to metadata) as it was; repeatable."""
    for namespace, properties in wanted.items():
        catalog.create_namespace_if_not_exists(namespace, dict(properties))
    for name, location in tables.items():
        try:
            catalog.register_table(name, location)
        except TableAlreadyExistsError:
            if catalog.load_table(name).metadata_location != location:
                # A dump of the database that the catalog shares with others may have brought an older one.
                catalog.drop_table(name)
                catalog.register_table(name, location)


def is_empty(catalog: Catalog) -> bool:
    """Whether the catalog has no table."""
    return not any(catalog.list_tables(namespace) for namespace in catalog.list_namespaces())
