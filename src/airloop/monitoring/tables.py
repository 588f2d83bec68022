"""What the tables of monitoring share: by month, replaced by span, and read where they are there at all.

Belongs here: how they are made, written and read. Does not belong here: what any of them has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import (
    And,
    BooleanExpression,
    GreaterThan,
    GreaterThanOrEqual,
    LessThan,
    LessThanOrEqual,
)
from pyiceberg.table import Table
from pyiceberg.transforms import MonthTransform

from airloop.intervals import Interval
from airloop.lakehouse.catalog import ensure_namespace
from airloop.lakehouse.replace import despite_conflicts


def starting_in(time: str, span: Interval) -> BooleanExpression:
    """Whether `time`, the start of what a row is about, lies in `span`."""
    return And(
        GreaterThanOrEqual(term=time, value=span.start.isoformat()),
        LessThan(term=time, value=span.end.isoformat()),
    )


def ending_in(time: str, span: Interval) -> BooleanExpression:
    """Whether `time`, the end of what a row is about, lies after the start of `span`, at its end at most."""
    return And(
        GreaterThan(term=time, value=span.start.isoformat()),
        LessThanOrEqual(term=time, value=span.end.isoformat()),
    )


def existing(catalog: Catalog, name: str) -> Table | None:
    """The table `name`, if there is one yet."""
    try:
        return catalog.load_table(name)
    except NoSuchTableError:
        return None


def rows_where(catalog: Catalog, name: str, where: BooleanExpression) -> list[dict[str, Any]]:
    """The rows of the table `name` that `where` holds for; none where there is no table yet."""
    table = existing(catalog, name)
    return [] if table is None else table.scan(row_filter=where).to_arrow().to_pylist()


def replace_rows(
    catalog: Catalog,
    name: str,
    rows: pa.Table,
    where: BooleanExpression,
    *,
    time: str,
    said: Mapping[str, str],
    properties: Mapping[str, str] | None = None,
) -> None:
    """Make `rows` those of the table `name` that `where` holds for, in one commit that carries `said`.

    The table is made if need be, by the UTC month of `time`; it has `properties` from that commit on.
    """
    ensure_namespace(catalog, name.split(".")[0])
    table = catalog.create_table_if_not_exists(name, schema=rows.schema)

    def attempt() -> None:
        if table.spec().is_unpartitioned():
            with table.update_spec() as update:
                update.add_field(time, MonthTransform(), f"{time}_month")
        with table.transaction() as transaction:
            transaction.overwrite(rows, overwrite_filter=where, snapshot_properties=dict(said))
            if properties:
                transaction.set_properties(dict(properties))

    despite_conflicts(table, attempt)
