"""Training: it learns, repeats itself, and leaves no half runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from airloop.errors import HistoryError, SpecError
from airloop.references import Candidate
from airloop.registry import SAVED_MODEL, download_artifacts, open_registry
from airloop.training.evaluate import evaluate
from airloop.training.examples import read_examples
from airloop.training.served_model import ServedModel
from airloop.training.train import train
from airloop.use_cases.spec import UseCase
from tests.training.conftest import COMMIT, Trained, settings_in
from tests.training.planted import planted_rows, planted_use_case, write_training_set


def runs_of(trained_settings: Any, name: str = "planted") -> list[Any]:
    client = open_registry(trained_settings)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def with_parameters(spec: UseCase, **parameters: float) -> UseCase:
    changed = spec.training.model_copy(update={"parameters": {**spec.training.parameters, **parameters}})
    return spec.model_copy(update={"training": changed})


def test_a_planted_signal_is_learnt(trained: Trained) -> None:
    figures = trained.evaluated.figures
    assert figures["test_roc_auc"] is not None
    assert figures["baseline_roc_auc"] is not None
    assert figures["test_roc_auc"] > 0.70 > figures["baseline_roc_auc"] + 0.05


def test_the_run_leads_back_to_its_data_code_and_parameters(trained: Trained) -> None:
    client = open_registry(trained.settings)
    run = client.get_run(trained.candidate.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["airloop.training_set"] == trained.training_set.tag
    assert run.data.tags["airloop.snapshot_id"] == str(trained.training_set.snapshot_id)
    assert run.data.tags["airloop.source.clean.colours"] == "11"
    assert run.data.tags["airloop.code_commit"] == COMMIT
    assert run.data.params["seed"] == "2013"
    assert run.data.params["width"] == "32"
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    own = {"saved_model", "recorded_requests.json", "training_set.json", "training.lock"}
    # Other tests may have evaluated and registered the run.
    evaluated = {"verdict.json", "verdict.html", "model_card.json", "model_card.html"}
    evaluated |= {"explanation_background.json", "saved_model.sig", "monitoring_profile.json"}
    assert own <= artifacts <= own | evaluated
    epochs = client.get_metric_history(run.info.run_id, "val_log_loss")
    assert [metric.step for metric in epochs] == list(range(len(epochs)))


def test_work_in_progress_is_tidied_away(trained: Trained) -> None:
    assert list(trained.settings.scratch_dir.iterdir()) == []


def test_a_rerun_returns_the_run_that_is_there(trained: Trained) -> None:
    before = len(runs_of(trained.settings))
    assert train(trained.settings, trained.spec, trained.training_set, COMMIT) == trained.candidate
    assert len(runs_of(trained.settings)) == before


def test_two_trainings_give_the_same_model_and_a_dead_run_is_marked_failed(
    trained: Trained, tmp_path: Path
) -> None:
    settings = settings_in(tmp_path)
    training_set = write_training_set(settings, trained.rows)
    client = open_registry(settings)
    artifacts = (settings.state_dir / "mlflow").as_uri()
    experiment = client.create_experiment("planted", artifact_location=artifacts)
    dead = client.create_run(experiment, tags={"airloop.training_set": training_set.tag}).info.run_id
    other = client.create_run(experiment, tags={"airloop.training_set": "as_of_another_day"}).info.run_id

    candidate = train(settings, trained.spec, training_set, "unknown")

    assert client.get_run(dead).info.status == "FAILED"
    assert client.get_run(other).info.status == "RUNNING"
    first = open_registry(trained.settings)
    for metric in ("val_log_loss", "train_log_loss", "calibration_slope"):
        theirs = client.get_metric_history(candidate.run_id, metric)
        ours = first.get_metric_history(trained.candidate.run_id, metric)
        assert [point.value for point in theirs] == [point.value for point in ours]


def test_a_training_set_that_is_not_its_reference_fails_the_run(tmp_path: Path) -> None:
    settings, spec = settings_in(tmp_path), planted_use_case()
    reference = write_training_set(settings, planted_rows())
    wrong = reference.model_copy(update={"train_rows": reference.train_rows + 1})
    with pytest.raises(HistoryError, match="6001 train rows"):
        train(settings, spec, wrong, COMMIT)
    assert [run.info.status for run in runs_of(settings)] == ["FAILED"]
    assert list(settings.scratch_dir.iterdir()) == []


@pytest.mark.parametrize("absent", ["width", "learning_rate", "quantile_bins", "outcome_weight"])
def test_a_parameter_that_the_spec_lacks_is_named(tmp_path: Path, absent: str) -> None:
    settings, spec = settings_in(tmp_path), planted_use_case()
    kept = {name: value for name, value in spec.training.parameters.items() if name != absent}
    policy = spec.training.model_copy(update={"parameters": kept})
    reference = write_training_set(settings, planted_rows())
    with pytest.raises(SpecError, match=f"no {absent}"):
        train(settings, spec.model_copy(update={"training": policy}), reference, COMMIT)


def test_the_recorded_training_set_is_the_reference(trained: Trained, tmp_path: Path) -> None:
    client = open_registry(trained.settings)
    path = client.download_artifacts(trained.candidate.run_id, "training_set.json", str(tmp_path))
    assert json.loads(Path(path).read_text()) == trained.training_set.model_dump(mode="json")


def test_a_training_that_diverges_says_so_and_is_not_gone_on_with(tmp_path: Path) -> None:
    settings, spec = settings_in(tmp_path), with_parameters(planted_use_case(), learning_rate=1e30)
    reference = write_training_set(settings, planted_rows())
    for _ in range(2):
        with pytest.raises(SpecError, match=r"finite validation loss .*learning_rate"):
            train(settings, spec, reference, COMMIT)
        assert not list(settings.checkpoints_dir.rglob("*.npz"))
    assert [run.info.status for run in runs_of(settings)] == ["FAILED", "FAILED"]


def test_half_precision_in_training_is_single_precision_in_serving(trained: Trained, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    reference = write_training_set(settings, trained.rows)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        candidate = train(settings, trained.spec, reference, COMMIT)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert isinstance(candidate, Candidate)
    model = ServedModel(download_artifacts(settings, candidate.run_id, SAVED_MODEL, tmp_path / "model"))
    found = model.predict(read_examples(settings, trained.spec, reference, "test").columns)
    assert found.dtype == np.float32
    assert len(np.unique(found)) > 0.9 * len(found)
    evaluated = evaluate(settings, trained.spec, reference, candidate)
    assert evaluated.figures["test_roc_auc"] == pytest.approx(
        trained.evaluated.figures["test_roc_auc"], abs=0.02
    )
