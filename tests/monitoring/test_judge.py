"""What is new in a judged window: against the judged one before it, whatever hours are missing or quiet."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from airloop.intervals import ONE_DAY, ONE_HOUR, Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.monitoring.cells import Cells
from airloop.monitoring.counts import ANSWERED, REQUESTS, replace_hours
from airloop.monitoring.judge import judge_span
from airloop.monitoring.profile import Profile, Profiled
from airloop.monitoring.silences import LOST_TRAFFIC, Silence, add_silence
from airloop.references import JudgedWindows
from airloop.settings import Settings
from airloop.use_cases.flight_delay import USE_CASE
from airloop.use_cases.retraining_policy import DRIFT

SPEC = USE_CASE.model_copy(
    update={"monitoring": USE_CASE.monitoring.model_copy(update={"min_requests": 100})}
)
START = datetime(2026, 11, 1, tzinfo=UTC)
VERSION, RUN = 3, "run"
PER_HOUR = 40


def profile() -> Profile:
    random = np.random.default_rng(0)
    days = tuple(map(tuple, random.multinomial(24 * PER_HOUR, [0.5, 0.5, 0.0], 40).tolist()))

    def profiled(name: str) -> Profiled:
        cells = Cells(feature=name, kind="number", edges=(0.0,))
        return Profiled(cells=cells, days=tuple(range(40)), counts=days)

    return Profile(
        use_case=SPEC.name, run_id=RUN, features=(profiled("wind"),), prediction=profiled("prediction")
    )


class Deployment:
    """A lakehouse with counted hours."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.random = settings, np.random.default_rng(1)

    def count(self, first: int, days: int, *, low: float = 0.5, per_hour: int = PER_HOUR) -> None:
        """Days from the start on, of whose winds the share `low` is in the first cell."""
        span = Interval(START + first * ONE_DAY, START + (first + days) * ONE_DAY)
        rows = []
        for number in range(24 * days):
            hour = span.start + number * ONE_HOUR
            rows.append({"hour": hour, "feature": REQUESTS, "cell": ANSWERED, "rows": per_hour})
            for name, share in (("wind", low), ("prediction", 0.5)):
                few = int(self.random.binomial(per_hour, share))
                rows.append({"hour": hour, "feature": name, "cell": 0, "rows": few})
                rows.append({"hour": hour, "feature": name, "cell": 1, "rows": per_hour - few})
        replace_hours(open_catalog(self.settings), SPEC, RUN, span, pa.Table.from_pylist(rows))

    def judge(self, days: float, hours: int = 1) -> JudgedWindows:
        end = START + days * ONE_DAY
        return judge_span(self.settings, SPEC, profile(), VERSION, Interval(end - hours * ONE_HOUR, end))


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    made = Deployment(Settings(state_dir=tmp_path))
    made.count(0, 10)
    return made


def test_an_alarm_begins_goes_on_and_is_over(deployment: Deployment) -> None:
    deployment.count(10, 2, low=0.9)
    deployment.count(12, 2)
    assert deployment.judge(10).alarmed == ()
    assert deployment.judge(11).alarmed == ()
    assert deployment.judge(12).began == ("wind",)
    # The hours in between were not judged; what is repeated says the same.
    assert deployment.judge(12).began == ("wind",)
    going_on = deployment.judge(12 + 1 / 24)
    assert (going_on.alarmed, going_on.began, going_on.cleared) == (("wind",), (), ())
    over = deployment.judge(14)
    assert (over.alarmed, over.cleared) == ((), ("wind",))
    assert deployment.judge(14 + 1 / 24 - 1 / 24).cleared == ("wind",)


def test_a_quiet_window_does_not_say_that_drift_is_over(deployment: Deployment) -> None:
    deployment.count(10, 2, low=0.9)
    deployment.count(12, 1, low=0.9, per_hour=2)
    deployment.count(13, 2, low=0.9)
    assert deployment.judge(12).began == ("wind",)
    quiet = deployment.judge(13)
    assert (quiet.alarmed, quiet.cleared, quiet.lost_traffic_began) == ((), (), True)
    back = deployment.judge(15)
    assert (back.alarmed, back.began, back.lost_traffic_cleared) == (("wind",), (), True)


def test_a_silenced_feature_is_news_when_its_silence_ends(deployment: Deployment) -> None:
    deployment.count(10, 4, low=0.9)
    until = START + 12.5 * ONE_DAY
    silence = Silence(DRIFT, until, "a known storm", "Ada")
    add_silence(open_catalog(deployment.settings), SPEC, START + 11 * ONE_DAY, silence)
    silent = deployment.judge(12)
    assert (silent.alarmed, silent.began) == (("wind",), ())
    assert silent.silenced == (f"drift: {silence.said}",)
    ended = deployment.judge(12.5)
    assert (ended.alarmed, ended.began, ended.silenced) == (("wind",), ("wind",), ())
    assert deployment.judge(12.5 + 1 / 24).began == ()


def test_lost_traffic_can_be_silenced(deployment: Deployment) -> None:
    deployment.count(10, 2, per_hour=6)
    silence = Silence(LOST_TRAFFIC, START + 11.5 * ONE_DAY, "a test that ended", "Ada")
    add_silence(open_catalog(deployment.settings), SPEC, START + 10 * ONE_DAY, silence)
    silent = deployment.judge(11)
    assert (silent.lost_traffic, silent.lost_traffic_began) == (True, False)
    ended = deployment.judge(11.5)
    assert (ended.lost_traffic, ended.lost_traffic_began) == (True, True)


def test_a_past_span_is_judged_hour_by_hour(deployment: Deployment) -> None:
    deployment.count(10, 2, low=0.9)
    found = deployment.judge(12, hours=24)
    assert found.windows == 24
    # The day before is not all drift: its windows become alarms as the second day's hours come in.
    assert found.alarmed == ("wind",)
    assert "wind: distance" in "\n".join(found.lines)
    assert found.distances["wind"] > 0.1


def test_hours_that_were_not_counted_are_no_window(deployment: Deployment) -> None:
    nothing = deployment.judge(20)
    assert (nothing.windows, nothing.last_end, nothing.alarmed) == (0, None, ())
