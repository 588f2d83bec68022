"""The tables of the logs: made if need be, and brought up to the present columns.

Belongs here: the tables' shape. Does not belong here: putting rows into them (`land`, `land_kafka`).
"""

from __future__ import annotations

from typing import Final

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform

from airloop.lakehouse.catalog import ensure_namespace
from airloop.lakehouse.replace import despite_conflicts
from airloop.prediction_log.logs import Log

LANDED: Final = "airloop.predictions.landed"
"""Property of the table: JSON, by writer the last sequence that was taken. Only writers that have files in
the spool are kept; one without has nothing that could be taken twice."""
ROWS_AT_ONCE: Final = 50_000
"""Of a commit."""

NO_RETRIES: Final = ("commit.retry.num-retries", "0")
"""PyIceberg would append again what lost to another commit, without looking at what that one was: of two
landings of the same records both would count."""


def table_of(catalog: Catalog, kept: Log) -> Table:
    """The log's table, by day; made if there is none, and given the columns that an older one lacks."""
    ensure_namespace(catalog, kept.table.split(".")[0])
    table = catalog.create_table_if_not_exists(kept.table, schema=kept.schema)
    despite_conflicts(table, lambda: _conform(table, kept))
    return table


def _conform(table: Table, kept: Log) -> None:
    name, value = NO_RETRIES
    if table.properties.get(name) != value:
        with table.transaction() as transaction:
            transaction.set_properties({name: value})
    if table.spec().is_unpartitioned():
        with table.update_spec() as update:
            update.add_field(kept.day, DayTransform(), f"{kept.day.removesuffix('_at')}_day")
    fields = {field.name: field for field in table.schema().fields}
    optional = [item.name for item in kept.schema if item.nullable]
    if any(name not in fields or fields[name].required for name in optional):
        with table.update_schema() as schema:
            schema.union_by_name(kept.schema)
            for name in optional:
                if name in fields and fields[name].required:
                    schema.make_column_optional(name)
