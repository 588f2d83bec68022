"""A profile: the watched features of a model's inputs, counted day by day."""

from __future__ import annotations

import numpy as np

from airloop.monitoring.monitored import PREDICTION, watched, watched_values
from airloop.monitoring.profile import Profile, profile_of
from airloop.use_cases.flight_delay import USE_CASE

ROWS = 200
NOON = 1_360_000_000 // 86_400 * 86_400 + 12 * 3600


def inputs() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    for item in USE_CASE.inputs:
        if item.type == "string":
            found[item.name] = np.array([f"w{n}" for n in random.integers(0, 5, ROWS)], object)
        elif item.type == "double":
            found[item.name] = random.normal(size=ROWS).astype(np.float32)
        else:
            found[item.name] = np.full(ROWS, NOON)
    return found


def test_times_are_watched_by_the_hour_and_by_what_lies_between() -> None:
    given = inputs()
    given["scheduled_departure_local"][:2] = (NOON + 3 * 3600 + 59, 0)
    given["scheduled_arrival"] = given["scheduled_departure"] + 5400
    given["tail_last_event_at"][0] = 0
    values = watched_values(USE_CASE, given)
    assert set(values) == set(watched(USE_CASE))
    assert values["scheduled_departure_local_hour"][[0, 2]].tolist() == [15, 12]
    assert np.isnan(values["scheduled_departure_local_hour"][1])
    assert set(values["scheduled_hours"].tolist()) == {1.5}
    assert np.isnan(values["tail_idle_hours"][0])
    assert "scheduled_departure" not in values


def test_every_row_of_every_day_is_counted_once_in_each_feature() -> None:
    given = inputs()
    given["temperature_f"][:10] = np.nan
    days = np.repeat([15741, 15743], [150, 50])
    predictions = np.random.default_rng(1).random(30)
    profile = profile_of(
        *(USE_CASE, "run"),
        train=given,
        train_days=days,
        predictions=predictions,
        labels=np.tile([0, 1, 0], 10),
        test_days=np.repeat([15750, 15751, 15752], 10),
    )
    assert [one.cells.feature for one in profile.features] == list(watched(USE_CASE))
    for one in profile.features:
        assert one.days == (15741, 15743)
        assert one.array().sum(axis=1).tolist() == [150, 50]
    (temperature,) = (one for one in profile.features if one.cells.feature == "temperature_f")
    assert temperature.array()[:, -1].tolist() == [10, 0]
    assert profile.prediction.cells.feature == PREDICTION
    assert profile.prediction.array().sum(axis=1).tolist() == [10, 10, 10]
    assert [(one.day, one.figures.labelled, one.figures.positives) for one in profile.test_days] == [
        (15750, 10, 3),
        (15751, 10, 4),
        (15752, 10, 3),
    ]
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


def test_a_number_in_a_log_falls_into_the_cell_that_it_fell_into_in_training() -> None:
    given = inputs()
    given["temperature_f"] = np.repeat(np.arange(0.1, 2.1, 0.1), 10).astype(np.float32)
    profile = profile_of(
        *(USE_CASE, "run"),
        train=given,
        train_days=np.zeros(ROWS, int),
        predictions=np.random.default_rng(1).random(5),
        labels=np.zeros(5, int),
        test_days=np.zeros(5, int),
    )
    (temperature,) = (one for one in profile.features if one.cells.feature == "temperature_f")
    logged = np.repeat(np.arange(0.1, 2.1, 0.1), 10)
    assert temperature.cells.count(logged).tolist() == temperature.array()[0].tolist()
