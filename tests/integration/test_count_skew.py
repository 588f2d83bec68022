"""What was served, compared on Spark with what the training set's own join says of the same moment."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyiceberg.expressions import AlwaysTrue
from pyspark.sql import SparkSession

from airloop.intervals import ONE_DAY, Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.monitoring.silences import SKEW, Silence, add_silence
from airloop.monitoring.skew import table_name
from airloop.monitoring.tables import rows_where
from airloop.prediction_log import record as log_record
from airloop.prediction_log import variants
from airloop.prediction_log.land import land
from airloop.prediction_log.record import PredictionRecord
from airloop.prediction_log.spool import Spool
from airloop.prediction_request import parse_request
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from spark_jobs import count_skew, scoring_set
from tests.integration.conftest import WEEK

DAY = Interval(WEEK.start + 4 * ONE_DAY, WEEK.start + 5 * ONE_DAY)
SERVED = 300
ALTERED, LOST, NEVER_GIVEN = "wind_speed_mph", "temperature_f", "pressure_millibars"


def _logged(value: Any, kind: str) -> Any:
    """A model input as the gateway logs the feature: null where it is missing."""
    if kind == "instant":
        return None if value == 0 else datetime.fromtimestamp(value, UTC).isoformat()
    if kind == "string":
        return value or None
    return None if value is None or math.isnan(value) else value


def served(spark: SparkSession, spec: UseCase) -> list[PredictionRecord]:
    """Answers of the day from offline features, some of them spoilt on the way."""
    made = []
    rows = spark.table(f"scoring.{spec.name}_requests").orderBy("request").limit(SERVED).collect()
    for number, row in enumerate(rows):
        request = parse_request(spec, row["request"])
        features = {
            item.name: _logged(row[item.name], item.type)
            for item in spec.inputs
            if item.request_field is None
        }
        if number % 2 and features[ALTERED] is not None:
            features[ALTERED] += 1.0
        features[LOST] = None
        if number % 3:
            del features[NEVER_GIVEN]
        made.append(
            PredictionRecord(
                request_id=f"skew {number}",
                trace_id="0" * 31 + "1",
                instance=0,
                caller="web",
                use_case=spec.name,
                model=spec.model_name,
                version=3,
                variant=variants.SHADOW if number % 10 == 9 else variants.CHAMPION,
                predicted_at=request.prediction_time + timedelta(seconds=40),
                prediction_time=request.prediction_time,
                answer=(0.2,),
                error=None,
                latency_seconds=0.01,
                entities={},
                request={
                    name: value.isoformat() if isinstance(value, datetime) else value
                    for name, value in request.fields.items()
                },
                features=features,
                missing_features=[],
            )
        )
    return made


@pytest.fixture(autouse=True)
def _in_session(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count_skew, "open_session", lambda *_: spark)


@pytest.fixture(scope="module")
def asked(
    materialised: None, spark: SparkSession, spec: UseCase, settings: Settings
) -> Iterator[list[PredictionRecord]]:
    # Before anybody asked there is nothing to compare.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(count_skew, "open_session", lambda *_: spark)
        spark.sql(f"DROP TABLE IF EXISTS {log_record.TABLE}")
        assert "no prediction log" in (count_skew.count_skew(settings, spec, DAY).skipped or "")
    scoring_set.build(spark, spec, DAY, settings)
    made = served(spark, spec)
    with closing(Spool(settings.prediction_spool_dir)) as spool:
        for one in made:
            assert spool.append([one.model_dump_json()])
    land(settings)
    yield made
    for name in (log_record.TABLE, table_name(spec)):
        spark.sql(f"DROP TABLE IF EXISTS {name}")


def found_in(settings: Settings, spec: UseCase) -> dict[str, dict[str, Any]]:
    rows = rows_where(open_catalog(settings), table_name(spec), AlwaysTrue())
    assert {row["day"] for row in rows} == {DAY.start}
    return {row["feature"]: row for row in rows}


def test_what_was_served_otherwise_is_found_and_nothing_else(
    asked: list[PredictionRecord], spec: UseCase, settings: Settings
) -> None:
    told = count_skew.count_skew(settings, spec, DAY)
    found = found_in(settings, spec)
    clients = [one for one in asked if one.variant == variants.CHAMPION]
    assert set(found) == {item.name for item in spec.inputs if item.request_field is None}
    altered = sum(number % 2 == 1 and number % 10 != 9 for number in range(SERVED))
    assert found[ALTERED]["rows"] == len(clients)
    assert 0 < found[ALTERED]["unequal"] <= altered
    assert found[ALTERED]["mean_absolute_difference"] == pytest.approx(
        found[ALTERED]["unequal"] / (found[ALTERED]["rows"]), abs=0.02
    )
    assert found[LOST]["only_offline"] == found[LOST]["unequal"] > 0.9 * len(clients)
    assert found[NEVER_GIVEN]["rows"] == sum(NEVER_GIVEN in one.features for one in clients)
    others = {name: row["unequal"] for name, row in found.items() if name not in (ALTERED, LOST)}
    assert not any(others.values()), others
    assert (told.skewed, told.began) == (tuple(sorted((ALTERED, LOST))), tuple(sorted((ALTERED, LOST))))
    assert told.lines[0].startswith(f"{LOST}: ")
    # Repeated, it says and has the same.
    assert count_skew.count_skew(settings, spec, DAY) == told
    assert found_in(settings, spec) == found


def test_what_is_silenced_is_kept_and_not_told(
    asked: list[PredictionRecord], spec: UseCase, settings: Settings
) -> None:
    silence = Silence(SKEW, DAY.end + ONE_DAY, "the online store is rebuilt", "Ada")
    add_silence(open_catalog(settings), spec, DAY.start, silence)
    silent = count_skew.count_skew(settings, spec, DAY)
    assert (silent.began, silent.silenced) == ((), silence.said)
    assert silent.skewed == tuple(sorted((ALTERED, LOST)))


def test_a_day_on_which_nobody_asked_is_skipped(
    asked: list[PredictionRecord], spec: UseCase, settings: Settings
) -> None:
    before = Interval(DAY.start - ONE_DAY, DAY.start)
    assert "no answer" in (count_skew.count_skew(settings, spec, before).skipped or "")


def test_a_day_without_features_is_not_compared(
    asked: list[PredictionRecord], spec: UseCase, settings: Settings
) -> None:
    later = Interval(WEEK.end + ONE_DAY, WEEK.end + 2 * ONE_DAY)
    assert "has no row of 2013-03-12 yet" in (count_skew.count_skew(settings, spec, later).skipped or "")
