"""What the label is cut from is learned beside it: it makes the label's model better, and is not served."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from airloop.registry import SAVED_MODEL, download_artifacts, open_registry
from airloop.training.examples import read_examples
from airloop.training.measures.binary import measure
from airloop.training.served_model import ServedModel
from airloop.training.train import train
from airloop.use_cases.spec import UseCase
from tests.training.conftest import COMMIT, Trained, settings_in
from tests.training.planted import planted_rows, planted_use_case, write_training_set


def test_learning_the_outcome_too_makes_a_better_model_of_the_label(tmp_path: Path) -> None:
    losses = {}
    for name, spec in {"both": planted_use_case(), "label": _without_outcome(planted_use_case())}.items():
        settings = settings_in(tmp_path / name)
        candidate = train(settings, spec, write_training_set(settings, planted_rows()), COMMIT)
        run = open_registry(settings).get_run(candidate.run_id)
        losses[name] = run.data.metrics["val_log_loss"]
    assert losses["both"] < losses["label"]


def test_what_is_served_is_the_label_alone(trained: Trained, tmp_path: Path) -> None:
    path = download_artifacts(trained.settings, trained.candidate.run_id, SAVED_MODEL, tmp_path)
    test = read_examples(trained.settings, trained.spec, trained.training_set, "test")
    found = ServedModel(path).predict(test.columns)
    assert found.shape == (len(test),)
    measured = measure(test.labels, found)
    assert measured.roc_auc is not None
    assert measured.roc_auc > 0.7
    assert abs(float(found.mean()) - float(np.mean(test.labels))) < 0.05


def _without_outcome(spec: UseCase) -> UseCase:
    return spec.model_copy(update={"label": spec.label.model_copy(update={"outcome": None})})
