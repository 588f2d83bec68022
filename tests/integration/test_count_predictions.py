"""Served requests counted on Spark as NumPy counts them, by the hour, and judged by what was counted."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from airloop.intervals import ONE_HOUR, Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.monitoring.counts import ANSWERED, FAILED, REQUESTS, hours_of
from airloop.monitoring.findings import features_table, windows_table
from airloop.monitoring.judge import judge_span
from airloop.monitoring.monitored import PREDICTION, watched, watched_values
from airloop.monitoring.profile import Profile, profile_of
from airloop.prediction_log import variants
from airloop.prediction_log.land import land
from airloop.prediction_log.record import PredictionRecord
from airloop.prediction_log.spool import Spool
from airloop.prediction_request import assemble_inputs, example_body, parse_request
from airloop.settings import REPOSITORY, Settings
from airloop.use_cases.spec import UseCase
from spark_jobs import count_predictions
from spark_jobs.count_predictions import count, count_needed
from tests.streams.in_session import session_for

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
SPAN = Interval(AT, AT + timedelta(hours=2))
VERSION, OTHER = 3, 4
TRAINED = 400
NOT_GIVEN = "temperature_f"


@pytest.fixture(scope="module")
def profile(spec: UseCase) -> Profile:
    random = np.random.default_rng(0)
    train: dict[str, np.ndarray] = {}
    for item in spec.inputs:
        if item.type == "string":
            train[item.name] = random.choice(np.array(["EWR", "JFK", "BOS", "UA"], object), TRAINED)
        elif item.type == "double":
            train[item.name] = random.normal(size=TRAINED).astype(np.float32)
        else:
            train[item.name] = 1_360_000_000 + random.integers(0, 86_400, TRAINED)
    return profile_of(
        *(spec, "run"),
        train=train,
        train_days=np.arange(TRAINED) // 25,
        predictions=random.random(TRAINED).astype(np.float32),
        labels=random.integers(0, 2, TRAINED),
        test_days=np.arange(TRAINED) // 25,
    )


def records(spec: UseCase) -> list[PredictionRecord]:
    random = np.random.default_rng(1)
    made = []
    for number in range(120):
        body = example_body(spec) | {"origin": str(random.choice(["EWR", "JFK", "XXX"]))}
        request = parse_request(spec, json.dumps(body))
        given = {
            item.name: None
            if number % 7 == 0
            else float(random.normal())
            if item.type == "double"
            else 1_360_000_000
            for item in spec.inputs
            if item.request_field is None
        }
        variant = [variants.CHAMPION, variants.CHAMPION, variants.SHADOW, variants.CANARY][number % 4]
        if variant == variants.CANARY:
            # The other version never was given it: that is not missing.
            del given[NOT_GIVEN]
        made.append(
            PredictionRecord(
                request_id=f"request {number}",
                trace_id="0" * 31 + "1",
                instance=0,
                caller="web",
                use_case="another" if number % 10 == 9 else spec.name,
                model=spec.model_name,
                version=VERSION if variant == variants.CHAMPION else OTHER,
                variant=variant,
                # The last twenty are after the span.
                predicted_at=AT + timedelta(minutes=1.2 * number),
                prediction_time=AT,
                answer=None if number % 12 == 8 else (float(random.random()),),
                error=variants.LATE if number % 12 == 8 else None,
                latency_seconds=0.01,
                entities={},
                request={
                    name: value.isoformat() if isinstance(value, datetime) else value
                    for name, value in request.fields.items()
                },
                features=given,
                missing_features=[],
            )
        )
    return made


def expected(
    spec: UseCase, profile: Profile, made: list[PredictionRecord]
) -> dict[tuple[datetime, str, int], int]:
    counts: dict[tuple[datetime, str, int], int] = {}

    def add(record: PredictionRecord, feature: str, cell: int) -> None:
        key = (record.predicted_at.replace(minute=0, second=0, microsecond=0), feature, cell)
        counts[key] = counts.get(key, 0) + 1

    kinds = {"string": object, "double": np.float32, "instant": np.int64, "local_time": np.int64}
    types = {item.name: kinds[item.type] for item in spec.inputs}
    for record in made:
        here = SPAN.start <= record.predicted_at < SPAN.end and record.use_case == spec.name
        if not here:
            continue
        if record.variant != variants.SHADOW:
            add(record, REQUESTS, ANSWERED if record.error is None else FAILED)
        if record.error is not None:
            continue
        if record.variant != variants.SHADOW:
            request = parse_request(spec, json.dumps(record.request))
            inputs = assemble_inputs(spec, request, {NOT_GIVEN: None} | record.features)
            columns = {name: np.array([value], types[name]) for name, value in inputs.items()}
            values = watched_values(spec, columns)
            for one in profile.features:
                if one.cells.feature == NOT_GIVEN and NOT_GIVEN not in record.features:
                    continue
                add(record, one.cells.feature, int(one.cells.places(values[one.cells.feature])[0]))
        if record.version == VERSION:
            add(record, PREDICTION, int(profile.prediction.cells.places(np.array(record.answer))[0]))
    return counts


@pytest.fixture
def fresh(tmp_path: Path) -> Settings:
    (tmp_path / "jars").symlink_to(REPOSITORY / ".airloop" / "jars")
    return Settings(state_dir=tmp_path)


def landed(settings: Settings, made: list[PredictionRecord]) -> None:
    with closing(Spool(settings.prediction_spool_dir)) as spool:
        for record in made:
            assert spool.append([record])
    land(settings)


def test_spark_counts_what_numpy_counts(
    spark: SparkSession, spec: UseCase, profile: Profile, fresh: Settings
) -> None:
    made = records(spec)
    landed(fresh, made)
    rows = count(session_for(fresh), spec, profile, VERSION, SPAN).collect()
    found = {(row["hour"].replace(tzinfo=UTC), row["feature"], row["cell"]): row["rows"] for row in rows}
    assert len(found) == len(rows)
    assert found == expected(spec, profile, made)
    assert {feature for _, feature, _ in found} == {*watched(spec), PREDICTION, REQUESTS}
    assert {hour for hour, _, _ in found} == {AT, AT + timedelta(hours=1)}


def test_hours_are_counted_once_judged_and_judged_again(
    spec: UseCase, profile: Profile, fresh: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count_predictions, "open_session", lambda settings, name: session_for(settings))
    watchful = spec.model_copy(update={"monitoring": spec.monitoring.model_copy(update={"min_requests": 20})})
    catalog, span = open_catalog(fresh), Interval(SPAN.end - ONE_HOUR, SPAN.end)
    # Before there is a log at all, every hour is one without requests.
    first = count_needed(fresh, watchful, profile, VERSION, span)
    assert first.hours == 8 * 24 + 1
    quiet = judge_span(fresh, watchful, profile, VERSION, span)
    assert (quiet.windows, quiet.requests, quiet.alarmed) == (1, 0, ())
    landed(fresh, records(spec))
    # The last hours are counted in every run.
    again = count_needed(fresh, watchful, profile, VERSION, span)
    assert again.hours == count_predictions.COUNTED_AGAIN
    counted = hours_of(catalog, watchful, profile, SPAN)
    assert counted.counted.all()
    found = expected(spec, profile, records(spec))
    for name, counts in counted.counts.items():
        for hour, cells in enumerate(counts):
            for cell, rows in enumerate(cells):
                assert rows == found.get((SPAN.start + hour * ONE_HOUR, name, cell), 0)
    for _ in range(2):
        judged = judge_span(fresh, watchful, profile, VERSION, span)
    assert judged.requests == int(counted.counts[REQUESTS][:, ANSWERED].sum())
    assert judged.failed == int(counted.counts[REQUESTS][:, FAILED].sum())
    assert "origin: distance" in "\n".join(judged.lines), "an airport that the reference never had"
    (row,) = catalog.load_table(windows_table(spec)).scan().to_arrow().to_pylist()
    assert (row["window_end"], row["version"], row["judged"]) == (SPAN.end, VERSION, True)
    assert row["requests"] == judged.requests
    # Who asks for more than an hour has all of it counted again.
    assert count_needed(fresh, watchful, profile, VERSION, SPAN).hours == 8 * 24 + 2
    features = catalog.load_table(features_table(spec)).scan().to_arrow()
    assert sorted(features["feature"].to_pylist()) == sorted({*watched(spec), PREDICTION})
