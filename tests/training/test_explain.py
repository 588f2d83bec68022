"""Contributions add up to what the model says, and are those of the inputs that it looks at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from airloop.errors import RegistryError
from airloop.training.evaluate import load_model
from airloop.training.examples import Columns, read_examples, take
from airloop.training.explain import Explainer, background_document, read_background, sample
from airloop.training.importance import LEAST_SLICE_ROWS, importance_of
from airloop.use_cases.gates import Slicing
from airloop.use_cases.target import Binary, Multiclass, Regression
from tests.training.conftest import Trained

RANDOM = np.random.default_rng(5)
ROWS = 60
COLUMNS: Columns = {
    "colour": RANDOM.choice(np.array(["red", "blue", ""], object), ROWS),
    "heat": np.where(RANDOM.random(ROWS) < 0.2, np.nan, RANDOM.normal(size=ROWS)).astype(np.float32),
    # Instants seconds apart: as plain numbers they would all be equal to shap.
    "due": (1_360_000_000 + RANDOM.integers(0, 600, ROWS)).astype(np.int64),
    "unused": RANDOM.normal(size=ROWS).astype(np.float32),
}


class Known:
    """A model whose log-odds are a sum of known terms, plus one of two inputs together."""

    inputs: Mapping[str, None] = dict.fromkeys(COLUMNS)

    def terms(self, columns: Columns) -> dict[str, np.ndarray]:
        return {
            "colour": 0.9 * (columns["colour"] == "red"),
            "heat": np.where(np.isnan(columns["heat"]), -1.0, columns["heat"]).astype(np.float64),
            "due": (columns["due"] - 1_360_000_000) / 300,
            "unused": np.zeros(len(columns["heat"])),
        }

    def predict(self, columns: Columns) -> np.ndarray:
        terms = self.terms(columns)
        assert columns["due"].dtype == np.int64
        assert columns["heat"].dtype == np.float32
        return 1 / (1 + np.exp(-(-1 + sum(terms.values()))))


class Together(Known):
    """Red alone does nothing, and late alone does nothing: only both."""

    def predict(self, columns: Columns) -> np.ndarray:
        both = (columns["colour"] == "red") & (columns["due"] > 1_360_000_300)
        return 1 / (1 + np.exp(-(2.0 * both - 1)))


BACKGROUND, ASKED = take(COLUMNS, np.arange(40)), take(COLUMNS, np.arange(40, ROWS))


def test_a_sum_is_taken_apart_exactly() -> None:
    model = Known()
    explained = Explainer(Binary(), model, BACKGROUND, seed=1).explain(ASKED)
    usual, here = model.terms(BACKGROUND), model.terms(ASKED)
    assert explained.base == pytest.approx(-1 + sum(term.mean() for term in usual.values()))
    for name, values in explained.contributions.items():
        np.testing.assert_allclose(values, here[name] - usual[name].mean(), atol=1e-9)


def test_what_two_inputs_do_together_is_shared_between_them() -> None:
    model = Together()
    explained = Explainer(Binary(), model, BACKGROUND, seed=1).explain(ASKED)
    red, late = (
        (columns["colour"] == "red", columns["due"] > 1_360_000_300) for columns in (BACKGROUND, ASKED)
    )
    # Shapley's mean of the two orders, by hand.
    (back_red, back_late), (here_red, here_late) = red, late
    empty, both = 2.0 * (back_red & back_late).mean(), 2.0 * (here_red & here_late)
    with_red, with_late = 2.0 * here_red * back_late.mean(), 2.0 * here_late * back_red.mean()
    np.testing.assert_allclose(
        explained.contributions["colour"], (with_red - empty + both - with_late) / 2, atol=1e-9
    )
    np.testing.assert_allclose(explained.contributions["unused"], 0, atol=1e-12)


def test_a_rows_explanation_does_not_depend_on_the_rows_beside_it() -> None:
    explainer = Explainer(Binary(), Known(), BACKGROUND, seed=1)
    together = explainer.explain(ASKED)
    alone = explainer.explain(take(ASKED, np.array([7])))
    for name, values in together.contributions.items():
        assert alone.contributions[name][0] == values[7]


def test_the_callers_random_numbers_are_left_alone() -> None:
    np.random.seed(11)
    expected = np.random.random()
    np.random.seed(11)
    Explainer(Binary(), Known(), BACKGROUND, seed=1).explain(take(ASKED, np.array([0])))
    assert np.random.random() == expected


def test_a_served_model_is_explained_to_its_last_digits(trained: Trained, tmp_path: Path) -> None:
    model = load_model(trained.settings, trained.spec, trained.candidate.run_id, tmp_path)
    test = read_examples(trained.settings, trained.spec, trained.training_set, "test")
    text = background_document(take(test.columns, sample(test.columns, 30, 1)))
    explainer = Explainer(Binary(), model, read_background(text), seed=1)
    asked = take(test.columns, sample(test.columns, 40, 2))
    explained = explainer.explain(asked)
    p = model.predict(asked).astype(np.float64)
    np.testing.assert_allclose(explained.total(), np.log(p / (1 - p)), atol=1e-5)
    red = asked["colour"] == "red"
    assert explained.contributions["colour"][red].min() > explained.contributions["colour"][~red].max()


def test_importance_finds_what_was_planted_overall_and_by_slice(trained: Trained, tmp_path: Path) -> None:
    model = load_model(trained.settings, trained.spec, trained.candidate.run_id, tmp_path)
    test = read_examples(trained.settings, trained.spec, trained.training_set, "test")
    gates = trained.spec.gates.model_copy(
        update={
            "slices": (
                Slicing(name="colour", input="colour"),
                Slicing(name="heat", input="heat", edges=(20, 60)),
            )
        }
    )
    spec = trained.spec.model_copy(update={"gates": gates})
    found, background = importance_of(spec, model, test, rows=100, background_rows=25)
    assert (found.rows, found.background_rows, len(background["heat"])) == (100, 25, 25)
    assert set(found.importance) == set(model.inputs)
    assert list(found.importance.values()) == sorted(found.importance.values(), reverse=True)
    assert next(iter(found.importance)) == "heat"
    assert found.importance["noise"] < 0.2 * found.importance["heat"]
    assert all(part.rows >= LEAST_SLICE_ROWS for part in found.slices)
    names = {part.name for part in found.slices}
    assert {"colour=red", "heat=20..60"} <= names
    assert "heat=-inf..20" not in names
    again, _ = importance_of(spec, model, test, rows=100, background_rows=25)
    assert again == found


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"inputs": {"a": [1], "b": [1, 2]}}', '{"inputs": {"a": [{}]}}']
)
def test_a_damaged_background_is_a_named_error(text: str) -> None:
    with pytest.raises(RegistryError, match="explanation_background"):
        read_background(text)


def test_a_background_survives_being_written() -> None:
    again = read_background(background_document(BACKGROUND))
    for name, values in BACKGROUND.items():
        assert again[name].dtype == values.dtype
        np.testing.assert_array_equal(again[name], values)


class Counting:
    """A number, or three classes, of which heat alone decides."""

    inputs: Mapping[str, object] = dict.fromkeys(("colour", "heat"))

    def __init__(self, *, classes: bool) -> None:
        self.classes = classes

    def predict(self, columns: Columns) -> np.ndarray:
        heat = np.nan_to_num(columns["heat"].astype(np.float64))
        if not self.classes:
            return 20 + 5 * heat
        scores = np.exp(np.stack([heat, -heat, 0 * heat], axis=1))
        return scores / scores.sum(axis=1, keepdims=True)


def test_a_number_is_taken_apart_in_its_unit() -> None:
    explained = Explainer(Regression(unit="min"), Counting(classes=False), BACKGROUND, seed=1).explain(ASKED)
    np.testing.assert_allclose(explained.total(), Counting(classes=False).predict(ASKED), atol=1e-6)
    assert np.abs(explained.contributions["colour"]).max() < 1e-9


def test_of_several_classes_the_one_that_is_given_is_explained() -> None:
    model = Counting(classes=True)
    explained = Explainer(Multiclass(classes=("a", "b", "c")), model, BACKGROUND, seed=1).explain(ASKED)
    most = model.predict(ASKED).max(axis=1)
    np.testing.assert_allclose(explained.total(), np.log(most / (1 - most)), atol=1e-6)
    assert len(set(explained.base.round(6))) > 1
