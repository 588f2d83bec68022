"""What a use case's page shows: from the tables that the other jobs really write, day by day."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.expressions import EqualTo

from airloop.cost.attempts import Attempt, write_attempt
from airloop.cost.prices import load_prices
from airloop.cost.usage_table import priced, replace_attempts
from airloop.intervals import ONE_DAY, ONE_HOUR, Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.monitoring.counts import ANSWERED, FAILED, REQUESTS, replace_hours
from airloop.monitoring.drift import Found
from airloop.monitoring.findings import replace_findings
from airloop.monitoring.homogeneity import Comparison
from airloop.monitoring.judge_quality import arrow_schema, table_name
from airloop.monitoring.scores.binary import BinaryScoring
from airloop.monitoring.silences import Silence, add_silence
from airloop.monitoring.tables import replace_rows
from airloop.monitoring.windows import Feature, Window
from airloop.overview.live import live_of
from airloop.overview.write import main, overview_of
from airloop.registry import open_registry, register_version
from airloop.retraining.causes import Cause
from airloop.retraining.decision import Decision, Refusal
from airloop.retraining.requests import keep_decision
from airloop.routing_document import routing_file
from airloop.serving_history import record_promotion
from airloop.settings import Settings
from airloop.training.tracking import AIRFLOW_RUN, COMPLETE, REQUESTED_BECAUSE, USE_CASE, VERDICT
from airloop.use_cases.flight_delay import USE_CASE as SPEC

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
PRICES = """
currency = "EUR"
[machines.small]
vcpus = 2
memory_gib = 8
on_demand_per_hour = 1.0
[[jobs]]
machine = "small"
[[serving]]
use_case = "flight_delay"
machine = "small"
"""


@pytest.fixture
def settings(tmp_path: Path, new_registry: Path) -> Settings:
    shutil.copyfile(new_registry, tmp_path / "mlflow.db")
    prices = tmp_path / "prices.toml"
    prices.write_text(PRICES)
    found = Settings(
        state_dir=tmp_path / "state", mlflow_uri=f"sqlite:///{tmp_path / 'mlflow.db'}", prices=prices
    )
    record_promotion(found, use_case=SPEC.name, version=1, replaces=None, facts={}, reason="the first")
    return found


def _window(end: datetime, distance: float, *alarmed: str, requests: int = 900, lost: bool = False) -> Window:
    found = Found(Comparison(0.01, distance, requests, 1.0), 0.02, bool(alarmed))
    features = {name: Feature(found, None, 0.1, 0.05) for name in ("wind", "rain")}
    return Window(end, requests, 1, 800, features, tuple(alarmed), lost)


def _keep(settings: Settings, *windows: Window) -> None:
    span = Interval(windows[0].end - timedelta(hours=1), windows[-1].end)
    replace_findings(open_catalog(settings), SPEC, 1, "run", span, windows)


def test_drift_is_the_farthest_of_a_days_windows(settings: Settings) -> None:
    midnight = NOW.replace(hour=0, minute=0)
    _keep(settings, _window(midnight - timedelta(hours=5), 0.3, "wind"), _window(midnight, 0.2, requests=700))
    _keep(settings, _window(midnight + timedelta(hours=1), 0.1, requests=650, lost=True))
    found = overview_of(settings, SPEC, NOW)
    yesterday, today = -2, -1
    wind = {one.feature: one for one in found.drift.features}["wind"]
    # A window that ends at midnight belongs to the day that it ends.
    assert (wind.distance[yesterday], wind.distance[today]) == (0.3, 0.1)
    assert wind.distance[-3] is None
    assert [found.drift.days[place] for place in wind.alarmed] == [found.drift.days[yesterday]]
    assert (wind.missing_share, wind.usual_missing_share) == (0.1, 0.05)
    assert found.traffic.lost == (len(found.traffic.days) - 1,)
    assert found.alarms == ("lost traffic",)
    assert found.drift.last_window == midnight + timedelta(hours=1)
    assert len(found.drift.days) == len(found.traffic.days) == 366


def _count(settings: Settings, run: str, start: datetime, hours: int, requests: int) -> None:
    cells = [(ANSWERED, requests), (FAILED, 1)]
    rows = [
        {"hour": start + number * ONE_HOUR, "feature": REQUESTS, "cell": cell, "rows": many}
        for number in range(hours)
        for cell, many in cells
    ]
    span = Interval(start, start + hours * ONE_HOUR)
    replace_hours(open_catalog(settings), SPEC, run, span, pa.Table.from_pylist(rows))


def test_a_days_traffic_is_its_hours_each_once_and_unknown_while_one_is_missing(settings: Settings) -> None:
    midnight = NOW.replace(hour=0, minute=0)
    _count(settings, "old champion", midnight - 2 * ONE_DAY, 40, 10)
    _count(settings, "champion", midnight - ONE_DAY, 30, 10)
    found = overview_of(settings, SPEC, NOW).traffic
    assert found.requests[-3:] == (240, 240, None)
    assert found.failed[-3:] == (24, 24, None)


SCHEMA = arrow_schema(BinaryScoring())


def _quality(settings: Settings, day: datetime, version: int, auc: float, **fields: object) -> None:
    row = dict.fromkeys(SCHEMA.names) | {
        "day_end": day,
        "version": version,
        "slice": "",
        "answers": 1000,
        "labelled": 900,
        "roc_auc": auc,
        "p_value": 0.5,
        "decayed": False,
        "alarmed": False,
    }
    rows = [row | fields, row | {"slice": "carrier=HA", "roc_auc": 0.55, "p_value": None}]
    replace_rows(
        open_catalog(settings),
        table_name(SPEC),
        pa.Table.from_pylist(rows, SCHEMA),
        EqualTo(term="version", value=version),
        time="day_end",
        said={},
    )


def test_quality_is_that_of_the_version_that_was_judged_last(settings: Settings) -> None:
    day = NOW.replace(hour=0, minute=0) - ONE_DAY
    _quality(settings, day, 1, 0.75)
    _quality(settings, day, 2, 0.61, alarmed=True)
    found = overview_of(settings, SPEC, NOW)
    place = found.quality.days.index((day - ONE_DAY).date())
    assert (found.quality.version[place], found.quality.figures[0].values[place]) == (2, 0.61)
    assert found.quality.alarmed == (place,)
    assert found.quality.label_share[place] == 0.9
    assert found.quality.worst_slices == ("carrier=HA: ROC AUC 0.550 of 900",)
    assert found.alarms == ("decay of version 2",)


def test_candidates_have_what_became_of_them_and_their_whole_runs_price(settings: Settings) -> None:
    client = open_registry(settings)
    experiment = client.create_experiment(SPEC.name)
    started = int((NOW - timedelta(hours=3)).timestamp() * 1000)
    tags = {
        USE_CASE: SPEC.name,
        COMPLETE: "true",
        VERDICT: "accepted",
        AIRFLOW_RUN: "flight_delay_training/manual__1",
        REQUESTED_BECAUSE: "drift of wind",
    }
    run_id = client.create_run(experiment, started, tags).info.run_id
    client.log_metric(run_id, "test_roc_auc", 0.76)
    client.set_terminated(run_id)
    source = f"runs:/{run_id}/saved_model"
    register_version(settings, name=SPEC.model_name, run_id=run_id, source=source, tags={})
    attempts = [_attempt(hours, task) for hours, task in ((3.0, "training_set"), (2.0, "train"))]
    # One is recorded, of the other that is still to be done; and of one of these the file is not yet removed.
    replace_attempts(open_catalog(settings), [priced(attempts[0], load_prices(settings))])
    for one in attempts:
        write_attempt(settings, one)
    found = overview_of(settings, SPEC, NOW)
    (candidate,) = found.candidates
    assert (candidate.version, candidate.outcome, candidate.verdict) == (1, "won", "accepted")
    assert (candidate.because, candidate.measured) == ("drift of wind", 0.76)
    assert candidate.price == pytest.approx(1.0)
    assert found.costs.week == pytest.approx(1.0)
    (run,) = found.costs.runs
    assert (run.dag_id, run.price) == ("flight_delay_training", pytest.approx(1.0))
    assert {fit.module for fit in found.costs.fits} == {"airloop.training.train"}


def _attempt(hours_ago: float, task_id: str) -> Attempt:
    return Attempt(
        use_case=SPEC.name,
        dag_id="flight_delay_training",
        run_id="manual__1",
        task_id=task_id,
        map_index=-1,
        try_number=1,
        module="airloop.training.train",
        started=NOW - timedelta(hours=hours_ago),
        measured=NOW - timedelta(hours=hours_ago - 0.5),
        ended=True,
    )


def test_a_decision_that_lasts_is_shown_once_and_a_silence_until_it_ends(settings: Settings) -> None:
    catalog = open_catalog(settings)
    cause = Cause("drift", "drift of wind", None)
    for hours in (5, 4, 3):
        held = Decision(False, (cause,), Refusal.COOL_DOWN, "it cools down")
        keep_decision(catalog, SPEC, 1, NOW - timedelta(hours=hours), held)
    keep_decision(catalog, SPEC, 1, NOW - timedelta(hours=2), Decision(True, (cause,), None, "drift of wind"))
    keep_decision(catalog, SPEC, 1, NOW - timedelta(hours=1), Decision(False, (), None, "no cause"))
    silence = Silence("decay", NOW + ONE_DAY, "a feast", "Ada")
    add_silence(catalog, SPEC, NOW - ONE_DAY, silence)
    found = overview_of(settings, SPEC, NOW)
    assert [(one.requested, one.said) for one in found.decisions] == [
        (True, "drift of wind"),
        (False, "it cools down"),
    ]
    assert [(one.cause, one.who) for one in found.silences] == [("decay", "Ada")]
    assert overview_of(settings, SPEC, NOW + 2 * ONE_DAY).silences == ()


def test_audits_that_failed_are_shown_and_what_is_no_report_is_left_out(settings: Settings) -> None:
    folder = settings.reports_dir / SPEC.name / "audits"
    folder.mkdir(parents=True)
    said = {"failures": ["flights: too few"], "not_judged": ["weather: usual"]}
    (folder / "20261119_20261120.json").write_text(json.dumps(said))
    (folder / "20261118_20261119.json").write_text("{}")
    (audit,) = overview_of(settings, SPEC, NOW).audits
    assert (audit.passed, audit.failures, audit.not_judged) == (False, ("flights: too few",), 1)
    assert audit.interval == "20261119 to 20261120"


def test_the_job_writes_the_document_whole_also_where_there_is_nothing_yet(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("state_dir", "mlflow_uri", "prices"):
        monkeypatch.setenv(f"AIRLOOP_{name.upper()}", str(getattr(settings, name)))
    result = tmp_path / "result.json"
    status = main(["--use-case", SPEC.name, "--at", NOW.isoformat(), "--result", str(result)])
    assert status == 0
    assert json.loads(result.read_text())["alarms"] == []
    earlier = (NOW - ONE_DAY).isoformat()
    assert main(["--use-case", SPEC.name, "--at", earlier, "--result", str(result)]) == 0
    assert "which is newer" in json.loads(result.read_text())["skipped"]
    written = json.loads(settings.overview_file(SPEC.name).read_text())
    assert written["use_case"] == SPEC.name
    assert written["candidates"] == []
    assert written["quality"]["figures"][0]["values"] == [None] * 366


def test_what_holds_now_is_shown_also_where_a_file_is_damaged(settings: Settings) -> None:
    found = live_of(settings, SPEC)
    assert [period.version for period in found.periods] == [1]
    assert (found.routing.split, found.rollout, found.problems) == (None, (), ())
    path = routing_file(settings.models_dir, SPEC.model_name)
    path.parent.mkdir(parents=True)
    path.write_text("{")
    audit = settings.state_dir / "audit_log" / "audit.jsonl"
    audit.write_text(audit.read_text().replace("the first", "the last"))
    damaged = live_of(settings, SPEC)
    assert damaged.periods == ()
    assert len(damaged.problems) == 2
    assert "routing.json" in damaged.problems[1]


def test_days_touched_by_a_span_are_counted_once() -> None:
    from airloop.overview.watched import days_of

    days = days_of(Interval(NOW - ONE_DAY, NOW.replace(hour=0, minute=0)))
    assert [day.isoformat() for day in days] == ["2026-11-19"]
