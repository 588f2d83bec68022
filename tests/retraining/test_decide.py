"""From what monitoring found to a decision that is kept: on the real tables, registry and audit log."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.expressions import AlwaysFalse, AlwaysTrue

from airloop.audit_log import records
from airloop.errors import MonitoringError
from airloop.intervals import ONE_DAY, ONE_HOUR
from airloop.lakehouse.catalog import ensure_namespace, open_catalog
from airloop.monitoring import judge_quality
from airloop.monitoring.findings import WINDOWS, windows_table
from airloop.monitoring.judge_quality import arrow_schema
from airloop.monitoring.scores.binary import BinaryScoring
from airloop.monitoring.silence import silence
from airloop.monitoring.silences import Silence, silences_of
from airloop.monitoring.tables import replace_rows, rows_where
from airloop.references import RetrainingDecision
from airloop.registry import open_registry, register_version
from airloop.retraining.decide import decide_at
from airloop.retraining.requests import table_name
from airloop.serving_history import record_promotion
from airloop.settings import Settings
from airloop.training.tracking import AS_OF as AS_OF_TAG
from airloop.training.tracking import USE_CASE as USE_CASE_TAG
from airloop.use_cases.flight_delay import USE_CASE
from airloop.use_cases.spec import UseCase

NOW = datetime(2026, 11, 20, 12, 20, tzinfo=UTC)
HOUR = NOW.replace(minute=0)
AS_OF = datetime(2026, 11, 10, tzinfo=UTC)


def spec_with(**retraining: object) -> UseCase:
    return USE_CASE.model_copy(update={"retraining": USE_CASE.retraining.model_copy(update=retraining)})


class Deployment:
    """A champion, and what monitoring found of it."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.catalog = settings, open_catalog(settings)
        client = open_registry(settings)
        experiment = client.create_experiment(USE_CASE.name)
        started = int((NOW - 10 * ONE_DAY).timestamp() * 1000)
        self.run = client.create_run(
            experiment, started, {USE_CASE_TAG: USE_CASE.name, AS_OF_TAG: AS_OF.isoformat()}
        ).info.run_id
        client.set_terminated(self.run)
        self.version = register_version(
            settings,
            name=USE_CASE.model_name,
            run_id=self.run,
            source=f"runs:/{self.run}/saved_model",
            tags={"airloop.promoted_by": "by-hand"},
        )
        record_promotion(settings, use_case=USE_CASE.name, version=self.version, replaces=None, facts={})

    def window(self, *alarmed: str, end: datetime = HOUR, version: int | None = None) -> None:
        row = {
            "window_end": end,
            "version": version or self.version,
            "run_id": self.run,
            "requests": 900,
            "failed": 0,
            "judged": True,
            "lost_traffic": False,
            "alarmed": list(alarmed),
        }
        self._add(windows_table(USE_CASE), row, WINDOWS, "window_end")

    def day(self, end: datetime, *, alarmed: bool, p_value: float | None = 0.001) -> None:
        row = {
            "day_end": end,
            "version": self.version,
            "slice": "",
            "answers": 900,
            "labelled": 880,
            "positives": 200,
            "gain": 0.02,
            "usual_gain": 0.06,
            "p_value": p_value,
            "decayed": alarmed,
            "alarmed": alarmed,
        }
        self._add(judge_quality.table_name(USE_CASE), row, arrow_schema(BinaryScoring()), "day_end")

    def flights(self, count: int, at: datetime) -> None:
        """Rows of the event table, of which only the event time matters here."""
        table = USE_CASE.clean_table(str(USE_CASE.event_table))
        column = pa.array([at] * count, pa.timestamp("us", tz="UTC"))
        ensure_namespace(self.catalog, "clean")
        rows = pa.table({str(table.event_time): column})
        self.catalog.create_table_if_not_exists(f"clean.{table.name}", rows.schema).append(rows)

    def _add(self, name: str, row: dict[str, object], schema: pa.Schema, time: str) -> None:
        rows = pa.Table.from_pylist([row], schema)
        replace_rows(self.catalog, name, rows, AlwaysFalse(), time=time, said={})

    def decide(self, at: datetime = NOW, spec: UseCase = USE_CASE) -> RetrainingDecision:
        return decide_at(self.settings, spec, at)

    def kept(self) -> list[dict[str, object]]:
        rows = rows_where(self.catalog, table_name(USE_CASE), AlwaysTrue())
        return sorted(rows, key=lambda row: row["at"])

    def silence(self, cause: str, *, at: datetime, until: datetime) -> None:
        silence(self.settings, USE_CASE, at, Silence(cause, until, "a known storm", "Ada"))


