"""What the lakehouse knows of predicted events: labels that no client has to tell.

Belongs here: the table that `spark_jobs.labels` writes, read as labels. Does not belong here: writing it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import And, GreaterThanOrEqual, LessThan

from airloop.use_cases.spec import UseCase


def table_name(spec: UseCase) -> str:
    """The table of a use case's labels: `event`, `prediction_time`, `label`, `outcome`, `request`."""
    return f"labels.{spec.name}"


def known_labels(catalog: Catalog, spec: UseCase, first: datetime, last: datetime) -> pa.Table:
    """`event` and `label` of the events whose prediction times lie from `first` to `last`, both included.

    Two events of one name have no label here, unless they have the same: which of them a prediction was about
    is not known.
    """
    empty = pa.table({"event": pa.array([], pa.large_string()), "label": pa.array([], pa.float64())})
    try:
        table = catalog.load_table(table_name(spec))
    except NoSuchTableError:
        return empty
    span = And(
        GreaterThanOrEqual(term="prediction_time", value=first.isoformat()),
        LessThan(term="prediction_time", value=(last + timedelta(microseconds=1)).isoformat()),
    )
    rows = table.scan(row_filter=span, selected_fields=("event", "label")).to_arrow().cast(empty.schema)
    found = rows.group_by("event").aggregate([("label", "min"), ("label", "max")])
    found = found.filter(pc.equal(found["label_min"], found["label_max"]))
    return found.select(["event", "label_max"]).rename_columns(["event", "label"])
