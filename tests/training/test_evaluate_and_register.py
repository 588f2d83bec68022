"""From a candidate to a registered version: the verdict decides, and the champion meets the same rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from airloop.errors import RegistryError
from airloop.references import Evaluated
from airloop.registry import (
    CHALLENGER,
    CHAMPION,
    RECORDED_REQUESTS,
    SAVED_MODEL,
    SIGNATURE_DIGEST,
    drop_alias,
    open_registry,
    register_version,
    set_alias,
    tags_of,
    version_behind,
)
from airloop.signed_models import sign_run
from airloop.training import evaluate as evaluation
from airloop.training.evaluate import evaluate
from airloop.training.examples import read_examples
from airloop.training.register import register
from airloop.use_cases.gates import FigureGate
from airloop.use_cases.spec import ModelInput, UseCase
from airloop.verdict import Verdict
from tests.training.conftest import Trained


def report(trained: Trained) -> Verdict:
    path = trained.settings.reports_dir / "planted" / trained.training_set.tag / "verdict.json"
    return Verdict.model_validate_json(path.read_text())


def with_gates(spec: UseCase, **gates: Any) -> UseCase:
    return spec.model_copy(update={"gates": spec.gates.model_copy(update=gates)})


@pytest.fixture
def evaluated(trained: Trained) -> Iterator[Evaluated]:
    """The candidate under an accepting verdict, without a champion, before and after the test."""
    yield evaluate(trained.settings, trained.spec, trained.training_set, trained.candidate)
    drop_alias(trained.settings, "planted", CHAMPION)
    drop_alias(trained.settings, "planted", CHALLENGER)


@pytest.fixture
def champion(trained: Trained, evaluated: Evaluated) -> int:
    """A champion that is the candidate's own model."""
    version = register(trained.settings, trained.spec, evaluated).version
    set_alias(trained.settings, "planted", CHAMPION, version)
    return version


def test_the_first_candidate_is_accepted_and_its_verdict_is_in_mlflow_and_the_reports(
    trained: Trained, evaluated: Evaluated, tmp_path: Path
) -> None:
    assert evaluated.accepted
    client = open_registry(trained.settings)
    path = client.download_artifacts(evaluated.run_id, "verdict.json", str(tmp_path))
    assert Verdict.model_validate_json(Path(path).read_text()) == report(trained)
    metrics = client.get_run(evaluated.run_id).data.metrics
    assert metrics["test_roc_auc"] == evaluated.figures["test_roc_auc"]
    assert metrics["test_log_loss"] < metrics["baseline_log_loss"]
    assert metrics["test_rows"] == metrics["baseline_rows"] == 2000
    assert report(trained).training_set == trained.training_set


def test_a_champion_is_measured_on_the_same_rows(trained: Trained, champion: int) -> None:
    again = evaluate(trained.settings, trained.spec, trained.training_set, trained.candidate)
    verdict = report(trained)
    assert again.accepted
    assert verdict.champion is not None
    assert (verdict.champion.version, verdict.champion.measures) == (champion, verdict.candidate)