@pytest.fixture
def deployment(tmp_path: Path, new_registry: Path) -> Deployment:
    shutil.copyfile(new_registry, tmp_path / "mlflow.db")
    return Deployment(Settings(state_dir=tmp_path, mlflow_uri=f"sqlite:///{tmp_path / 'mlflow.db'}"))


def test_drift_of_the_newest_window_requests_a_training_and_is_kept(deployment: Deployment) -> None:
    deployment.window(end=HOUR - ONE_HOUR)
    deployment.window("wind", "visibility")
    found = deployment.decide()
    said = "drift of visibility, wind in the window until 2026-11-20 12:00 UTC"
    assert (found.requested, found.causes, found.said) == (True, ("drift",), said)
    (row,) = deployment.kept()
    assert (row["requested"], row["refusal"], row["said"]) == (True, None, said)


def test_a_repeated_task_decides_the_same_and_keeps_one_row(deployment: Deployment) -> None:
    deployment.window("wind")
    assert deployment.decide() == deployment.decide()
    assert len(deployment.kept()) == 1


def test_the_next_hour_waits_for_what_was_requested(deployment: Deployment) -> None:
    deployment.window("wind")
    deployment.decide()
    deployment.window("wind", end=HOUR + ONE_HOUR)
    found = deployment.decide(NOW + ONE_HOUR)
    assert (found.requested, found.refusal, found.needs_a_person) == (False, "cool-down", False)


@pytest.mark.parametrize("what", ["drift is over", "monitoring stands still", "another version"])
def test_old_news_is_no_cause(deployment: Deployment, what: str) -> None:
    if what == "drift is over":
        deployment.window("wind", end=HOUR - ONE_HOUR)
        deployment.window()
    elif what == "monitoring stands still":
        deployment.window("wind", end=HOUR - 7 * ONE_HOUR)
    else:
        deployment.window("wind", version=deployment.version + 1)
    assert deployment.decide().said == "no cause"


def test_decay_of_the_newest_judged_day_is_a_cause(deployment: Deployment) -> None:
    midnight = HOUR.replace(hour=0)
    deployment.day(midnight - 3 * ONE_DAY, alarmed=True)
    deployment.day(midnight - 2 * ONE_DAY, alarmed=False, p_value=None)
    found = deployment.decide()
    assert found.causes == ("decay",)
    assert (
        f"version {deployment.version} decays: on 2026-11-16 a gain over a base rate of 0.0200" in found.said
    )
    deployment.day(midnight - ONE_DAY, alarmed=False)
    assert deployment.decide(NOW + ONE_HOUR).said == "no cause"


def test_enough_new_events_are_a_cause_once_their_labels_are_due(deployment: Deployment) -> None:
    spec = spec_with(after_new_events=100)
    deployment.flights(99, AS_OF + ONE_HOUR)
    deployment.flights(50, AS_OF - ONE_HOUR)
    deployment.flights(50, NOW - ONE_HOUR)
    assert deployment.decide(spec=spec).said == "no cause"
    deployment.flights(1, AS_OF + ONE_DAY)
    found = deployment.decide(NOW + timedelta(minutes=1), spec)
    assert (found.requested, found.causes) == (True, ("new_events",))
    assert "100 events whose labels are due since 2026-11-10 00:00 UTC" in found.said


