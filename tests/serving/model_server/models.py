"""The SavedModels that these tests serve.

Belongs here: small real TensorFlow models, and the placing of their version folders. Does not belong here:
anything about serving them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import tensorflow as tf


class Regressor(tf.Module):
    """y = sum(x * [1, 2, 3, 4]) + bias: one input, one output. The bias tells versions apart."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.weights = tf.Variable([[1.0], [2.0], [3.0], [4.0]])
        self.bias = tf.Variable(bias)

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def score(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x @ self.weights + self.bias}


class Everything(tf.Module):
    """Every type of input, several inputs and outputs, and a few signatures."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="carrier"),
            tf.TensorSpec([None, 2], tf.float32, name="position"),
            tf.TensorSpec([None], tf.int64, name="hour"),
            tf.TensorSpec([None], tf.bool, name="delayed"),
        ]
    )
    def mixed(
        self, carrier: tf.Tensor, position: tf.Tensor, hour: tf.Tensor, delayed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        return {
            "greeting": tf.strings.join(["hello ", carrier]),
            "raw_bytes": carrier,
            "total": tf.reduce_sum(position, axis=1),
            "next_hour": hour + 1,
            "on_time": tf.logical_not(delayed),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def length(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"length": tf.strings.length(text)}

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="value")])
    def logarithm(self, value: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"log": tf.math.log(value)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="index")])
    def lookup(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"value": tf.gather(tf.constant([10, 20, 30]), index)}

    @tf.function(
        input_signature=[tf.TensorSpec([], tf.float64, name="a"), tf.TensorSpec([], tf.float64, name="b")]
    )
    def scalars(self, a: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"sum": a + b}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="wait")])
    def slow(self, wait: tf.Tensor) -> dict[str, tf.Tensor]:
        """Takes a second or two, as a chain of steps that cannot be folded together."""
        state = tf.while_loop(
            lambda step, _: step < 150_000,
            lambda step, value: (step + 1, tf.math.sin(value)),
            (tf.constant(0), wait),
        )
        return {"done": state[1] * 0.0 + wait}


class Examples(tf.Module):
    """Signatures on `tf.train.Example`s with the feature `x`: a classification, a regression, a wrong one."""

    def _x(self, examples: tf.Tensor) -> tf.Tensor:
        feature = tf.io.FixedLenFeature([], tf.float32)
        return tf.io.parse_example(examples, {"x": feature})["x"]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        x = self._x(inputs)
        classes = tf.tile([["late", "on time"]], [tf.size(x), 1])
        return {"classes": classes, "scores": tf.stack([x, 1.0 - x], axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": self._x(inputs) * 10.0}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def square(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": tf.tile(self._x(inputs)[:, None], [1, 2])}


def save_examples(path: Path) -> None:
    """Save an Examples as a SavedModel in the folder `path`."""
    model = Examples()
    signatures = {"serving_default": model.classify, "regress": model.regress, "square": model.square}
    tf.saved_model.save(model, str(path), signatures=signatures)


def save_regressor(path: Path, bias: float) -> None:
    """Save a Regressor as a SavedModel in the folder `path`."""
    model = Regressor(bias)
    tf.saved_model.save(model, str(path), signatures={"serving_default": model.score})


def save_everything(path: Path) -> None:
    """Save an Everything as a SavedModel in the folder `path`."""
    model = Everything()
    signatures = {name: getattr(model, name) for name in ("length", "logarithm", "lookup", "scalars", "slow")}
    tf.saved_model.save(model, str(path), signatures={"serving_default": model.mixed, **signatures})


def publish(source: Path, base_path: Path, version: int) -> None:
    """Place a copy of `source` under `base_path` in one step, as a rollout does."""
    base_path.mkdir(parents=True, exist_ok=True)
    staged = base_path / f".staged-{version}"
    shutil.copytree(source, staged)
    staged.rename(base_path / str(version))


def publish_corrupt(base_path: Path, version: int) -> None:
    """Place a version whose SavedModel is damaged."""
    folder = base_path / str(version)
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"\xff\xfe this is not a SavedModel")
