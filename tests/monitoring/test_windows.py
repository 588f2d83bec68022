"""Windows judged by hourly counts: drift that lasts, a week before, quiet and missing hours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from airloop.intervals import ONE_HOUR, Interval
from airloop.monitoring.cells import number_cells
from airloop.monitoring.counts import REQUESTS, Hours
from airloop.monitoring.monitored import PREDICTION
from airloop.monitoring.profile import Profile, Profiled
from airloop.monitoring.windows import Window, comparable, judged, needed
from airloop.use_cases.monitoring_policy import DriftRule, Monitoring

END = datetime(2026, 11, 20, 7, tzinfo=UTC)
POLICY = Monitoring(min_requests=100)
SPAN = needed(POLICY, Interval(END - ONE_HOUR, END))
HOURS = (SPAN.end - SPAN.start) // ONE_HOUR
PER_HOUR = 40
FEATURES = ("wind", "carrier_delay", PREDICTION)


def profiled(name: str, random: np.random.Generator, days: int = 60) -> Profiled:
    values = random.normal(size=(days, 24 * PER_HOUR))
    cells = number_cells(name, values.ravel())
    counts = tuple(tuple(map(int, cells.count(day))) for day in values)
    return Profiled(cells=cells, days=tuple(range(days)), counts=counts)


@pytest.fixture(scope="module")
def profile() -> Profile:
    random = np.random.default_rng(0)
    *features, prediction = (profiled(name, random) for name in FEATURES)
    return Profile(use_case="small", run_id="run", features=tuple(features), prediction=prediction)


class Traffic:
    """Hours of traffic like the reference's, to be changed."""

    def __init__(self, profile: Profile) -> None:
        self.random = np.random.default_rng(1)
        self.cells = {one.cells.feature: one.cells for one in (*profile.features, profile.prediction)}
        self.values = {name: self.random.normal(size=(HOURS, PER_HOUR)) for name in FEATURES}
        self.asked = np.full(HOURS, PER_HOUR)
        self.rows: dict[str, np.ndarray] = {}
        self.counted = np.ones(HOURS, bool)

    def since(self, days: float, until: float = 0) -> slice:
        """The hours from `days` before the end to `until` days before it."""
        return slice(HOURS - int(24 * days), HOURS - int(24 * until))

    def judge(self, profile: Profile, policy: Monitoring = POLICY) -> Window | None:
        counts = {}
        for name, hours in self.values.items():
            rows = self.rows.get(name, self.asked)
            counts[name] = np.array(
                [self.cells[name].count(hour[:many]) for hour, many in zip(hours, rows, strict=True)]
            )
        counts[REQUESTS] = np.stack([self.asked, np.zeros(HOURS, np.int64)], axis=1)
        return next(judged(profile, Hours(SPAN.start, self.counted, counts), policy, [END]), None)


@pytest.fixture
def traffic(profile: Profile) -> Traffic:
    return Traffic(profile)


def test_traffic_like_the_reference_is_no_alarm(traffic: Traffic, profile: Profile) -> None:
    window = traffic.judge(profile)
    assert window is not None
    assert (window.requests, window.requests_before, window.lost_traffic) == (24 * PER_HOUR,) * 2 + (False,)
    assert set(window.features) == set(FEATURES)
    assert not any(one.found.drifted for one in window.features.values())
    assert window.alarmed == ()


def test_what_drifts_for_a_day_is_found_and_for_two_is_an_alarm(traffic: Traffic, profile: Profile) -> None:
    traffic.values["wind"][traffic.since(1)] += 1
    window = traffic.judge(profile)
    assert window is not None
    assert [name for name, one in window.features.items() if one.found.drifted] == ["wind"]
    assert window.alarmed == ()
    traffic.values["wind"][traffic.since(2, 1)] += 1
    window = traffic.judge(profile)
    assert window is not None
    assert window.alarmed == ("wind",)
    before = window.features["wind"].before
    assert before is not None
    assert before.drifted, "a week before it was not there"


def test_what_has_long_been_so_is_drift_and_no_change_from_a_week_before(
    traffic: Traffic, profile: Profile
) -> None:
    traffic.values["wind"] += 1
    window = traffic.judge(profile)
    assert window is not None
    assert window.alarmed == ("wind",)
    before = window.features["wind"].before
    assert before is not None
    assert not before.drifted


def test_what_was_not_there_a_week_before_is_compared_with_nothing(
    traffic: Traffic, profile: Profile
) -> None:
    traffic.rows[PREDICTION] = np.where(np.arange(HOURS) < HOURS - 48, 0, PER_HOUR)
    window = traffic.judge(profile)
    assert window is not None
    assert window.features[PREDICTION].before is None
    assert window.features["wind"].before is not None


def test_values_that_go_missing_are_drift_and_their_share_is_told(traffic: Traffic, profile: Profile) -> None:
    traffic.values["wind"][traffic.since(2)][:, ::5] = np.nan
    window = traffic.judge(profile)
    assert window is not None
    assert window.alarmed == ("wind",)
    assert window.features["wind"].missing_share == pytest.approx(0.2)
    assert window.features["wind"].usual_missing_share == 0


def test_a_window_with_an_hour_that_was_not_counted_is_not_judged(traffic: Traffic, profile: Profile) -> None:
    traffic.counted[-5] = False
    assert traffic.judge(profile) is None


def test_a_day_that_was_not_counted_agrees_with_nothing(traffic: Traffic, profile: Profile) -> None:
    traffic.values["wind"][traffic.since(2)] += 1
    traffic.counted[traffic.since(3, 1)] = False
    window = traffic.judge(profile)
    assert window is not None
    assert window.features["wind"].found.drifted
    assert window.alarmed == ()


def test_too_few_requests_are_told_and_not_judged(traffic: Traffic, profile: Profile) -> None:
    traffic.asked[traffic.since(1)] = 4
    window = traffic.judge(profile)
    assert window is not None
    assert (window.requests, window.requests_before) == (96, 960)
    assert (window.features, window.alarmed) == ({}, ())
    assert window.lost_traffic


def test_where_there_never_was_traffic_none_is_lost(traffic: Traffic, profile: Profile) -> None:
    traffic.asked[:] = 0
    window = traffic.judge(profile)
    assert window is not None
    assert not window.lost_traffic


def test_a_reference_of_too_few_days_is_left_out(profile: Profile) -> None:
    few = profiled(PREDICTION, np.random.default_rng(3), days=13)
    short = profile.model_copy(update={"prediction": few})
    assert [one.cells.feature for one in comparable(short)] == ["wind", "carrier_delay"]
    window = Traffic(profile).judge(short)
    assert window is not None
    assert set(window.features) == {"wind", "carrier_delay"}


def test_windows_need_the_hours_of_the_week_before_and_of_those_that_must_agree() -> None:
    assert Interval(END - ONE_HOUR - timedelta(days=8), END) == SPAN
    long = POLICY.model_copy(update={"drift": DriftRule(agreeing=5, windows=10)})
    assert needed(long, Interval(END - ONE_HOUR, END)).start == END - ONE_HOUR - timedelta(days=10)
