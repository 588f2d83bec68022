"""Hourly counts in their table: each version's own, replaced by the hour, and read back as they were."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from airloop.intervals import ONE_HOUR, Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.monitoring.cells import Cells
from airloop.monitoring.counts import ANSWERED, REQUESTS, hours_of, replace_hours, uncounted
from airloop.monitoring.monitored import PREDICTION
from airloop.monitoring.profile import Profile, Profiled
from airloop.settings import Settings
from airloop.use_cases.flight_delay import USE_CASE

START = datetime(2026, 10, 31, 22, tzinfo=UTC)
SPAN = Interval(START, START + 4 * ONE_HOUR)


def profile(run_id: str) -> Profile:
    cells = Cells(feature="wind", kind="number", edges=(0.0, 1.0))
    wind = Profiled(cells=cells, days=(), counts=())
    predictions = cells.model_copy(update={"feature": PREDICTION})
    return Profile(
        use_case=USE_CASE.name,
        run_id=run_id,
        features=(wind,),
        prediction=wind.model_copy(update={"cells": predictions}),
    )


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return open_catalog(Settings(state_dir=tmp_path))


def counted(hour: int, feature: str, cell: int, rows: int) -> dict[str, object]:
    return {"hour": START + hour * ONE_HOUR, "feature": feature, "cell": cell, "rows": rows}


def test_hours_come_back_as_they_were_counted(catalog: Catalog) -> None:
    assert len(uncounted(catalog, USE_CASE, "one", SPAN)) == 4
    rows = pa.Table.from_pylist(
        [counted(1, "wind", 2, 7), counted(3, "wind", 3, 5), counted(3, REQUESTS, ANSWERED, 5)]
    )
    # Two for each of the four hours, of which one was there.
    assert replace_hours(catalog, USE_CASE, "one", SPAN, rows) == 3 + 7
    found = hours_of(catalog, USE_CASE, profile("one"), SPAN)
    assert found.counted.all()
    assert found.counts["wind"].tolist() == [[0, 0, 0, 0], [0, 0, 7, 0], [0, 0, 0, 0], [0, 0, 0, 5]]
    assert found.counts[REQUESTS][:, ANSWERED].tolist() == [0, 0, 0, 5]
    assert found.counts[PREDICTION].sum() == 0
    assert uncounted(catalog, USE_CASE, "one", SPAN) == []


def test_counting_again_replaces_the_hours_and_no_others(catalog: Catalog) -> None:
    replace_hours(
        catalog, USE_CASE, "one", SPAN, pa.Table.from_pylist([counted(n, "wind", 1, 9) for n in range(4)])
    )
    last = Interval(SPAN.end - ONE_HOUR, SPAN.end)
    for _ in range(2):
        replace_hours(catalog, USE_CASE, "one", last, pa.Table.from_pylist([counted(3, "wind", 0, 2)]))
    found = hours_of(catalog, USE_CASE, profile("one"), SPAN)
    assert found.counts["wind"].tolist() == [[0, 9, 0, 0]] * 3 + [[2, 0, 0, 0]]


def test_versions_have_counts_of_their_own(catalog: Catalog) -> None:
    replace_hours(catalog, USE_CASE, "one", SPAN, pa.Table.from_pylist([counted(0, "wind", 1, 9)]))
    assert len(uncounted(catalog, USE_CASE, "another", SPAN)) == 4
    found = hours_of(catalog, USE_CASE, profile("another"), SPAN)
    assert not found.counted.any()
    assert found.counts["wind"].sum() == 0


def test_a_window_is_the_sum_of_its_hours_and_nothing_where_one_is_missing(catalog: Catalog) -> None:
    part = Interval(START, SPAN.end - ONE_HOUR)
    replace_hours(
        catalog, USE_CASE, "one", part, pa.Table.from_pylist([counted(n, "wind", 1, n) for n in range(3)])
    )
    found = hours_of(catalog, USE_CASE, profile("one"), SPAN)
    sums = found.window(part)
    assert sums is not None
    assert np.array_equal(sums["wind"], [0, 3, 0, 0])
    assert found.window(SPAN) is None
    assert found.window(Interval(START - ONE_HOUR, START + ONE_HOUR)) is None
