"""How a table's columns follow the spec: added, widened, renamed and reordered; anything else is refused.

Belongs here: comparing a table with the columns that a job is about to write, and the ALTER statements in
between. Does not belong here: rewriting rows: Iceberg keeps columns by id, so snapshots, tags and branches
from before stay readable as they are.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.types import (
    DataType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    StructType,
)

from airloop.errors import PublishError

ATTEMPTS = 10
"""Each job that changes the table at the same time may cost one."""
WIDER = {(IntegerType(), LongType()), (FloatType(), DoubleType())}


def evolve(spark: SparkSession, table: str, wanted: StructType, renamed: Mapping[str, str]) -> None:
    """Give `table` (with its catalog) the columns of `wanted`; `renamed` maps new names to former ones.

    Raises `PublishError` with both schemas, before anything changes, when rows of `wanted` cannot be written
    without losing what is there. Safe to repeat: a change that was made already is left out.
    """
    for left in reversed(range(ATTEMPTS)):
        there = spark.table(table).schema
        _refuse_incompatible(table, there, wanted, renamed)
        changes = list(statements(there, wanted, renamed))
        if not changes:
            return
        try:
            for change in changes:
                spark.sql(f"ALTER TABLE {table} {change}")
        except (PySparkException, Py4JJavaError):
            # PySpark has no exception of its own for "cannot rename missing column".
            # Jobs that start at once all make the same changes; who comes second looks again at what is left.
            # A table that did not change yet may be about to: its other writer is in between two changes.
            if not left:
                raise
            time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - spreads retries, is no secret


def statements(there: StructType, wanted: StructType, renamed: Mapping[str, str]) -> Iterator[str]:
    """The changes from `there` to `wanted`, each the rest of an `ALTER TABLE <table>` statement, in order."""
    types = {field.name: field.dataType for field in there}
    order = [field.name for field in there]
    for new, old in _renames(there, wanted, renamed).items():
        yield f"RENAME COLUMN `{old}` TO `{new}`"
        types[new] = types.pop(old)
        order[order.index(old)] = new
    if added := [field for field in wanted if field.name not in types]:
        columns = ", ".join(f"`{field.name}` {field.dataType.simpleString()}" for field in added)
        yield f"ADD COLUMNS ({columns})"
        order += [field.name for field in added]
    for field in wanted:
        if types.get(field.name, field.dataType) != field.dataType:
            yield f"ALTER COLUMN `{field.name}` TYPE {field.dataType.simpleString()}"
    for place, field in enumerate(wanted):
        if order[place] != field.name:
            yield f"ALTER COLUMN `{field.name}` " + (f"AFTER `{order[place - 1]}`" if place else "FIRST")
            order.remove(field.name)
            order.insert(place, field.name)


def _renames(there: StructType, wanted: StructType, renamed: Mapping[str, str]) -> dict[str, str]:
    """The renames that are still to be made: new name to old."""
    names = set(there.fieldNames())
    return {
        new: old
        for new, old in renamed.items()
        if new in wanted.fieldNames() and new not in names and old in names
    }


def _refuse_incompatible(
    table: str, there: StructType, wanted: StructType, renamed: Mapping[str, str]
) -> None:
    made = {old: new for new, old in _renames(there, wanted, renamed).items()}
    types = {field.name: field.dataType for field in wanted}
    faults, steps = [], []
    for field in there:
        name = made.get(field.name, field.name)
        if name not in types:
            faults.append(f"{field.name} is gone")
            steps.append(
                f"if it got another name, declare the rename in the spec; if it is to go, first "
                f"ALTER TABLE {table} DROP COLUMN {field.name}"
            )
        elif types[name] != field.dataType and not widens(field.dataType, types[name]):
            faults.append(
                f"{name} would change from {field.dataType.simpleString()} to {types[name].simpleString()}"
            )
            steps.append(f"keep the type of {name}, or give the new values a new column name")
    if faults:
        raise PublishError(
            expected=f"columns that table {table} can take without losing data: {_shown(there)}",
            found=f"{'; '.join(faults)}; the job writes {_shown(wanted)}",
            next_step=f"{'; '.join(dict.fromkeys(steps))}. Nothing was written or changed",
        )


def widens(there: DataType, wanted: DataType) -> bool:
    """Whether every value of type `there` is the same value as a `wanted`, by Iceberg's rules."""
    if isinstance(there, DecimalType) and isinstance(wanted, DecimalType):
        return wanted.scale == there.scale and wanted.precision >= there.precision
    return (there, wanted) in WIDER


def _shown(schema: StructType) -> str:
    return "(" + ", ".join(f"{field.name} {field.dataType.simpleString()}" for field in schema) + ")"
