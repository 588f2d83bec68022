"""Masks of a row's place in the batch: the same on one replica and on many, others in each step and layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from airloop.training.dropout import PlacedDropout, masks_at

RATE = 0.3
SHAPE = (64, 3, 7)
"""21 units a row: no multiple of what the generator gives at once."""


def dropped(
    layer: PlacedDropout, *, seed: int = 5, step: int = 0, first_row: int = 0, rows: int = SHAPE[0]
) -> np.ndarray:
    with masks_at(seed, step, first_row):
        found: np.ndarray = layer(tf.ones((rows, *SHAPE[1:])), training=True).numpy()
    return found


def test_replicas_together_have_the_masks_of_one() -> None:
    layer = PlacedDropout(RATE, seed=1)
    whole = dropped(layer)
    for replicas in (2, 4, 16):
        share = SHAPE[0] // replicas
        parts = [dropped(layer, first_row=number * share, rows=share) for number in range(replicas)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    # And not the same ones on each.
    assert not np.array_equal(whole[:32], whole[32:])


def test_the_share_that_is_dropped_is_the_rate_and_the_mean_stays() -> None:
    found = np.stack([dropped(PlacedDropout(RATE, seed=1), step=step) for step in range(100)])
    assert set(np.unique(found)) == {np.float32(0), np.float32(1 / (1 - RATE))}
    # 134,400 draws: the standard deviation of the share is 0.00125.
    assert np.mean(found == 0) == pytest.approx(RATE, abs=0.006)
    by_unit = np.mean(found == 0, axis=(0, 1))
    assert np.ptp(by_unit) < 0.05


@pytest.mark.parametrize("other", [{"step": 1}, {"seed": 6}, {"layer": 2}])
def test_steps_trainings_and_layers_have_masks_of_their_own(other: dict[str, int]) -> None:
    first = dropped(PlacedDropout(RATE, seed=1))
    second = dropped(
        PlacedDropout(RATE, seed=other.get("layer", 1)), seed=other.get("seed", 5), step=other.get("step", 0)
    )
    agree = np.mean((first == 0) == (second == 0))
    assert agree == pytest.approx(RATE**2 + (1 - RATE) ** 2, abs=0.06)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_compiled_step_has_the_same_masks(compiled: bool) -> None:
    layer = PlacedDropout(RATE, seed=1)

    def step(number: tf.Tensor, first_row: tf.Tensor) -> tf.Tensor:
        with masks_at(5, number, first_row):
            return layer(tf.ones((32, *SHAPE[1:])), training=True)

    traced: Callable[..., tf.Tensor] = tf.function(step, jit_compile=compiled)
    for number in range(3):
        found = traced(tf.constant(number), tf.constant(32)).numpy()
        np.testing.assert_array_equal(found, dropped(layer, step=number)[32:])


def test_elsewhere_it_is_keras_own() -> None:
    layer = PlacedDropout(RATE, seed=1)
    ones = tf.ones(SHAPE)
    np.testing.assert_array_equal(layer(ones, training=False), ones)
    assert not np.array_equal(layer(ones, training=True), layer(ones, training=True))
    with masks_at(5, 0, 0):
        np.testing.assert_array_equal(layer(ones, training=False), ones)
        np.testing.assert_array_equal(PlacedDropout(0.0, seed=1)(ones, training=True), ones)
