"""The tables of what was found: a row for each judged window, and one for each of its features.

Belongs here: their shape, putting windows into them and asking for one. Does not belong here: judging
(`windows`).

A span that is judged again is replaced, whichever version it was judged for: one version was the champion.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import pyarrow as pa
from pyiceberg.catalog import Catalog

from airloop.intervals import Interval
from airloop.lakehouse.provenance import signature
from airloop.monitoring.tables import ending_in, replace_rows, rows_where
from airloop.monitoring.windows import ONE_WEEK, Feature, Window
from airloop.use_cases.spec import UseCase

_UTC: Final = pa.timestamp("us", tz="UTC")


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


WINDOWS: Final = pa.schema(
    [
        _required("window_end", _UTC),
        _required("version", pa.int64()),
        _required("run_id", pa.string()),
        _required("requests", pa.int64()),
        _required("failed", pa.int64()),
        pa.field("requests_before", pa.int64()),
        _required("judged", pa.bool_()),
        _required("lost_traffic", pa.bool_()),
        pa.field("alarmed", pa.list_(pa.string())),
    ]
)
"""`judged` is false for a window with too few requests: that nothing drifted in it says nothing."""
FEATURES: Final = pa.schema(
    [
        _required("window_end", _UTC),
        _required("version", pa.int64()),
        _required("feature", pa.string()),
        _required("rows", pa.int64()),
        _required("missing_share", pa.float64()),
        _required("usual_missing_share", pa.float64()),
        _required("distance", pa.float64()),
        _required("p_value", pa.float64()),
        _required("adjusted_p_value", pa.float64()),
        _required("design_effect", pa.float64()),
        _required("drifted", pa.bool_()),
        pa.field("distance_to_week_before", pa.float64()),
        pa.field("adjusted_p_value_week_before", pa.float64()),
        pa.field("drifted_from_week_before", pa.bool_()),
    ]
)
"""What each means: `airloop.monitoring.windows`, `.drift` and `.homogeneity`."""


def windows_table(spec: UseCase) -> str:
    """The table with a row for each window."""
    return f"monitoring.{spec.name}_windows"


def features_table(spec: UseCase) -> str:
    """The table with a row for each window and feature."""
    return f"monitoring.{spec.name}_drift"


def replace_findings(
    catalog: Catalog, spec: UseCase, version: int, run_id: str, span: Interval, found: Sequence[Window]
) -> None:
    """Make `found` the windows that end after the start of `span` and at its end at the latest.

    Each table in one commit, features first: a window that is there has its features.
    """
    features = [
        _feature_row(window.end, version, name, one)
        for window in found
        for name, one in window.features.items()
    ]
    windows = [
        {
            "window_end": window.end,
            "version": version,
            "run_id": run_id,
            "requests": window.requests,
            "failed": window.failed,
            "requests_before": window.requests_before,
            "judged": bool(window.features),
            "lost_traffic": window.lost_traffic,
            "alarmed": list(window.alarmed),
        }
        for window in found
    ]
    said = {**signature(spec.name, span), "airloop.version": str(version)}
    for name, schema, rows in (
        (features_table(spec), FEATURES, features),
        (windows_table(spec), WINDOWS, windows),
    ):
        made = pa.Table.from_pylist(rows, schema)
        replace_rows(catalog, name, made, ending_in("window_end", span), time="window_end", said=said)


class Earlier(NamedTuple):
    """What is asked of a window that was judged before."""

    end: datetime
    alarmed: tuple[str, ...]
    lost_traffic: bool


def window_before(catalog: Catalog, spec: UseCase, end: datetime, *, judged: bool = False) -> Earlier | None:
    """The newest window that ended at `end` or in the week before it, or the newest `judged` one."""
    where = ending_in("window_end", Interval(end - ONE_WEEK, end))
    rows = [row for row in rows_where(catalog, windows_table(spec), where) if row["judged"] or not judged]
    if not rows:
        return None
    last = max(rows, key=lambda row: row["window_end"])
    return Earlier(last["window_end"], tuple(last["alarmed"] or ()), last["lost_traffic"])


def _feature_row(end: datetime, version: int, name: str, one: Feature) -> dict[str, Any]:
    compared, before = one.found.comparison, one.before
    return {
        "window_end": end,
        "version": version,
        "feature": name,
        "rows": compared.rows,
        "missing_share": one.missing_share,
        "usual_missing_share": one.usual_missing_share,
        "distance": compared.distance,
        "p_value": compared.p_value,
        "adjusted_p_value": one.found.adjusted_p_value,
        "design_effect": compared.design_effect,
        "drifted": one.found.drifted,
        "distance_to_week_before": None if before is None else before.comparison.distance,
        "adjusted_p_value_week_before": None if before is None else before.adjusted_p_value,
        "drifted_from_week_before": None if before is None else before.drifted,
    }
