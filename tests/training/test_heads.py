"""Networks for numbers, quantiles and classes, on small real data: from rows to the exported model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets
from sklearn.model_selection import train_test_split

from airloop.training import fitting, statistics, tabm
from airloop.training.calibration import IDENTITY
from airloop.training.checkpoints import Checkpoints
from airloop.training.devices import open_devices
from airloop.training.encoding import encode
from airloop.training.examples import LABEL_DTYPES
from airloop.training.measures import measure
from airloop.training.served_model import ServedModel, export
from airloop.training.staging import Staged
from airloop.use_cases.spec import Label, ModelInput, UseCase
from airloop.use_cases.target import Multiclass, Quantiles, Regression, Target
from airloop.verdict import Measures
from tests.training.planted import planted_use_case

WINE = datasets.load_wine()
PATIENTS = datasets.load_diabetes()
"""The progression of a disease over a year, of 442 patients."""


def spec_of(target: Target, inputs: int) -> UseCase:
    spec = planted_use_case()
    label = Label(name="label", description="", matures_after=spec.label.matures_after, target=target)
    return spec.model_copy(
        update={
            "inputs": tuple(ModelInput(name=f"x{at}", type="double") for at in range(inputs)),
            "elapsed": (),
            "label": label,
        }
    )


def staged(spec: UseCase, data: np.ndarray, labels: np.ndarray) -> Staged:
    return Staged(
        columns={item.name: data[:, at].astype(np.float32) for at, item in enumerate(spec.inputs)},
        words={},
        labels=labels.astype(LABEL_DTYPES[spec.label.target.kind]),
        outcomes=None,
    )


def learnt(target: Target, data: np.ndarray, labels: np.ndarray, folder: Path) -> tuple[Measures, np.ndarray]:
    """The measures of held-out rows, and the exported model's answers to them."""
    spec = spec_of(target, data.shape[1])
    parameters = {
        **spec.training.parameters,
        "max_epochs": 60,
        "patience_epochs": 8,
        "batch_size": 32,
        "width": 32,
        "dropout": 0.0,
        "weight_average": 0.9,
        "members": 4,
    }
    fitting.make_deterministic(spec.training.seed, 2)
    first, last, first_labels, last_labels = train_test_split(data, labels, random_state=1, test_size=0.3)
    train, rest = staged(spec, first, first_labels), staged(spec, last, last_labels)
    network = tabm.build(spec, statistics.compute(spec, train, bins=8), parameters)
    encoded, held_out = (
        encode(network, rows, folder / name) for name, rows in (("train", train), ("rest", rest))
    )
    fitting.fit(
        *(network, target.loss, encoded, held_out, parameters, spec.training.seed, lambda *_: None),
        devices=open_devices({}),
        checkpoints=Checkpoints(folder / "checkpoints"),
    )
    answers = network.label.answers(fitting.member_outputs(network, held_out), IDENTITY)
    export(network.served(IDENTITY), spec, folder / "model")
    served = ServedModel(folder / "model")
    assert served.differences(spec) == ()
    asked = served.predict(rest.at(slice(None)).columns)
    np.testing.assert_allclose(asked, answers, rtol=1e-4, atol=1e-4)
    return measure(target, rest.labels, answers), asked


def test_classes_of_wine(tmp_path: Path) -> None:
    target = Multiclass(classes=tuple(str(name) for name in WINE.target_names))
    found, answers = learnt(target, WINE.data, WINE.target, tmp_path)
    assert answers.shape[1] == 3
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)
    assert found.accuracy is not None
    assert found.accuracy > 0.9


@pytest.mark.parametrize("estimates", ["mean", "median"])
def test_a_number(tmp_path: Path, estimates: str) -> None:
    target = Regression(unit="points", estimates=estimates)
    found, answers = learnt(target, PATIENTS.data, PATIENTS.target, tmp_path)
    assert answers.ndim == 1
    assert found.r_squared is not None
    assert found.r_squared > 0.3


def test_quantiles_of_a_number_cover_what_they_say_and_do_not_cross(tmp_path: Path) -> None:
    target = Quantiles(unit="points", levels=(0.1, 0.5, 0.9))
    found, answers = learnt(target, PATIENTS.data, PATIENTS.target, tmp_path)
    assert answers.shape[1] == 3
    assert (np.diff(answers, axis=1) >= 0).all()
    assert found.coverage_error is not None
    assert found.coverage_error < 0.1
    usual = np.tile(np.quantile(PATIENTS.target, target.levels), (len(answers), 1))
    of_all = measure(target, PATIENTS.target[: len(answers)], usual).pinball_loss
    assert found.pinball_loss is not None
    assert of_all is not None
    assert found.pinball_loss < 0.85 * of_all
