"""Every kind of broken data is caught by the expectation that is meant for it, before `main` moves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from pyspark.sql import SparkSession

from airloop.errors import AuditError, SourceError
from airloop.intervals import day_interval
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from spark_jobs.tables import CLEAN, snapshot_of
from tests.faults.cases import message_of, run
from tests.faults.catalogue import CONTRACT, FAULTS

pytestmark = pytest.mark.data_faults

DAY = day_interval(date(2013, 3, 13))
SOUND_DAYS = [
    date(2013, 2, 9),  # a blizzard: a fifth of the usual flights
    date(2013, 3, 10),  # summer time begins
    date(2013, 3, 13),
    date(2013, 4, 19),
    date(2013, 5, 26),
    date(2013, 7, 4),
    date(2013, 8, 22),  # a weather report without a temperature
    date(2013, 9, 3),
    date(2013, 11, 2),  # publishes the day on which summer time ends
    date(2013, 11, 28),  # Thanksgiving: three fifths of the usual flights
    date(2013, 12, 9),
    date(2013, 12, 25),
]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught_by_name_before_main_moves(
    name: str,
    spark: SparkSession,
    published: UseCase,
    settings: Settings,
    record_property: Callable[[str, object], None],
) -> None:
    fault = FAULTS[name]
    table = f"{CLEAN}.{fault.feed}"
    main = snapshot_of(spark, table).snapshot_id
    record_property("fault", name)
    with pytest.raises((AuditError, SourceError)) as caught:
        run(spark, published, (fault.feed,), name, DAY, settings)
    message = message_of(caught.value)
    assert snapshot_of(spark, table).snapshot_id == main
    if fault.caught_by == CONTRACT:
        assert isinstance(caught.value, SourceError)
        said = message
    else:
        said = next(
            (
                part
                for part in message.split(" | ")
                if f"{fault.feed}: {fault.caught_by}" in part and fault.says in part
            ),
            "",
        )
        assert said, f"not by {fault.caught_by} ({fault.says}), but: {message[:3000]}"
        assert "; observed " in said
        assert "data_docs" in message
    assert fault.says in said
    record_property("caught_by", fault.caught_by)
    record_property("feed", fault.feed)
    record_property("message", re.sub(r"^.*found \d+ that do not: ", "", said)[:1500])


@pytest.mark.parametrize("day", SOUND_DAYS, ids=str)
def test_sound_data_raises_no_alarm(
    day: date,
    spark: SparkSession,
    published: UseCase,
    settings: Settings,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("sound_day", day.isoformat())
    feeds = [table.name for table in published.clean_tables]
    report = run(spark, published, feeds, None, day_interval(day), settings)
    document = json.loads(Path(unquote(urlsplit(report.report_uri).path)).read_text("utf-8"))
    # Weeks are known before every day. On a calm day no gust is reported that could be compared.
    assert [name for name in document["not_judged"] if "wind_gust_mph >= wind_speed_mph" not in name] == []
    assert report.expectations > 120
