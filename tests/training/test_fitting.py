"""A step compiled by XLA, as on a GPU, learns what the plain one learns; so does a look-up by a product."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from keras import layers

from airloop.training import fitting, statistics, tabm
from airloop.training.checkpoints import Checkpoints
from airloop.training.devices import Devices, open_devices
from airloop.training.encoding import Encoded, encode
from airloop.training.network import Network
from airloop.use_cases.target import LOG_LOSS
from benchmarks.training import synthetic_rows
from tests.training.planted import planted_use_case

ROWS = 640
SPEC = planted_use_case()
STAGED = synthetic_rows(SPEC, ROWS, seed=3)
PARAMETERS = {**SPEC.training.parameters, "batch_size": 128, "max_epochs": 2, "dropout": 0.0}


def network_and_rows(folder: Path) -> tuple[Network, Encoded]:
    fitting.make_deterministic(SPEC.training.seed, 2)
    facts = statistics.compute(SPEC, STAGED, bins=8)
    network = tabm.build(SPEC, facts, PARAMETERS)
    return network, encode(network, STAGED, folder, SPEC.label.thresholds)


def losses(folder: Path, devices: Devices) -> list[tuple[float, float]]:
    network, rows = network_and_rows(folder / "rows")
    found: list[tuple[float, float]] = []
    fitting.fit(
        *(network, LOG_LOSS, rows, rows, PARAMETERS, SPEC.training.seed),
        lambda _, epoch: found.append((epoch["train_log_loss"], epoch["val_log_loss"])),
        devices=devices,
        checkpoints=Checkpoints(folder / "checkpoints"),
    )
    return found


def test_a_compiled_step_learns_what_the_plain_one_learns(tmp_path: Path) -> None:
    devices = open_devices({})
    plain = losses(tmp_path / "plain", replace(devices, compiled=False))
    compiled = losses(tmp_path / "compiled", replace(devices, compiled=True))
    assert len(plain) == 2
    assert plain[1][0] < plain[0][0]
    np.testing.assert_allclose(compiled, plain, atol=2e-4)


@pytest.mark.parametrize(("batch", "expected"), [(128, True), (8192, False)])
def test_only_small_steps_are_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, expected: bool
) -> None:
    network, rows = network_and_rows(tmp_path / "rows")
    monkeypatch.setattr(Encoded, "__len__", lambda _: 100_000)
    made = fitting.Fitting(
        *(network, rows, {**PARAMETERS, "batch_size": batch}, 1),
        *(replace(open_devices({}), compiled=True), Checkpoints(tmp_path / "checkpoints")),
    )
    assert made.compiled is expected


@pytest.mark.parametrize("words", [5, tabm.ONE_HOT_WORDS, tabm.ONE_HOT_WORDS + 1])
def test_words_are_looked_up_as_keras_looks_them_up(words: int) -> None:
    ours, kerases = tabm.WordEmbedding(words, 3), layers.Embedding(words, 3)
    numbers = np.array([0, words - 1, 2, 2], np.int32)
    ours.build(())
    kerases.build(())
    kerases.set_weights(ours.get_weights())
    np.testing.assert_array_equal(ours(numbers), kerases(numbers))
