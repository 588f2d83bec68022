"""The Iceberg catalog as Python sees it, without a JVM.

Belongs here: opening the catalog, reading a snapshot into Arrow, and moving references (publish). Does not
belong here: Spark (see `spark_jobs.session`), which opens the same catalog through the same database.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import DataScan, Table

from airloop.errors import HistoryError
from airloop.settings import Settings


def open_catalog(settings: Settings) -> Catalog:
    """The catalog that holds every table of this deployment; creates its tables when there are none.

    On S3 what Python writes is encrypted as the bucket says by default: PyArrow cannot name a key itself.
    """
    location = settings.warehouse_location
    if location.startswith("file:"):
        settings.warehouse.mkdir(parents=True, exist_ok=True)
    s3 = {"s3.endpoint": settings.s3_endpoint, "s3.region": settings.aws_region}
    given = {name: value for name, value in s3.items() if value is not None}
    if settings.catalog_uri == "glue":
        # Only here: a deployment without AWS needs no client of it.
        from pyiceberg.catalog.glue import GlueCatalog

        return GlueCatalog(
            settings.catalog_name,
            warehouse=location,
            **{"glue.region": str(settings.aws_region), **given},
        )
    return SqlCatalog(
        settings.catalog_name, uri=_with_driver(settings.catalog_url), warehouse=location, **given
    )


def _with_driver(url: str) -> str:
    """SQLAlchemy's URL: it names the driver, and SQLite waits for another writer."""
    if url.startswith("sqlite:"):
        return f"{url}?timeout=60"
    return url.replace("postgresql://", "postgresql+psycopg2://", 1)


def ensure_namespace(catalog: Catalog, namespace: str) -> None:
    """Make `namespace` if there is none."""
    try:
        catalog.create_namespace_if_not_exists(namespace)
    except Exception:
        # Of two at once, the catalog's database lets one through, and says so in words of its own.
        if (namespace,) not in catalog.list_namespaces():
            raise


def load_table(catalog: Catalog, name: str) -> Table:
    """The table `namespace.name`; raises `HistoryError` when there is none yet."""
    try:
        return catalog.load_table(name)
    except NoSuchTableError:
        raise HistoryError(
            expected=f"a table {name}",
            found="none in the catalog",
            next_step="run the use case's features DAG first; it makes the tables",
        ) from None


def read_snapshot(
    table: Table,
    snapshot_id: int,
    columns: Sequence[str],
    row_filter: BooleanExpression | None = None,
) -> pa.Table:
    """Rows of one version of `table` as Arrow, with only `columns`.

    Raises `HistoryError` when the snapshot is gone (expired) or a column is not in it.
    """
    return _scan(table, snapshot_id, columns, row_filter, columns).to_arrow()


def scan_snapshot(
    table: Table,
    snapshot_id: int,
    columns: Sequence[str],
    row_filter: BooleanExpression | None = None,
    *,
    must_have: Sequence[str] = (),
) -> Iterator[pa.RecordBatch]:
    """The same as `read_snapshot`, in batches; columns in `must_have` must be there, unread."""
    scan = _scan(table, snapshot_id, columns, row_filter, (*columns, *must_have))
    files = ArrowScan(scan.table_metadata, scan.io, scan.projection(), scan.row_filter, scan.case_sensitive)
    # File by file: asked for all, PyIceberg reads ahead as many as it can, and would hold the whole table.
    for task in scan.plan_files():
        yield from files.to_record_batches([task])


def _scan(
    table: Table,
    snapshot_id: int,
    columns: Sequence[str],
    row_filter: BooleanExpression | None,
    must_have: Sequence[str],
) -> DataScan:
    snapshot = table.snapshot_by_id(snapshot_id)
    if snapshot is None:
        raise HistoryError(
            expected=f"snapshot {snapshot_id} of {'.'.join(table.name())}",
            found="no such snapshot; it may have expired",
            next_step="build the data again, or name a snapshot that the table has",
        )
    # Each version has the columns of its time, under the names of its time.
    there = table.schemas()[snapshot.schema_id] if snapshot.schema_id is not None else table.schema()
    missing = sorted(set(must_have) - set(there.column_names))
    if missing:
        raise HistoryError(
            expected=f"columns {', '.join(must_have)} in {'.'.join(table.name())}",
            found=f"no {', '.join(missing)}",
            next_step="build the data again with the present spec",
        )
    return table.scan(
        row_filter=row_filter if row_filter is not None else AlwaysTrue(),
        selected_fields=tuple(columns),
        snapshot_id=snapshot_id,
    )
