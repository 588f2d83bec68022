"""Answers joined to labels on Spark: told ones, known ones, ids used twice; sums as NumPy makes them."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from airloop.intervals import ONE_DAY, ONE_HOUR, Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.monitoring.cells import Cells
from airloop.monitoring.judge_quality import judge_quality
from airloop.monitoring.profile import Profile, Profiled
from airloop.monitoring.score_table import days_needed, scores_in
from airloop.monitoring.scores import EVERYTHING
from airloop.monitoring.scores.binary import BinaryScoring
from airloop.prediction_log import labels, variants
from airloop.prediction_log.land import land
from airloop.prediction_log.logs import OUTCOMES
from airloop.prediction_log.outcome import OutcomeRecord
from airloop.prediction_log.record import PredictionRecord
from airloop.prediction_log.spool import Spool
from airloop.prediction_request import example_body, parse_request
from airloop.settings import REPOSITORY, Settings
from airloop.use_cases.spec import UseCase
from spark_jobs import count_scores
from spark_jobs.count_scores import count_and_keep
from tests.streams.in_session import session_for

DAY = datetime(2026, 11, 19, tzinfo=UTC)
ASKED = Interval(DAY + ONE_DAY, DAY + ONE_DAY + ONE_HOUR)
VERSION = 3


def record(spec: UseCase, number: int, **changed: object) -> PredictionRecord:
    body = example_body(spec) | {"origin": "JFK" if number % 3 else "LGA"}
    request = parse_request(spec, json.dumps(body))
    facts: dict[str, object] = {
        "request_id": f"request {number}",
        "trace_id": "0" * 31 + "1",
        "instance": 0,
        "caller": "web",
        "use_case": spec.name,
        "model": spec.model_name,
        "version": VERSION,
        "variant": variants.CHAMPION,
        "predicted_at": DAY + timedelta(minutes=20 * number),
        "prediction_time": DAY,
        "answer": ((number + 0.5) / 60,),
        "latency_seconds": 0.01,
        "entities": {},
        "request": {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in request.fields.items()
        },
        "features": {
            item.name: 1.0 if item.type == "double" else 1_360_000_000
            for item in spec.inputs
            if item.request_field is None
        },
        "missing_features": [],
        "event": f"event {number}",
    }
    return PredictionRecord.model_validate(facts | changed)


def told(spec: UseCase, number: int, label: float, minutes: int = 0) -> OutcomeRecord:
    at = DAY + timedelta(hours=30, minutes=minutes)
    return OutcomeRecord(
        request_id=f"request {number}",
        instance=0,
        use_case=spec.name,
        label=label,
        observed_at=at,
        received_at=at,
        caller="web",
    )


def know(settings: Settings, spec: UseCase, found: list[tuple[str, float]]) -> None:
    """Put labels of events into the lakehouse's table."""
    rows = pa.table(
        {
            "event": [event for event, _ in found],
            "prediction_time": pa.array([DAY] * len(found), pa.timestamp("us", tz="UTC")),
            "label": [label for _, label in found],
        }
    )
    catalog = open_catalog(settings)
    catalog.create_namespace_if_not_exists("labels")
    catalog.create_table_if_not_exists(labels.table_name(spec), schema=rows.schema).append(rows)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "jars").symlink_to(REPOSITORY / ".airloop" / "jars")
    monkeypatch.setattr(count_scores, "open_session", lambda settings, name: session_for(settings))
    return Settings(state_dir=tmp_path)


def test_answers_are_joined_to_their_labels_and_added_up(spec: UseCase, fresh: Settings) -> None:
    empty = Profiled(cells=Cells(feature="prediction", kind="number"), days=(), counts=())
    profile = Profile(use_case=spec.name, run_id="run", features=(), prediction=empty)
    assert "was ever predicted" in (count_and_keep(fresh, spec, profile, VERSION, ASKED).skipped or "")
    made = [record(spec, number) for number in range(60)]
    made += [
        record(spec, 100, version=4),
        record(spec, 101, variant=variants.SHADOW),
        record(spec, 102, answer=None, error=variants.LATE),
        record(spec, 103, predicted_at=DAY + ONE_DAY),
        # A client used this id for two requests: what is told of it is about neither.
        record(spec, 0, predicted_at=DAY + timedelta(hours=23), event="event of another"),
    ]
    with closing(Spool(fresh.prediction_spool_dir)) as spool:
        for one in made:
            assert spool.append([one])
    outcomes = [told(spec, number, float(number % 2)) for number in range(20)]
    # The last word counts.
    outcomes += [told(spec, 5, 0.0, minutes=5)]
    with closing(Spool(fresh.outcome_spool_dir)) as spool:
        for outcome in outcomes:
            assert spool.append([outcome])
    land(fresh)
    land(fresh, OUTCOMES)
    know(
        fresh,
        spec,
        [(f"event {n}", 1.0) for n in (0, *range(18, 30))] + [("event 40", 1.0), ("event 40", 0.0)],
    )

    done = count_and_keep(fresh, spec, profile, VERSION, ASKED)
    assert done.skipped is None
    label = {number: float(number % 2) for number in range(1, 20)} | {5: 0.0}
    label |= dict.fromkeys((0, *range(20, 30)), 1.0)
    kept = [one for one in made if one.version == VERSION and one.variant == variants.CHAMPION]
    kept = [one for one in kept if one.error is None and one.predicted_at < DAY + ONE_DAY]
    assert len(kept) == 61
    found = scores_in(open_catalog(fresh), spec, VERSION, Interval(DAY, DAY + ONE_DAY))
    for hour in (DAY, DAY + 6 * ONE_HOUR, DAY + 19 * ONE_HOUR, DAY + 23 * ONE_HOUR):
        here = [one for one in kept if hour <= one.predicted_at < hour + ONE_HOUR]
        known = [
            np.nan if one.event == "event of another" else label.get(int(one.request_id.split()[1]), np.nan)
            for one in here
        ]
        expected = BinaryScoring().scores_of(np.array([one.answer[0] for one in here]), np.array(known))
        for name, sums in expected.sums.items():
            assert np.allclose(found[hour][EVERYTHING][name], sums)
        slices = [name for name in found[hour] if name.startswith("origin=")]
        assert sum(found[hour][name]["answers"].sum() for name in slices) == len(here)

    # Until days were judged by these labels it is done again; then nothing new is nothing to do.
    assert count_and_keep(fresh, spec, profile, VERSION, ASKED).rows == done.rows
    judged = judge_quality(fresh, spec, profile, VERSION, days_needed(spec, ASKED))
    assert (judged.days, judged.waiting, judged.has_test_days) == (0, 1, False)
    again = count_and_keep(fresh, spec, profile, VERSION, ASKED)
    assert "no label came in" in (again.skipped or "")
    # A longer span is asked for by somebody, who means it.
    assert count_and_keep(fresh, spec, profile, VERSION, Interval(DAY, ASKED.end)).rows == done.rows
    know(fresh, spec, [("event 50", 1.0)])
    assert count_and_keep(fresh, spec, profile, VERSION, ASKED).skipped is None
