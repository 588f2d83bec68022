"""A bounded sample of a table's rows, for what people look at.

Belongs here: choosing rows so that neither memory nor reading grows with the table. Does not belong here:
what must see every row (`catalog`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from pyiceberg.expressions import BooleanExpression
from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow
from pyiceberg.table import Table

READ_AT_MOST: Final = 2_000_000
"""Rows of the files that are read; of more, files are chosen at random."""


def sample_rows(
    table: Table,
    columns: Sequence[str],
    where: BooleanExpression,
    *,
    most: int,
    seed: int,
    snapshot_id: int | None = None,
) -> pa.Table:
    """At most `most` rows of `columns` that `where` holds for, at random by `seed`; all if there are no more.

    Of one state of the table and one `seed` the same rows come.
    """
    random = np.random.default_rng(seed)
    scan = table.scan(row_filter=where, selected_fields=tuple(columns), snapshot_id=snapshot_id)
    files = sorted(scan.plan_files(), key=lambda task: task.file.file_path)
    random.shuffle(files)
    reader = ArrowScan(scan.table_metadata, scan.io, scan.projection(), scan.row_filter, scan.case_sensitive)
    kept = schema_to_pyarrow(scan.projection(), include_field_ids=False).empty_table().select(list(columns))
    places = np.empty(0)
    read = 0
    for task in files:
        if read >= READ_AT_MOST:
            break
        read += task.file.record_count
        for batch in reader.to_record_batches([task]):
            found = pa.Table.from_batches([batch]).select(list(columns))
            kept = pa.concat_tables([kept, found], promote_options="permissive")
            places = np.concatenate([places, random.random(found.num_rows)])
            if len(places) > most:
                chosen = np.sort(np.argpartition(places, most)[:most])
                kept, places = kept.take(chosen), places[chosen]
    return kept.combine_chunks()
