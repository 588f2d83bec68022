"""The tables of the logs: made if need be, and brought up to the present columns.

Belongs here: the tables' shape. Does not belong here: putting rows into them (`land`, `land_kafka`).
"""

from __future__ import annotations

from typing import Final

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform

from airloop.prediction_log.logs import Log

LANDED: Final = "airloop.predictions.landed"
"""Property of the table: JSON, by writer the last sequence that was taken. Only writers that have files in
the spool are kept; one without has nothing that could be taken twice."""


def table_of(catalog: Catalog, log_kept: Log) -> Table:
    """The log's table, by day; made if there is none, and given the columns that an older one lacks."""
    catalog.create_namespace_if_not_exists(log_kept.table.split(".")[0])
    table = catalog.create_table_if_not_exists(log_kept.table, schema=log_kept.schema)
    if table.spec().is_unpartitioned():
        with table.update_spec() as update:
            update.add_field(log_kept.day, DayTransform(), f"{log_kept.day.removesuffix('_at')}_day")
    fields = {field.name: field for field in table.schema().fields}
    optional = [item.name for item in log_kept.schema if item.nullable]
    if any(name not in fields or fields[name].required for name in optional):
        with table.update_schema() as schema:
            schema.union_by_name(log_kept.schema)
            for name in optional:
                if name in fields and fields[name].required:
                    schema.make_column_optional(name)
    return table