def test_the_spec_says_what_is_a_cause(deployment: Deployment) -> None:
    deployment.window("wind")
    assert deployment.decide(spec=spec_with(on_drift=False)).said == "no cause"


def test_what_only_a_person_can_change_is_told_once(deployment: Deployment) -> None:
    spec = spec_with(trainings_per_week=1, cool_down=ONE_HOUR)
    client = open_registry(deployment.settings)
    started = int((NOW - 3 * ONE_DAY).timestamp() * 1000)
    experiment = client.get_experiment_by_name(USE_CASE.name).experiment_id
    tags = {USE_CASE_TAG: USE_CASE.name, "airloop.verdict": "rejected"}
    client.set_terminated(client.create_run(experiment, started, tags).info.run_id)
    told = []
    for hours in range(3):
        deployment.window("wind", end=HOUR + hours * ONE_HOUR)
        found = deployment.decide(NOW + hours * ONE_HOUR, spec)
        assert found.refusal == "budget"
        told.append(found.needs_a_person)
    assert told == [True, False, False]


def test_an_old_run_that_is_cleared_does_not_request_what_a_newer_one_did(deployment: Deployment) -> None:
    deployment.window("wind")
    deployment.window("wind", end=HOUR + ONE_HOUR)
    assert deployment.decide(NOW + ONE_HOUR).requested
    assert deployment.decide(NOW).refusal == "cool-down"


def test_before_anything_serves_there_is_nothing_to_decide(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, mlflow_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert "nothing to replace" in (decide_at(settings, USE_CASE, NOW).skipped or "")


def test_a_silenced_feature_is_no_cause_until_another_drifts_or_the_silence_ends(
    deployment: Deployment,
) -> None:
    feature = "wind_gust_mph"
    deployment.silence(f"drift of {feature}", at=NOW - ONE_DAY, until=NOW + ONE_DAY)
    deployment.window(feature)
    found = deployment.decide()
    assert (found.requested, found.refusal) == (False, "silenced")
    assert "by Ada: a known storm" in found.said
    deployment.window(feature, "visibility", end=HOUR + ONE_HOUR)
    later = deployment.decide(NOW + ONE_HOUR)
    assert later.requested
    assert later.said.startswith("drift of visibility in")


def test_a_later_silence_takes_the_place_of_an_earlier_one_and_may_lift_it(deployment: Deployment) -> None:
    deployment.silence("drift", at=NOW - ONE_DAY, until=NOW + ONE_DAY)
    silences = silences_of(deployment.catalog, USE_CASE)
    assert set(silences.at(NOW)) == {"drift"}
    assert silences.at(NOW + ONE_DAY) == {} == silences.at(NOW - 2 * ONE_DAY)
    deployment.silence("drift", at=NOW - ONE_HOUR, until=NOW - ONE_HOUR)
    lifted = silences_of(deployment.catalog, USE_CASE)
    assert lifted.at(NOW) == {}
    assert set(lifted.at(NOW - 2 * ONE_HOUR)) == {"drift"}
    assert [record["what"]["cause"] for record in records(deployment.settings) if record["kind"] == "silence"]


@pytest.mark.parametrize(
    ("cause", "until", "reason", "message"),
    [
        ("rain", NOW + ONE_DAY, "why", "'drift of <feature>'"),
        ("drift of colour", NOW + ONE_DAY, "why", "'drift of <feature>'"),
        ("drift", NOW + 91 * ONE_DAY, "why", "within 90 days"),
        ("drift", NOW + ONE_DAY, "  ", "a reason"),
    ],
)
def test_a_silence_that_nobody_could_understand_later_is_refused(
    deployment: Deployment, cause: str, until: datetime, reason: str, message: str
) -> None:
    with pytest.raises(MonitoringError, match=message):
        silence(deployment.settings, USE_CASE, NOW, Silence(cause, until, reason, "Ada"))
    assert silences_of(deployment.catalog, USE_CASE).at(NOW) == {}
    assert not [record for record in records(deployment.settings) if record["kind"] == "silence"]
