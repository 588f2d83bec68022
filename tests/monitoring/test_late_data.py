"""What was not published in time, found in the tables themselves."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from airloop.intervals import ONE_DAY
from airloop.lakehouse.catalog import ensure_namespace, open_catalog
from airloop.monitoring.late_data import late_data
from airloop.prediction_log.logs import OUTCOMES, PREDICTIONS
from airloop.prediction_log.spool import Spool
from airloop.settings import Settings
from airloop.use_cases.catalogue import all_use_cases, use_case
from airloop.use_cases.spec import UseCase

AT = datetime(2026, 11, 20, 6, 40, tzinfo=UTC)
"""The 19th was due at six."""
DUE = datetime(2026, 11, 19, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(state_dir=tmp_path)


@pytest.fixture
def spec() -> UseCase:
    """Of the use case's tables two, for speed: each is looked at by itself."""
    found = use_case("flight_delay")
    timed = next(one for one in found.clean_tables if one.event_time)
    return found.model_copy(update={"clean_tables": (timed,), "feature_tables": found.feature_tables[:1]})


def tables_of(spec: UseCase) -> dict[str, str]:
    """The tables that have a deadline, and the column that says when."""
    clean = {f"clean.{one.name}": one.event_time for one in spec.clean_tables if one.event_time}
    return clean | {f"features.{one.name}": "event_timestamp" for one in spec.feature_tables}


def publish(settings: Settings, tables: dict[str, str], *moments: datetime) -> None:
    """Rows of these moments in each table."""
    catalog = open_catalog(settings)
    for name, column in tables.items():
        ensure_namespace(catalog, name.split(".")[0])
        rows = pa.table({column: pa.array(moments, pa.timestamp("us", tz="UTC"))})
        catalog.create_table_if_not_exists(name, schema=rows.schema).append(rows)


def test_a_day_that_every_table_has_rows_of_is_not_late(settings, spec):
    tables = tables_of(spec)
    assert len(tables) == 2
    publish(settings, tables, DUE + timedelta(hours=23, minutes=59))
    assert late_data(settings, spec, AT).late == {}


def test_a_table_without_the_days_rows_is_late_until_they_are_there(settings, spec):
    tables = tables_of(spec)
    late, *others = tables
    publish(settings, {name: tables[name] for name in others}, DUE)
    # The day before, and the day after: neither is the day that is due.
    publish(settings, {late: tables[late]}, DUE - timedelta(minutes=1), DUE + ONE_DAY)
    found = late_data(settings, spec, AT)
    assert found.late == {late: "no row of 2026-11-19; the first was due 2026-11-20 06:00 UTC"}
    # That the next day is there fills no hole.
    publish(settings, {name: tables[name] for name in others}, DUE + ONE_DAY)
    assert late_data(settings, spec, AT + ONE_DAY).late == found.late
    publish(settings, {late: tables[late]}, DUE)
    assert late_data(settings, spec, AT).late == {}


def test_until_its_deadline_a_day_is_not_due(settings, spec):
    publish(settings, tables_of(spec), DUE - ONE_DAY)
    assert late_data(settings, spec, AT - timedelta(hours=1)).late == {}
    hasty = spec.schedules.model_copy(update={"features_within": timedelta(hours=5)})
    assert late_data(settings, spec.model_copy(update={"schedules": hasty}), AT - timedelta(hours=1)).late


def test_what_was_never_published_is_not_late(settings, spec):
    assert late_data(settings, spec, AT).late == {}
    late, *_ = tables_of(spec)
    publish(settings, {late: "at"}, DUE - timedelta(days=400))
    short = spec.model_copy(update={"feature_tables": (), "clean_tables": ()})
    assert late_data(settings, short, AT).late == {}


def test_a_table_whose_rows_are_of_long_ago_is_late(settings, spec):
    publish(settings, tables_of(spec), DUE - timedelta(days=400))
    found = late_data(settings, spec, AT).late
    assert set(found) == set(tables_of(spec))
    assert all(said.startswith("no row of 2026-11-12, ") for said in found.values())


@pytest.mark.parametrize("kept", [PREDICTIONS, OUTCOMES], ids=lambda kept: kept.table)
def test_what_gateways_wrote_and_nobody_landed_is_late(settings, kept):
    # One use case tells it for all.
    spec, *others = all_use_cases()
    folder = kept.folder(settings)
    spool = Spool(folder)
    spool.append(["{}"])
    (open_file,) = folder.glob("*.jsonl")
    long_ago = (AT - timedelta(hours=4)).timestamp()
    os.utime(open_file, (long_ago, long_ago))
    # A gateway that nobody asks anything keeps its file open.
    assert late_data(settings, spec, AT).late == {}
    spool.close()
    os.utime(open_file, (long_ago, long_ago))
    (found,) = late_data(settings, spec, AT).late.items()
    assert found[0] == kept.table
    assert "1 files of the gateways' spool have not landed" in found[1]
    assert [late_data(settings, other, AT).late for other in others] == [{} for _ in others]
    os.utime(open_file, (AT.timestamp(), AT.timestamp() - 60))
    assert late_data(settings, spec, AT).late == {}