def test_a_champion_whose_alias_was_taken_away_is_still_the_one_to_beat(
    trained: Trained, champion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_alias(trained.settings, "planted", CHAMPION)
    evaluate(trained.settings, trained.spec, trained.training_set, trained.candidate)
    assert report(trained).champion is None, "nothing is on record as having served"
    monkeypatch.setattr(evaluation, "recorded_champion", lambda *_: champion)
    evaluate(trained.settings, trained.spec, trained.training_set, trained.candidate)
    found = report(trained).champion
    assert found is not None
    assert found.version == champion


def test_a_candidate_that_is_worse_than_its_gates_is_rejected_and_not_registered(
    trained: Trained, evaluated: Evaluated
) -> None:
    strict = with_gates(trained.spec, figures={"roc_auc": FigureGate(min_gain_over_baseline=0.9)})
    rejected = evaluate(trained.settings, strict, trained.training_set, trained.candidate)
    assert not rejected.accepted
    assert [reason.split(":")[0] for reason in report(trained).reasons] == ["roc_auc_gain_over_baseline"]
    with pytest.raises(RegistryError, match="roc_auc_gain_over_baseline"):
        register(trained.settings, trained.spec, rejected)
    with pytest.raises(RegistryError, match="roc_auc_gain_over_baseline"):
        register(trained.settings, trained.spec, rejected.model_copy(update={"accepted": True}))
    assert version_behind(trained.settings, "planted", CHALLENGER) is None


def serve_as_champion(
    trained: Trained, module: tf.Module, specs: dict[str, tf.TensorSpec], folder: Path
) -> int:
    """Make the model that `module` computes from inputs of `specs` the champion; its version."""
    client = open_registry(trained.settings)
    experiment = client.get_run(trained.candidate.run_id).info.experiment_id
    run = client.create_run(experiment)
    signature = tf.function(module.__call__).get_concrete_function(**specs)
    tf.saved_model.save(module, str(folder / SAVED_MODEL), {"serving_default": signature})
    client.log_artifacts(run.info.run_id, str(folder / SAVED_MODEL), SAVED_MODEL)
    client.log_text(run.info.run_id, "{}", RECORDED_REQUESTS)
    client.set_terminated(run.info.run_id)
    source = f"{run.info.artifact_uri}/{SAVED_MODEL}"
    signed = {SIGNATURE_DIGEST: sign_run(trained.settings, "planted", run.info.run_id)}
    version = register_version(
        trained.settings, name="planted", run_id=run.info.run_id, source=source, tags=signed
    )
    set_alias(trained.settings, "planted", CHAMPION, version)
    return version


class Oracle(tf.Module):
    """A champion that no candidate can match: it has seen the labels of the test rows."""

    def __init__(self, due: np.ndarray, labels: np.ndarray) -> None:
        super().__init__()
        keys = tf.lookup.KeyValueTensorInitializer(due, labels.astype(np.float32))
        self.table = tf.lookup.StaticHashTable(keys, 0.5)

    def __call__(self, due: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probability": 0.05 + 0.9 * self.table.lookup(due)}


class Stranger(tf.Module):
    """A champion of other days, which took an input that the spec does not have any more."""

    def __call__(self, altitude: tf.Tensor, heat: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probability": tf.sigmoid(altitude + tf.cast(heat, tf.float32))}


def test_a_better_champion_that_takes_fewer_inputs_keeps_its_place(
    trained: Trained, evaluated: Evaluated, tmp_path: Path
) -> None:
    test = read_examples(trained.settings, trained.spec, trained.training_set, "test")
    oracle = Oracle(test.columns["due"], test.labels)
    version = serve_as_champion(trained, oracle, {"due": tf.TensorSpec([None], tf.int64, "due")}, tmp_path)
    rejected = evaluate(trained.settings, trained.spec, trained.training_set, trained.candidate)
    verdict = report(trained)
    assert not rejected.accepted
    assert {reason.split(":")[0] for reason in verdict.reasons} == {
        "roc_auc_loss_to_champion",
        "log_loss_excess_over_champion",
        "roc_auc_not_worse_than_champion_beyond_chance",
        "log_loss_not_worse_than_champion_beyond_chance",
    }
    assert verdict.champion is not None
    assert verdict.champion.version == version
    assert verdict.champion.measures is not None
    assert verdict.champion.measures.roc_auc == 1.0
    assert verdict.champion.measures.rows == verdict.candidate.rows


def test_a_champion_with_inputs_that_the_spec_lost_is_a_reason_not_a_crash(
    trained: Trained, evaluated: Evaluated, tmp_path: Path
) -> None:
    specs = {
        "altitude": tf.TensorSpec([None], tf.float32, "altitude"),
        "heat": tf.TensorSpec([None], tf.float64, "heat"),
    }
    serve_as_champion(trained, Stranger(), specs, tmp_path)
    rejected = evaluate(trained.settings, trained.spec, trained.training_set, trained.candidate)
    assert not rejected.accepted
    (reason,) = report(trained).reasons
    assert "input 'altitude' is not in the spec" in reason
    assert "input 'heat' is float64, the spec gives float32" in reason


def test_a_candidate_that_does_not_take_the_specs_inputs_is_a_named_error(
    trained: Trained, evaluated: Evaluated
) -> None:
    inputs = tuple(
        ModelInput(name="noise", type="string", request_field="colour") if item.name == "noise" else item
        for item in trained.spec.inputs
    )
    changed = trained.spec.model_copy(update={"inputs": inputs})
    with pytest.raises(RegistryError, match="input 'noise' is float32, the spec gives string"):
        evaluate(trained.settings, changed, trained.training_set, trained.candidate)


def test_an_unreadable_champion_rejects_the_candidate_with_the_reason(
    trained: Trained, evaluated: Evaluated
) -> None:
    client = open_registry(trained.settings)
    run = client.get_run(evaluated.run_id)
    lost = client.create_run(run.info.experiment_id).info.run_id
    version = client.create_model_version("planted", f"{run.info.artifact_uri}/nowhere", lost).version
    set_alias(trained.settings, "planted", CHAMPION, int(version))
    rejected = evaluate(trained.settings, trained.spec, trained.training_set, trained.candidate)
    assert not rejected.accepted
    (reason,) = report(trained).reasons
    assert reason.startswith(f"champion_measured: champion version {version}")
    assert "saved_model" in reason


def test_registering_twice_gives_one_version_with_its_alias_and_tags(
    trained: Trained, evaluated: Evaluated
) -> None:
    first = register(trained.settings, trained.spec, evaluated)
    assert register(trained.settings, trained.spec, evaluated) == first
    assert version_behind(trained.settings, "planted", CHALLENGER) == first.version
    tags = tags_of(trained.settings, "planted", first.version)
    assert tags["verdict"] == "accepted"
    assert tags["as_of"] == trained.training_set.as_of


def test_without_its_verdict_nothing_is_registered(trained: Trained, evaluated: Evaluated) -> None:
    folder = Path(
        open_registry(trained.settings).get_run(evaluated.run_id).info.artifact_uri.removeprefix("file://")
    )
    kept = (folder / "verdict.json").read_text()
    try:
        (folder / "verdict.json").unlink()
        with pytest.raises(RegistryError, match=r"verdict\.json"):
            register(trained.settings, trained.spec, evaluated)
        (folder / "verdict.json").write_text(kept[:40])
        with pytest.raises(RegistryError, match="to be a verdict"):
            register(trained.settings, trained.spec, evaluated)
        document = json.loads(kept)
        document["run_id"] = "another"
        (folder / "verdict.json").write_text(json.dumps(document))
        with pytest.raises(RegistryError, match="one on run another"):
            register(trained.settings, trained.spec, evaluated)
    finally:
        (folder / "verdict.json").write_text(kept)
    assert version_behind(trained.settings, "planted", CHALLENGER) is None


def test_an_unfinished_run_or_another_training_set_is_refused(trained: Trained, evaluated: Evaluated) -> None:
    client = open_registry(trained.settings)
    experiment = client.get_run(evaluated.run_id).info.experiment_id
    unfinished = client.create_run(experiment).info.run_id
    candidate = trained.candidate.model_copy(update={"run_id": unfinished})
    with pytest.raises(RegistryError, match="complete training run"):
        evaluate(trained.settings, trained.spec, trained.training_set, candidate)
    with pytest.raises(RegistryError, match="complete training run"):
        register(trained.settings, trained.spec, evaluated.model_copy(update={"run_id": unfinished}))
    other = trained.training_set.model_copy(update={"tag": "as_of_20130119"})
    with pytest.raises(RegistryError, match="as_of_20130119"):
        evaluate(trained.settings, trained.spec, other, trained.candidate)
    client.set_terminated(unfinished, "FAILED")


def test_nothing_is_left_in_scratch(trained: Trained, evaluated: Evaluated) -> None:
    shutil.rmtree(trained.settings.scratch_dir)
    register(trained.settings, trained.spec, evaluated)
    assert list(trained.settings.scratch_dir.iterdir()) == []
