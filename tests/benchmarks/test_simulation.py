"""The simulation's clock: runs are counted, nothing of the future is learnt from, and decay is answered.

A made-up year, with a concept that turns over on one day; verdicts, monitoring and decisions are the real
ones, and a logistic regression takes the network's place.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from airloop.intervals import ONE_DAY, ONE_HOUR, Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.monitoring.counts import replace_hours
from airloop.monitoring.judge import judge_span
from airloop.monitoring.judge_quality import judge_quality
from airloop.monitoring.score_table import days_needed, replace_scores
from airloop.monitoring.scores.binary import BinaryScoring
from airloop.monitoring.windows import needed
from airloop.retraining.causes import causes
from airloop.retraining.decision import Refusal
from airloop.settings import Settings
from airloop.training.examples import Columns
from airloop.training.learning import Splits
from airloop.training.staging import Staged
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from benchmarks.simulation import report
from benchmarks.simulation.candidates import Candidates
from benchmarks.simulation.gate import KeptGate, failed_rules
from benchmarks.simulation.replay import SCHEDULED, TICK, Policy, Story, replay
from benchmarks.simulation.watch import Watch
from benchmarks.simulation.year import EPOCH, MICROS, FutureError, Year

FIRST = datetime(2013, 1, 7, tzinfo=UTC)
START = FIRST + 50 * ONE_DAY
"""A Tuesday, so that the first Monday comes six days later."""
TURNED = START + 13 * ONE_DAY
SPAN = Interval(START, START + 24 * ONE_DAY)
DAILY_ROWS = 240
TELLING = "origin_late_share_3h"


@pytest.fixture(scope="module")
def spec() -> UseCase:
    found = use_case("flight_delay")
    training = found.training.model_copy(update={"train_days": 28, "validation_days": 7, "test_days": 14})
    gates = found.gates.model_copy(update={"behaviours": (), "slices": ()})
    return found.model_copy(update={"training": training, "gates": gates})


@pytest.fixture(scope="module")
def year(spec: UseCase) -> Year:
    random = np.random.default_rng(1)
    days = (SPAN.end - FIRST).days
    rows = days * DAILY_ROWS
    # Between 10 and 22 o'clock.
    minutes = np.tile(600 + np.arange(DAILY_ROWS) * 3, days) + np.repeat(np.arange(days) * 1440, DAILY_ROWS)
    times = (FIRST - EPOCH) // MICROS + minutes * 60_000_000
    seconds = times // 1_000_000
    columns, words = {}, {}
    for item in spec.inputs:
        if item.type == "string":
            words[item.name] = np.array(["AA", "BB"], object)
            columns[item.name] = random.integers(0, 2, rows).astype(np.int32)
        elif item.type == "double":
            columns[item.name] = random.normal(size=rows).astype(np.float32)
        else:
            columns[item.name] = seconds + 7200
    turned = times >= (TURNED - EPOCH) // MICROS
    logit = np.where(turned, -1.5, 1.5) * columns[TELLING] - 0.5
    labels = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int8)
    outcomes = np.zeros(rows, np.float32)
    return Year(spec, Staged(columns=columns, words=words, labels=labels, times=times, outcomes=outcomes))


class Regression:
    """Learns from the one input that tells anything."""

    def __init__(self, splits: Splits) -> None:
        train = splits.train
        self._fitted = LogisticRegression().fit(train.columns[TELLING][:, None], train.labels)

    def predict(self, columns: Columns) -> np.ndarray:
        found: np.ndarray = self._fitted.predict_proba(columns[TELLING][:, None])[:, 1]
        return found.astype(np.float32)


class Learner:
    """Remembers the latest row that each training was given."""

    def __init__(self) -> None:
        self.latest: list[datetime] = []

    def __call__(self, splits: Splits) -> Regression:
        last = max(int(split.times.max()) for split in splits)
        self.latest.append(EPOCH + last * MICROS)
        return Regression(splits)


@pytest.fixture(scope="module")
def learner() -> Learner:
    return Learner()


@pytest.fixture(scope="module")
def candidates(year: Year, learner: Learner, tmp_path_factory: pytest.TempPathFactory) -> Candidates:
    return Candidates(year, learner, tmp_path_factory.mktemp("candidates"))


@pytest.fixture(scope="module")
def never(year: Year, candidates: Candidates) -> Story:
    return replay(year, Policy("never", ""), SPAN, candidates, failed_rules)


@pytest.fixture(scope="module")
def weekly(year: Year, candidates: Candidates) -> Story:
    return replay(year, Policy("weekly", "", weeks=1), SPAN, candidates, failed_rules)


@pytest.fixture(scope="module")
def verdict(year: Year, candidates: Candidates) -> Story:
    policy = Policy("verdict", "", verdict=year.spec.retraining)
    return replay(year, policy, SPAN, candidates, failed_rules)


def test_a_planted_decay_is_answered_and_nothing_else_is(verdict: Story):
    assert verdict.runs[0].causes == ("decay",)
    # Two days must agree, and the labels of the second are known two midnights later.
    assert TURNED + 3 * ONE_DAY <= verdict.runs[0].at <= TURNED + 5 * ONE_DAY
    assert all(one.at - other.at >= ONE_DAY * 2 for other, one in pairwise(verdict.runs))


def test_runs_are_those_of_the_policy_alone(never: Story, weekly: Story, verdict: Story, year: Year):
    assert never.runs == []
    assert [run.at.weekday() for run in weekly.runs] == [0] * len(weekly.runs)
    assert {run.causes for run in weekly.runs} == {(SCHEDULED,)}
    mondays = [day for day, _ in SPAN.pieces(ONE_DAY) if day.weekday() == 0]
    assert [run.at.date() for run in weekly.runs] == [day.date() for day in mondays]
    found = report.measured(year, SPAN, weekly, price_per_hour=3600.0)
    assert (found["trainings"], found["promoted"] + found["rejected"]) == (len(mondays), len(mondays))
    assert found["cost"] == pytest.approx(sum(run.seconds for run in weekly.runs), abs=0.01)
    assert report.measured(year, SPAN, never, price_per_hour=3600.0)["cost"] == 0
    # Before anything is trained, all serve the same model.
    rows = year.numbers(Interval(START, START + ONE_DAY))
    assert (verdict.answers[: rows.stop - rows.start] == never.answers[: rows.stop - rows.start]).all()


def test_never_is_under_alarm_after_the_decay_and_only_then(never: Story):
    alarmed = [START + day * ONE_DAY for day, look in enumerate(never.looks) if look.causes]
    assert alarmed
    assert min(alarmed) >= TURNED + 3 * ONE_DAY


def test_nothing_of_the_future_is_learnt_from(
    year: Year, candidates: Candidates, learner: Learner, weekly: Story, verdict: Story
):
    known_after = year.spec.label.matures_after
    asked = [START, *(run.at.replace(hour=0) for run in (*weekly.runs, *verdict.runs))]
    assert len(learner.latest) == len(set(asked))
    tested = timedelta(days=year.spec.training.test_days)
    assert max(learner.latest) + known_after + tested <= max(asked)
    splits = year.splits(START)
    assert splits["train"].stop == splits["validation"].start
    assert splits["validation"].stop == splits["test"].start
    last = EPOCH + int(year.rows.times[splits["test"].stop - 1]) * MICROS
    assert last + known_after <= START
    with pytest.raises(FutureError, match="is not known"):
        year.known(Interval(START - ONE_DAY, START), START)
    with pytest.raises(ValueError, match="before the test window"):
        candidates.as_of(START).of(splits["validation"])


def test_rejected_candidates_do_not_serve_and_two_of_them_stop_a_monitor_that_may_lose_two(
    year: Year, candidates: Candidates, never: Story
):
    limits = year.spec.retraining.model_copy(update={"most_losers": 2, "cool_down": 2 * ONE_DAY})
    policy = Policy("verdict", "", verdict=limits)
    story = replay(year, policy, SPAN, candidates, lambda *_: ("worse",))
    assert len(story.runs) == 2
    assert story.refusals[Refusal.STOPPED] > 0
    assert story.promoted == 0
    assert (story.answers == never.answers).all()


def test_what_was_made_is_kept(year: Year, candidates: Candidates, tmp_path: Path):
    made = candidates.as_of(START)
    again = Candidates(year, Learner(), candidates._folder).as_of(START)
    assert (again.answers == made.answers).all()
    assert again.profile == made.profile
    gate = KeptGate(tmp_path)
    assert gate(year, made, None) == failed_rules(year, made, None) == gate(year, made, None)
    assert [file.name for file in tmp_path.iterdir()] == [f"{START:%Y%m%d}_none.json"]


def test_a_day_is_judged_as_the_jobs_judge_it(year: Year, candidates: Candidates, tmp_path: Path):
    shifted, spec, at = dict(year.rows.columns), year.spec, TURNED + 5 * ONE_DAY + TICK
    colder = year.rows.times >= (TURNED - EPOCH) // MICROS
    shifted["temperature_f"] = np.where(colder, shifted["temperature_f"] - 3, shifted["temperature_f"])
    moved = replace(year, rows=replace(year.rows, columns=shifted))
    champion = candidates.as_of(START)
    watch = Watch(moved, champion, START)
    for day in range((at - START).days + 1):
        look = watch.look(START + day * ONE_DAY + TICK)

    settings = Settings(state_dir=tmp_path)
    catalog, hour = open_catalog(settings), Interval(at - TICK - ONE_HOUR, at - TICK)
    span = needed(spec.monitoring, hour)
    counts = watch.counts(span).counts
    rows = [
        {
            "hour": span.start + int(n) * ONE_HOUR,
            "feature": name,
            "cell": int(cell),
            "rows": int(found[n, cell]),
        }
        for name, found in counts.items()
        for n, cell in np.argwhere(found)
    ]
    replace_hours(catalog, spec, champion.profile.run_id, span, pa.Table.from_pylist(rows))
    judged = judge_span(settings, spec, champion.profile, 1, hour)
    days = days_needed(spec, Interval(at - ONE_HOUR, at))
    scored = []
    for day in days.pieces(ONE_DAY):
        if day.end + spec.prediction_lead + spec.label.matures_after <= at:
            of_day = moved.numbers(day)
            sums = BinaryScoring().scores_of(champion.of(of_day), moved.rows.labels[of_day].astype(float))
            scored += [
                {"hour": day.start, "slice": "", "cell": cell, **{n: of[cell] for n, of in sums.sums.items()}}
                for cell in range(len(sums["answers"]))
            ]
    replace_scores(catalog, spec, 1, days, pa.Table.from_pylist(scored), "labels")
    judge_quality(settings, spec, champion.profile, 1, days)

    assert judged.alarmed == look.drifted
    assert "temperature_f" in look.drifted
    theirs = causes(catalog, spec, 1, None, at, {})
    assert [one.name for one in theirs] == [one.name for one in look.causes] == ["drift", "decay"]
