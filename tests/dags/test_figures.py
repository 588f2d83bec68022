"""A job's figures, as they leave the task: in StatsD's protocol, to a socket."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.configuration import conf
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils

from airloop.references import (
    JudgedQuality,
    JudgedWindows,
    LandedPredictions,
    RetrainingDecision,
    StageDecision,
)
from airloop.settings import Settings
from airloop.stack.programs import metrics
from airloop_airflow import figures

END = datetime(2026, 11, 20, 12, tzinfo=UTC)
WINDOWS = JudgedWindows(
    version=3, windows=1, last_end=END.isoformat(), requests=900, alarmed=("wind",), distances={"wind": 0.31}
).model_dump(mode="json")
JUDGE = "airloop.monitoring.judge"


@pytest.fixture
def sent(monkeypatch):
    """What a job's document made Airflow send, as the local stack has it sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(0.2)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        for name, value in metrics(Settings(statsd_address=address)).items():
            monkeypatch.setenv(f"AIRFLOW__{name}", value)
        stats.initialize(
            factory=stats_utils.get_stats_factory(),
            export_legacy_names=conf.getboolean("metrics", "legacy_names_on"),
        )

        def of(module, document, *, flags=None, due=END + timedelta(minutes=20), run_type="scheduled"):
            run = SimpleNamespace(run_after=due, run_type=run_type)
            figures.send(module, "flight_delay", flags or {}, document, {"dag_run": run})
            # What is sent after them is the last to come.
            stats.gauge("end", 1)
            lines: list[str] = []
            while not lines or lines[-1] != "airflow.end:1|g":
                lines += listener.recv(65535).decode().splitlines()
            return lines[:-1]

        yield of
    monkeypatch.undo()
    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)


def test_a_judged_window_is_sent_with_its_use_case_and_features(sent):
    lines = sent(JUDGE, WINDOWS)
    assert "airflow.airloop_drift_distance,feature=wind,use_case=flight_delay:0.31|g" in _sorted_labels(lines)
    assert "airflow.airloop_drift_alarm,feature=wind,use_case=flight_delay:1.0|g" in _sorted_labels(lines)
    assert f"airflow.airloop_window_end_timestamp_seconds,use_case=flight_delay:{END.timestamp()}|g" in lines


def test_history_moves_no_gauge(sent):
    assert sent(JUDGE, WINDOWS, due=END + timedelta(days=1)) == []
    assert sent(JUDGE, WINDOWS, run_type="backfill") == []


def test_what_is_counted_counts_in_a_backfill_too(sent):
    landed = LandedPredictions(table="t", rows=7, files=1, damaged_lines=0).model_dump(mode="json")
    lines = sent("airloop.prediction_log.land", landed, run_type="backfill")
    assert "airflow.airloop_landed_predictions_total,use_case=flight_delay:7|c" in lines


def test_a_figure_below_zero_is_set_and_not_subtracted(sent):
    judged = JudgedQuality(
        version=3,
        days=1,
        waiting=0,
        last_day="2026-11-18",
        figures={"roc_auc": None, "gain": -0.02},
    ).model_dump(mode="json")
    lines = sent("airloop.monitoring.judge_quality", judged)
    gain = [line for line in lines if "quality_gain" in line]
    assert [line.rpartition(":")[2] for line in gain] == ["0|g", "-0.02|g"]
    assert not [line for line in lines if "roc_auc" in line], "what is not defined is not sent"


def test_labels_are_what_the_protocol_can_carry(sent):
    decided = RetrainingDecision(refusal="under way").model_dump(mode="json")
    assert sent("airloop.retraining.decide", decided) == [
        "airflow.airloop_retraining_decisions_total,use_case=flight_delay,outcome=under_way:1|c"
    ]


def test_a_stage_that_holds_is_a_look_and_no_decision(sent):
    held = StageDecision(
        name="m", version=4, stage="shadow", decision="hold", reason="r", champion=3, since=END, until=END
    ).model_dump(mode="json")
    assert [line.partition(",")[0] for line in sent("serving.stage", held)] == [
        "airflow.airloop_rollout_look_timestamp_seconds"
    ]
    passed = sent("serving.stage", held | {"decision": "go_on"})
    assert [line for line in passed if "rollout_decisions_total" in line and "stage=shadow" in line]


def test_a_document_that_is_not_as_expected_fails_no_task(sent, caplog):
    assert sent(JUDGE, {"last_end": "not a time"}) == []
    assert "were not sent" in caplog.text
    assert sent("spark_jobs.maintenance", {"anything": 1}) == []


def _sorted_labels(lines):
    parts = [line.rpartition(":") for line in lines]
    return [
        ",".join([name.split(",")[0], *sorted(name.split(",")[1:])]) + f":{value}" for name, _, value in parts
    ]
