"""The table of every attempt of every task, with its price.

Belongs here: the table's shape, putting attempts into it, reading a span. Does not belong here: what follows
from them (`sums`, `advice`, `budget`).

One table for all use cases: what a machine costs concerns whoever pays for it. A row has the price of the day
that it was recorded on; prices that change later do not change what was paid.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import And, BooleanExpression, EqualTo, In

from airloop.cost.attempts import Attempt
from airloop.cost.prices import HOUR_SECONDS, Market, PriceTable
from airloop.intervals import Interval
from airloop.monitoring.tables import replace_rows, rows_where, starting_in

TABLE: Final = "monitoring.usage"
INSTANT: Final = timedelta(microseconds=1)
_UTC: Final = pa.timestamp("us", tz="UTC")


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


SCHEMA: Final = pa.schema(
    [
        _required("attempt", pa.string()),
        pa.field("use_case", pa.string()),
        _required("dag_id", pa.string()),
        _required("run_id", pa.string()),
        _required("task_id", pa.string()),
        _required("map_index", pa.int32()),
        _required("try_number", pa.int32()),
        _required("module", pa.string()),
        _required("started", _UTC),
        _required("measured", _UTC),
        _required("ended", pa.bool_()),
        _required("cpu_seconds", pa.float64()),
        _required("peak_vcpus", pa.float64()),
        _required("peak_memory_gib", pa.float64()),
        _required("memory_gib_seconds", pa.float64()),
        _required("accelerators", pa.int32()),
        _required("accelerator_seconds", pa.float64()),
        _required("peak_accelerator_memory_gib", pa.float64()),
        pa.field("machine", pa.string()),
        pa.field("machines", pa.int32()),
        pa.field("market", pa.string()),
        pa.field("price", pa.float64()),
        pa.field("currency", pa.string()),
    ]
)
"""As `Attempt` has them; the last five are null where there was no price table."""


class Used(NamedTuple):
    """One attempt, and what it cost."""

    attempt: Attempt
    machine: str | None = None
    machines: int | None = None
    market: Market | None = None
    price: float | None = None
    currency: str | None = None

    @property
    def run(self) -> str:
        """Airflow's `<dag_id>/<run_id>`."""
        return f"{self.attempt.dag_id}/{self.attempt.run_id}"


def priced(attempt: Attempt, prices: PriceTable | None) -> Used:
    """`attempt` with what its machines cost while it ran; without a price where the table does not say."""
    rented = None if prices is None else prices.of_job(attempt.module)
    if prices is None or rented is None:
        return Used(attempt)
    price = attempt.wall_seconds / HOUR_SECONDS * prices.per_hour(rented)
    machine = prices.machines[rented.machine]
    if machine.billed_by == "vcpu_hour":
        # Hours of one worker, however many there were.
        hours = attempt.cpu_seconds / machine.vcpus / HOUR_SECONDS
        price = hours * (machine.per_hour(rented.market) or 0.0)
    return Used(attempt, rented.machine, rented.count, rented.market, price, prices.currency)


def replace_attempts(catalog: Catalog, found: Sequence[Used]) -> None:
    """Put `found` into the table, each in the place of what is there of it; one commit."""
    rows = [{"attempt": used.attempt.key, **used.attempt.model_dump(), **_price_of(used)} for used in found]
    keys = In(term="attempt", literals={used.attempt.key for used in found})
    started = [used.attempt.started for used in found]
    # A key says when it started; this says it to the table, which then looks into few files.
    there = And(keys, starting_in("started", Interval(min(started), max(started) + INSTANT)))
    said = {"airloop.attempts": str(len(found))}
    replace_rows(catalog, TABLE, pa.Table.from_pylist(rows, SCHEMA), there, time="started", said=said)


def _price_of(used: Used) -> dict[str, Any]:
    return {name: getattr(used, name) for name in Used._fields[1:]}


def used_in(catalog: Catalog, span: Interval, use_case: str | None = None) -> list[Used]:
    """What started in `span`, earliest first; of one use case, or of all and the platform."""
    where: BooleanExpression = starting_in("started", span)
    if use_case is not None:
        where = And(where, EqualTo(term="use_case", value=use_case))
    rows = rows_where(catalog, TABLE, where)
    names = Attempt.model_fields
    found = [
        Used(Attempt(**{name: row[name] for name in names}), *(row[name] for name in Used._fields[1:]))
        for row in rows
    ]
    return sorted(found, key=lambda used: used.attempt.started)


def spent(found: Sequence[Used]) -> float:
    """What `found` cost, where it has a price."""
    return sum(used.price for used in found if used.price is not None)


def since(moment: datetime, found: Sequence[Used]) -> list[Used]:
    """Those of `found` that started at `moment` or later."""
    return [used for used in found if used.attempt.started >= moment]
