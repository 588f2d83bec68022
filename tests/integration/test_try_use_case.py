"""What `make try-use-case` says of the use cases that are here, on the days of the other tests."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from airloop.errors import SpecError
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from spark_jobs.try_use_case import try_use_case
from tests.integration.test_data_plane import WEEK


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flight_delay", ["clean     movements: ", "features  tail_history: ", "arrived_late 0: "]),
        ("airport_congestion", ["clean     movements: ", "features  origin_next_hour: ", " on average"]),
    ],
)
def test_it_holds_together(spark: SparkSession, settings: Settings, name: str, said: list[str]) -> None:
    lines: list[str] = []
    try_use_case(spark, use_case(name), WEEK.end, 2, settings, lines.append)
    assert [part for part in said if not any(part in line for line in lines)] == [], lines
    assert lines[-1].startswith("requests  ")


def test_labels_that_are_none_are_told(spark: SparkSession, settings: Settings) -> None:
    spec = use_case("flight_delay")
    # Minutes are no classes.
    label = spec.label.model_copy(update={"name": "arrival_delay_minutes", "outcome": None})
    with pytest.raises(SpecError, match="arrival_delay_minutes to be 0 or 1"):
        try_use_case(
            spark, spec.model_copy(update={"label": label}), WEEK.end, 2, settings, lambda line: None
        )
