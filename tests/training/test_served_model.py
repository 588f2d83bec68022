"""The SavedModel of a real training: its signature, and what it makes of odd values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from airloop.errors import RegistryError
from airloop.registry import RECORDED_REQUESTS, SAVED_MODEL, download_artifacts
from airloop.training.examples import read_examples, take
from airloop.training.served_model import ServedModel, input_signature
from airloop.use_cases.spec import ModelInput
from tests.training.conftest import Trained


@pytest.fixture(scope="module")
def folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's SavedModel, downloaded."""
    destination = tmp_path_factory.mktemp("served")
    return download_artifacts(trained.settings, trained.candidate.run_id, SAVED_MODEL, destination)


@pytest.fixture(scope="module")
def model(folder: Path) -> ServedModel:
    return ServedModel(folder)


def row(**changes: Any) -> dict[str, np.ndarray]:
    """One ordinary row, but for `changes`."""
    plain = {
        "colour": "red",
        "due_local": 1357300800,
        "due": 1357318800,
        "heat": 75.0,
        "noise": 0.0,
        "seen_at": 1357300800,
    }
    return {
        name: np.array([value], object if isinstance(value, str) else None)
        for name, value in {**plain, **changes}.items()
    }


def test_the_signature_is_the_specs(folder: Path, trained: Trained) -> None:
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    inputs = serve.structured_input_signature[1]
    assert {name: (spec.dtype, spec.shape.as_list()) for name, spec in inputs.items()} == {
        "colour": (tf.string, [None]),
        "due_local": (tf.int64, [None]),
        "due": (tf.int64, [None]),
        "heat": (tf.float32, [None]),
        "noise": (tf.float32, [None]),
        "seen_at": (tf.int64, [None]),
    }
    outputs = {name: (spec.dtype, spec.shape.as_list()) for name, spec in serve.structured_outputs.items()}
    assert outputs == {"probability": (tf.float32, [None])}


def test_batching_changes_no_answer(model: ServedModel, trained: Trained) -> None:
    test = read_examples(trained.settings, trained.spec, trained.training_set, "test")
    few = take(test.columns, np.arange(5))
    one_by_one = [model.predict(take(few, np.array([index])))[0] for index in range(5)]
    np.testing.assert_allclose(model.predict(test.columns)[:5], one_by_one, atol=1e-6)


@pytest.mark.parametrize(
    "odd",
    [
        {"colour": "ultraviolet"},
        {"colour": ""},
        {"heat": np.nan},
        {"heat": np.inf},
        {"heat": -1e30},
        {"heat": 1e30},
        {"seen_at": 0},
        {"seen_at": 2**40},
        {"due_local": 0, "due": 0},
        {"due_local": -3600},
        {"colour": "", "due_local": 0, "due": 0, "heat": np.nan, "noise": np.nan, "seen_at": 0},
    ],
)
def test_missing_unknown_and_absurd_values_have_a_probability(
    model: ServedModel, odd: dict[str, Any]
) -> None:
    (probability,) = model.predict(row(**odd))
    assert 0.0 < probability < 1.0


def test_unknown_words_are_all_alike_and_unlike_known_ones(model: ServedModel) -> None:
    first, second, known = (model.predict(row(colour=word))[0] for word in ("ultraviolet", "infrared", "red"))
    assert first == second != known


def test_a_missing_number_is_neither_zero_nor_the_mean(model: ServedModel) -> None:
    missing, zero, mean = (model.predict(row(heat=heat))[0] for heat in (np.nan, 0.0, 60.0))
    assert len({missing, zero, mean}) == 3


def test_beyond_the_range_of_training_nothing_changes_any_more(model: ServedModel) -> None:
    assert model.predict(row(heat=500.0)) == model.predict(row(heat=1e9))


def test_an_empty_batch_has_an_empty_answer(model: ServedModel) -> None:
    nothing = {name: values[:0] for name, values in row().items()}
    assert model.predict(nothing).shape == (0,)


def test_recorded_requests_are_answered_again_exactly(
    model: ServedModel, trained: Trained, tmp_path: Path
) -> None:
    path = download_artifacts(trained.settings, trained.candidate.run_id, RECORDED_REQUESTS, tmp_path)
    recorded = json.loads(path.read_text())
    assert set(recorded["inputs"]) == {item.name for item in trained.spec.inputs}
    assert {len(values) for values in recorded["inputs"].values()} == {trained.spec.rollout.replayed_requests}
    assert None in recorded["inputs"]["heat"]
    columns = {
        name: np.array(
            [np.nan if value is None else value for value in values], object if name == "colour" else None
        )
        for name, values in recorded["inputs"].items()
    }
    np.testing.assert_allclose(model.predict(columns), recorded["probability"], atol=1e-6)


def test_differences_from_the_spec_are_named(model: ServedModel, trained: Trained) -> None:
    assert model.differences(trained.spec) == ()
    noise = ModelInput(name="noise", type="string", request_field="colour")
    kept = [item for item in trained.spec.inputs if item.name not in ("heat", "noise")]
    changed = trained.spec.model_copy(update={"inputs": (*kept, noise)})
    assert model.differences(changed) == (
        "input 'heat' is not in the spec",
        "input 'noise' is float32, the spec gives string",
    )
    assert set(input_signature(changed)) == {"colour", "due_local", "due", "seen_at", "noise"}


def test_a_damaged_model_is_a_named_error(folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    whole = (folder / "saved_model.pb").read_bytes()
    (damaged / "saved_model.pb").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RegistryError, match="SavedModel"):
        ServedModel(damaged)
    with pytest.raises(RegistryError, match="SavedModel"):
        ServedModel(tmp_path / "absent")
