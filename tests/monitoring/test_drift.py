"""An alarm needs a difference that is no chance among all features, that matters, and that lasts."""

from __future__ import annotations

import numpy as np

from airloop.monitoring.drift import alarmed, judge
from airloop.monitoring.homogeneity import Comparison
from airloop.use_cases.monitoring_policy import DriftRule

RULE = DriftRule()


def compared(p_value: float, distance: float = 0.2) -> Comparison:
    return Comparison(p_value, distance, 900, 1.0)


def test_with_many_features_a_small_p_value_is_to_be_expected() -> None:
    others = {f"f{number}": compared(p) for number, p in enumerate(np.linspace(0.02, 1, 49))}
    assert not any(found.drifted for found in judge({"a": compared(0.01), **others}, RULE).values())
    found = judge({"a": compared(0.0005), **others}, RULE)
    assert [name for name, one in found.items() if one.drifted] == ["a"]
    assert found["a"].adjusted_p_value == 0.0005 * 50


def test_what_is_certain_and_small_is_no_drift() -> None:
    assert not judge({"a": compared(1e-12, 0.05)}, RULE)["a"].drifted
    assert judge({"a": compared(1e-12, 0.1)}, RULE)["a"].drifted
    assert judge({}, RULE) == {}


def test_an_alarm_is_found_now_and_in_enough_windows_before() -> None:
    yes, no = judge({"a": compared(1e-9)}, RULE), judge({"a": compared(0.9)}, RULE)
    assert alarmed([], RULE) == ()
    assert alarmed([yes], RULE) == ()
    assert alarmed([yes, yes], RULE) == ("a",)
    assert alarmed([yes, no, yes], RULE) == ("a",)
    assert alarmed([yes, yes, no], RULE) == (), "it is over"
    assert alarmed([yes, no, no, yes], RULE) == ()


def test_what_each_window_alone_could_be_by_chance_two_of_them_hardly_are() -> None:
    others = {f"f{number}": compared(p) for number, p in enumerate(np.linspace(0.02, 1, 39))}
    once = judge({"a": compared(0.01), **others}, RULE)
    assert not once["a"].drifted
    # The newest and one of two others are at most 0.01 in 0.02% of all cases: 2 p^2 - p^3.
    before = judge({"a": compared(0.01), **dict(zip(others, reversed(others.values()), strict=True))}, RULE)
    assert alarmed([before, judge({"a": compared(0.5)}, RULE), once], RULE) == ("a",)
    assert alarmed([judge({"a": compared(0.1)}, RULE), once], RULE) == ()


def test_far_off_is_asked_of_each_window_that_agrees() -> None:
    near, far = judge({"a": compared(1e-9, 0.05)}, RULE), judge({"a": compared(1e-9)}, RULE)
    assert alarmed([near, far], RULE) == () == alarmed([far, near], RULE)
    assert alarmed([far, near, far], RULE) == ("a",)


def test_chance_is_an_alarm_as_seldom_as_is_stated() -> None:
    random = np.random.default_rng(0)
    names = [f"f{number}" for number in range(40)]
    windows = [
        judge(dict(zip(names, map(compared, random.random(40)), strict=True)), RULE) for _ in range(3002)
    ]
    alarms = [bool(alarmed(windows[n : n + 3], RULE)) for n in range(3000)]
    assert 0.005 < np.mean(alarms) <= RULE.false_discovery_rate


def test_windows_must_agree_on_the_same_feature() -> None:
    one = judge({"a": compared(1e-9), "b": compared(0.9)}, RULE)
    other = judge({"a": compared(0.9), "b": compared(1e-9)}, RULE)
    assert alarmed([one, other], RULE) == ()
    assert alarmed([one, other, one], RULE) == ("a",)
