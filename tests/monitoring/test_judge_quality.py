"""Days judged by what their labels say, each version by itself, again as labels come in, told once."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from airloop.intervals import ONE_DAY, ONE_HOUR, Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.monitoring import score_table
from airloop.monitoring.cells import Cells
from airloop.monitoring.judge_quality import judge_quality, table_name
from airloop.monitoring.profile import MeasuredDay, Profile, Profiled
from airloop.monitoring.score_table import counted_labels, days_needed, replace_scores
from airloop.monitoring.scores import EVERYTHING
from airloop.monitoring.scores.binary import BinaryScoring
from airloop.monitoring.silences import Silence, add_silence
from airloop.references import JudgedQuality
from airloop.settings import Settings
from airloop.use_cases.flight_delay import USE_CASE
from airloop.use_cases.retraining_policy import DECAY

END = datetime(2026, 11, 20, tzinfo=UTC)
SPAN = days_needed(USE_CASE, Interval(END + 6 * ONE_HOUR, END + 7 * ONE_HOUR))
ROWS = 900
SCORING = BinaryScoring()


def answers(random: np.random.Generator, blur: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    logit = random.normal(-1.3, 1.0, ROWS)
    labels = (random.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(float)
    told = (1 - blur) * logit + blur * random.normal(-1.3, 1.0, ROWS)
    return 1 / (1 + np.exp(-told)), labels


@pytest.fixture(scope="module")
def profile() -> Profile:
    random = np.random.default_rng(0)
    empty = Profiled(cells=Cells(feature="prediction", kind="number"), days=(), counts=())
    days = tuple(
        MeasuredDay(day=n, figures=SCORING.figures(SCORING.scores_of(*answers(random)))) for n in range(28)
    )
    return Profile(use_case=USE_CASE.name, run_id="run", features=(), prediction=empty, test_days=days)


class Deployment:
    """A lakehouse with scores by the day."""

    def __init__(self, settings: Settings, profile: Profile) -> None:
        self.settings, self.profile = settings, profile
        self.catalog = open_catalog(settings)
        self.random = np.random.default_rng(1)
        self.runs = 0

    def day(self, before: int, *, blur: float = 0.0, known: float = 1.0, version: int = 3) -> None:
        """The answers of the day that ended `before` days before the end, all made at noon."""
        hour = END - (before + 1) * ONE_DAY + timedelta(hours=12)
        probabilities, labels = answers(self.random, blur)
        labels[: int(ROWS * (1 - known))] = np.nan
        rows = []
        for name, part in ((EVERYTHING, slice(None)), ("origin=JFK", slice(0, 300))):
            scores = SCORING.scores_of(probabilities[part], labels[part])
            for cell in np.flatnonzero(scores["answers"]):
                sums = {field: float(values[cell]) for field, values in scores.sums.items()}
                rows.append({"hour": hour, "slice": name, "cell": int(cell), **sums})
        span = Interval(hour, hour + ONE_HOUR)
        replace_scores(self.catalog, USE_CASE, version, span, pa.Table.from_pylist(rows), f"{before}")

    def judge(
        self, version: int = 3, run: str = "", days_later: int = 0, at: datetime | None = None
    ) -> JudgedQuality:
        """As the Airflow run `run`, another one each time by default."""
        self.runs += 1
        os.environ["AIRFLOW_CTX_DAG_RUN_ID"] = run or f"run {self.runs}"
        span = Interval(SPAN.start + days_later * ONE_DAY, SPAN.end + days_later * ONE_DAY)
        return judge_quality(self.settings, USE_CASE, self.profile, version, span, at)

    def rows(self) -> list[dict[str, object]]:
        return self.catalog.load_table(table_name(USE_CASE)).scan().to_arrow().to_pylist()


@pytest.fixture
def deployment(tmp_path: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "flight_delay_monitoring")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "")
    return Deployment(Settings(state_dir=tmp_path), profile)


def test_days_reach_back_to_those_whose_labels_may_still_come() -> None:
    # Two days until labels are mature, two for late ones, two that may have to agree; today is not over.
    assert Interval(END - 6 * ONE_DAY, END) == SPAN


def test_good_days_are_judged_and_no_alarm(deployment: Deployment) -> None:
    for before in range(3):
        deployment.day(before)
    found = deployment.judge()
    assert (found.days, found.waiting, found.alarmed, found.last_day) == (3, 0, False, "2026-11-19")
    assert (found.answers, found.labelled) == (ROWS, ROWS)
    rows = deployment.rows()
    assert len(rows) == 6
    assert {row["slice"] for row in rows} == {EVERYTHING, "origin=JFK"}
    assert all((row["p_value"] is None) == (row["slice"] != EVERYTHING) for row in rows)


def test_decay_is_told_when_it_begins_and_not_again(deployment: Deployment) -> None:
    deployment.day(3)
    deployment.day(2, blur=1.0)
    assert not deployment.judge().alarmed
    deployment.day(1, blur=1.0)
    found = deployment.judge()
    assert (found.alarmed, found.began, found.last_day) == (True, True, "2026-11-18")
    again = deployment.judge()
    assert (again.alarmed, again.began) == (True, False)
    deployment.day(0, blur=1.0)
    on = deployment.judge()
    assert (on.alarmed, on.began, on.last_day) == (True, False, "2026-11-19")


def test_a_run_that_is_repeated_says_the_same(deployment: Deployment) -> None:
    deployment.day(2)
    deployment.judge()
    for before in (1, 0):
        deployment.day(before, blur=1.0)
    assert [deployment.judge(run="one").began for _ in range(3)] == [True, True, True]
    assert not deployment.judge(run="another").began


def test_the_end_of_decay_is_told_once(deployment: Deployment) -> None:
    for before in (3, 2):
        deployment.day(before, blur=1.0)
    assert deployment.judge().began
    deployment.day(1)
    over = deployment.judge()
    assert (over.alarmed, over.cleared) == (False, True)
    assert not deployment.judge().cleared


def test_a_silenced_decay_is_news_when_its_silence_ends(deployment: Deployment) -> None:
    now = datetime.now(UTC)
    silence = Silence(DECAY, now + ONE_HOUR, "labels are late", "Ada")
    add_silence(deployment.catalog, USE_CASE, SPAN.start, silence)
    for before in (3, 2):
        deployment.day(before, blur=1.0)
    silent = deployment.judge(at=now)
    assert (silent.alarmed, silent.began, silent.silenced) == (True, False, silence.said)
    # However many hours later the next labels come in.
    ended = deployment.judge(at=now + 30 * ONE_HOUR)
    assert (ended.alarmed, ended.began, ended.silenced) == (True, True, None)


def test_a_day_keeps_its_alarm_when_later_days_are_judged(deployment: Deployment) -> None:
    for before in (3, 2, 1, 0):
        deployment.day(before, blur=1.0)
    deployment.judge()
    alarms = {row["day_end"]: row["alarmed"] for row in deployment.rows() if row["slice"] == EVERYTHING}
    assert [alarms[day] for day in sorted(alarms)] == [False, True, True, True]
    for days_later in range(1, 7):
        deployment.judge(days_later=days_later)
    later = {row["day_end"]: row["alarmed"] for row in deployment.rows() if row["slice"] == EVERYTHING}
    assert later == alarms


def test_a_day_waits_for_its_labels_and_is_judged_once_they_are_in(deployment: Deployment) -> None:
    deployment.day(0, known=0.5)
    found = deployment.judge()
    assert (found.days, found.waiting, found.last_day) == (0, 1, None)
    deployment.day(0, known=0.9)
    assert deployment.judge().days == 1
    assert len(deployment.rows()) == 2


def test_a_new_champion_leaves_the_days_of_the_one_before(deployment: Deployment) -> None:
    deployment.day(2)
    deployment.judge()
    deployment.day(0, version=4)
    deployment.judge(version=4)
    assert sorted((row["version"], row["day_end"].day) for row in deployment.rows()) == [
        *[(3, 18)] * 2,
        *[(4, 20)] * 2,
    ]


def test_what_the_labels_were_is_kept_with_the_scores(deployment: Deployment) -> None:
    assert counted_labels(deployment.catalog, score_table.table_name(USE_CASE)) is None
    deployment.day(1)
    assert counted_labels(deployment.catalog, score_table.table_name(USE_CASE)) == "1"
    assert deployment.judge(version=9).last_day is None
