"""Changed rows, and inputs that know too much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from airloop.errors import SpecError
from airloop.training.examples import Examples
from airloop.training.probes import PROBED_ROWS, behaviours, single_inputs
from airloop.use_cases.gates import Behaviour
from airloop.use_cases.spec import UseCase, define
from airloop.use_cases.target import Multiclass, Regression, Target
from tests.training.planted import planted_use_case

ROWS = 8000
RANDOM = np.random.default_rng(0)
LABELS = (RANDOM.random(ROWS) < 0.3).astype(np.int8)


def rows(**changes: np.ndarray) -> Examples:
    due = 1_360_000_000 + np.arange(ROWS) * 600
    columns: dict[str, np.ndarray] = {
        "colour": RANDOM.choice(np.array(["red", "blue"], object), ROWS),
        "due_local": due - 5 * 3600,
        "due": due,
        "heat": RANDOM.normal(size=ROWS).astype(np.float32),
        "noise": RANDOM.normal(size=ROWS).astype(np.float32),
        "seen_at": due - 3600,
    }
    return Examples({**columns, **changes}, LABELS)


class Warm:
    """A model that is hotter by a hundredth for each degree, and in the afternoon by a tenth."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, np.ndarray]] = []

    def predict(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        self.asked.append(columns)
        afternoon = columns["due_local"] % 86400 >= 12 * 3600
        return 0.5 + 0.01 * columns["heat"] + 0.1 * afternoon


def spec_with(**fields: Any) -> UseCase:
    spec = planted_use_case()
    wanted = Behaviour(**{"name": "hotter", "effect": "rises", "why": "heat harms", **fields})
    return define(
        **{
            **{name: getattr(spec, name) for name in type(spec).model_fields},
            "gates": spec.gates.model_copy(update={"behaviours": (wanted,)}),
        }
    )


def test_the_mean_moves_by_what_the_change_does() -> None:
    model = Warm()
    (probe,) = behaviours(spec_with(changes={"heat": 5.0}), model, rows())
    assert probe.value == pytest.approx(0.05, abs=1e-6)
    assert "5000 rows" in probe.detail
    after, before = model.asked
    assert len(before["heat"]) == PROBED_ROWS
    np.testing.assert_array_equal(after["noise"], before["noise"])


def test_times_are_changed_in_hours_and_only_where_it_is_asked() -> None:
    model = Warm()
    (probe,) = behaviours(
        spec_with(changes={"due_local": 3.0, "due": 3.0}, only={"due_local": (9.0, 12.0)}), model, rows()
    )
    after, before = model.asked
    np.testing.assert_array_equal(after["due"] - before["due"], 3 * 3600)
    hours = before["due_local"] / 3600 % 24
    assert hours.min() >= 9
    assert hours.max() < 12
    assert probe.value == pytest.approx(0.1)


def test_rows_without_what_is_changed_are_left_out_and_none_left_is_no_answer() -> None:
    heat = np.where(np.arange(ROWS) % 2 == 0, np.nan, 1.0).astype(np.float32)
    (probe,) = behaviours(spec_with(changes={"heat": 5.0}), Warm(), rows(heat=heat))
    assert "4000 rows" in probe.detail
    (probe,) = behaviours(spec_with(changes={"seen_at": 1.0}), Warm(), rows(seen_at=np.zeros(ROWS, np.int64)))
    assert probe.value is None


def test_a_behaviour_about_what_is_no_number_is_refused() -> None:
    with pytest.raises(SpecError, match=r"gates.behaviours.hotter: 'colour' is no numeric or time input"):
        spec_with(changes={"colour": 1.0})


LEAKS = {
    "a number that follows the label": {"noise": (LABELS + RANDOM.normal(0, 0.1, ROWS)).astype(np.float32)},
    "a number that goes against it": {"noise": (-LABELS + RANDOM.normal(0, 0.1, ROWS)).astype(np.float32)},
    "a number that is there only then": {"noise": np.where(LABELS == 1, 1.0, np.nan).astype(np.float32)},
    "an instant that is there only then": {"seen_at": LABELS.astype(np.int64) * 1_360_000_000},
    "a word that tells it": {"colour": np.where(LABELS == 1, "red", "blue").astype(object)},
}


@pytest.mark.parametrize("name", LEAKS)
def test_an_input_that_knows_the_label_stands_out(name: str) -> None:
    found = {
        probe.name: probe.value or 0.0 for probe in single_inputs(planted_use_case(), rows(**LEAKS[name]))
    }
    (leaking,) = LEAKS[name]
    assert found.pop(leaking) > 0.95
    spans = {span.name for span in planted_use_case().elapsed}
    assert {item.name for item in planted_use_case().inputs} - {leaking} <= set(found)
    assert set(found) <= {item.name for item in planted_use_case().inputs} | spans
    assert all(0.5 <= value < 0.55 for value in found.values())


def test_an_instant_of_the_outcome_stands_out_by_what_the_model_makes_of_it() -> None:
    """By itself it is one among many: only from the event's time to it says what became of the event."""
    due = rows().columns["due"]
    seen_at = (due - 3600 * (2 - LABELS.astype(np.int64)) - RANDOM.integers(0, 60, ROWS)).astype(np.int64)
    found = {probe.name: probe.value for probe in single_inputs(planted_use_case(), rows(seen_at=seen_at))}
    assert found["seen_at"] is not None
    assert found["seen_at"] < 0.7
    assert found["idle_hours"] is not None
    assert found["idle_hours"] > 0.95


def test_with_one_class_nothing_is_probed() -> None:
    one = Examples(rows().columns, np.zeros(ROWS, np.int8))
    assert list(single_inputs(planted_use_case(), one)) == []


def test_a_few_rows_that_anything_would_tell_apart_are_no_leak() -> None:
    late = ROWS - 200
    some = np.full(ROWS, np.nan, np.float32)
    some[late : late + 150] = LABELS[late : late + 150]
    found = {probe.name: probe.value for probe in single_inputs(planted_use_case(), rows(noise=some))}
    assert found["noise"] is not None
    assert found["noise"] < 0.6


def test_two_behaviours_of_one_name_are_refused() -> None:
    spec = planted_use_case()
    one = Behaviour(name="hotter", changes={"heat": 1.0}, effect="rises", why="w")
    with pytest.raises(SpecError, match=r"gates.behaviours: 'hotter' appears 2 times"):
        define(
            **{
                **{name: getattr(spec, name) for name in type(spec).model_fields},
                "gates": spec.gates.model_copy(update={"behaviours": (one, one)}),
            }
        )


def of_kind(target: Target) -> UseCase:
    spec = planted_use_case()
    return spec.model_copy(update={"label": spec.label.model_copy(update={"target": target})})


MINUTES = (LABELS * 30 + RANDOM.normal(size=ROWS) * 5).astype(np.float32)
CLASSES = (LABELS + (RANDOM.random(ROWS) < 0.4)).astype(np.int16)
LEAKS_OF_NUMBERS = {
    "noise": MINUTES**3,
    "colour": np.where(MINUTES > 20, "red", "blue").astype(object),
    "seen_at": np.where(MINUTES > 20, 1_360_000_000, 0).astype(np.int64),
}


@pytest.mark.parametrize("name", LEAKS_OF_NUMBERS)
def test_an_input_that_knows_the_number_explains_its_variance(name: str) -> None:
    asked = Examples(rows(**{name: LEAKS_OF_NUMBERS[name]}).columns, MINUTES)
    found = {probe.name: probe.value for probe in single_inputs(of_kind(Regression(unit="min")), asked)}
    assert found[name] is not None
    assert found[name] > 0.8
    assert found["heat"] is not None
    assert 0 <= found["heat"] < 0.02


def test_an_input_that_knows_one_class_of_several_stands_out() -> None:
    asked = Examples(rows(noise=(CLASSES == 2).astype(np.float32)).columns, CLASSES)
    found = {
        probe.name: probe.value
        for probe in single_inputs(of_kind(Multiclass(classes=("none", "one", "both"))), asked)
    }
    assert found["noise"] == 1
    assert found["heat"] is not None
    assert found["heat"] < 0.55
