"""What an exported model costs where it is served: its size, and how long an answer takes.

Belongs here: measuring both. Does not belong here: what they may be (`airloop.verdict`), or the latency of a
server, of its network and of its features, which the gateway measures in service.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from airloop.training.examples import Columns, take
from airloop.training.served_model import ServedModel
from airloop.verdict import ServingCost

CALLS: Final = 300
"""Calls that are timed: the 99th percentile is the third slowest, which one hiccup does not make."""
WARM_UP: Final = 20
"""Calls before those: the first ones of a signature are slower, and a server makes them when it loads it."""
BATCH_ROWS: Final = 256
_MEBIBYTE: Final = 2**20


def serving_cost(model: ServedModel, folder: Path, columns: Columns) -> ServingCost | None:
    """The size of the SavedModel in `folder`, and the latency of `model`, which was loaded from it.

    Calls are made one after another with rows of `columns`, in turn: with one row, and with `BATCH_ROWS`.
    None where there is no row to ask.
    """
    rows = len(next(iter(columns.values())))
    if not rows:
        return None
    single = _milliseconds(model, columns, 1)
    batch_rows = min(BATCH_ROWS, rows)
    batch = _milliseconds(model, columns, batch_rows)
    return ServingCost(
        mebibytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / _MEBIBYTE,
        calls=CALLS,
        single_row_p50_milliseconds=float(np.median(single)),
        single_row_p99_milliseconds=float(np.quantile(single, 0.99)),
        batch_rows=batch_rows,
        batch_p50_milliseconds=float(np.median(batch)),
        batch_p99_milliseconds=float(np.quantile(batch, 0.99)),
    )


def _milliseconds(model: ServedModel, columns: Columns, rows: int) -> np.ndarray:
    """How long each of `CALLS` calls with `rows` rows took."""
    taken = []
    for call, asked in enumerate(_requests(columns, rows)):
        began = time.perf_counter()
        model.predict(asked)
        if call >= WARM_UP:
            taken.append(1000 * (time.perf_counter() - began))
    return np.array(taken)


def _requests(columns: Columns, rows: int) -> Iterator[Columns]:
    """`WARM_UP` and `CALLS` requests of `rows` rows, from the first row again when all were asked."""
    count = len(next(iter(columns.values())))
    for call in range(WARM_UP + CALLS):
        yield take(columns, np.arange(call * rows, (call + 1) * rows) % count)
