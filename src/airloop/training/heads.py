"""What a network's numbers mean for each kind of label: its loss in training, and its answer when served.

Belongs here: those formulas, in TensorFlow. Does not belong here: architectures (`airloop.training.tabm`), or
figures (`airloop.training.measures`).

A head is asked about `found`, [batch, members, outputs]: a network's members are judged one by one in
training, and asked together afterwards.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from airloop.row_losses import row_losses
from airloop.training.calibration import IDENTITY, Calibration, calibrate
from airloop.training.statistics import Statistics
from airloop.use_cases.target import Binary, Multiclass, Quantiles, Regression, Target

Losses = tuple[tf.Tensor, tf.Tensor]
"""A replica's part of the batch's mean loss of the label, and of what is minimised."""


class Head(Protocol):
    """One kind of label."""

    outputs: int
    """Numbers of the network that are about the label."""

    def losses(self, targets: tf.Tensor, found: tf.Tensor, batch: int, outcome_weight: float) -> Losses:
        """Of rows of a batch of `batch`; `targets` are [rows, 1 + thresholds], the label first."""
        ...

    def pooled(self, found: Any) -> Any:
        """What members say together: [batch, outputs]."""
        ...

    def answer(self, pooled: Any, calibration: Calibration) -> Any:
        """What is served of that, as a Keras tensor: [batch], or [batch, outputs] where there are several."""
        ...

    def answers(self, members: np.ndarray, calibration: Calibration) -> np.ndarray:
        """The same of rows in memory, `members` being [rows, members, outputs]."""
        ...

    def mean_loss(self, members: np.ndarray, labels: np.ndarray) -> float:
        """The mean loss of rows whose answers are not calibrated."""
        ...

    def calibrate(self, members: np.ndarray, labels: np.ndarray) -> Calibration:
        """How the answers to validation rows are to be made surer or less sure."""
        ...


def head_of(target: Target, statistics: Statistics) -> Head:
    """The head for `target`, scaled as the train split is."""
    if isinstance(target, Binary):
        return BinaryClassHead(statistics.priors[0])
    if isinstance(target, Multiclass):
        return MultiClassHead(target)
    if isinstance(target, Quantiles):
        return QuantileHead(target, statistics.label_centre, statistics.label_scale)
    return RegressionHead(target, statistics.label_centre, statistics.label_scale)


class BinaryClassHead:
    """A logit; beside it, one for each threshold of the outcome (`Label.outcome`)."""

    outputs = 1

    def __init__(self, prior_logit: float) -> None:
        self._prior_logit = prior_logit

    def losses(self, targets: tf.Tensor, found: tf.Tensor, batch: int, outcome_weight: float) -> Losses:
        """The label's mean cross-entropy, and that plus `outcome_weight` times the thresholds' mean one."""
        # Each member for itself: trained on their mean, they would become one.
        truth = tf.broadcast_to(targets[:, None, :], tf.shape(found))
        losses = tf.nn.sigmoid_cross_entropy_with_logits(truth, found)
        by_target = tf.reduce_sum(losses, axis=[0, 1]) / (batch * found.shape[1])
        loss = total = by_target[0]
        if outcome_weight:
            total = loss + outcome_weight * tf.reduce_mean(by_target[1:])
        return loss, total

    def pooled(self, found: Any) -> Any:
        """The logit of the members' mean probability."""
        logits = found[:, :, 0]
        if logits.shape[-1] == 1:
            return logits
        # By way of logarithms: a mean of probabilities would lose those close to 0 and 1.
        positive = keras.ops.logsumexp(keras.ops.log_sigmoid(logits), axis=-1, keepdims=True)
        negative = keras.ops.logsumexp(keras.ops.log_sigmoid(-logits), axis=-1, keepdims=True)
        return positive - negative

    def answer(self, pooled: Any, calibration: Calibration) -> Any:
        """The probability."""
        probability = keras.ops.sigmoid(pooled * calibration.slope + calibration.offset)
        return keras.ops.reshape(probability, (-1,))

    def answers(self, members: np.ndarray, calibration: Calibration) -> np.ndarray:
        """In float64: single digits decide between near models."""
        return calibration.apply(self._logits(members))

    def mean_loss(self, members: np.ndarray, labels: np.ndarray) -> float:
        """From the logits, whose probabilities may be all but 0 or 1."""
        z, y = self._logits(members).astype(np.float64), labels.astype(np.float64)
        return float(np.mean(np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))))

    def calibrate(self, members: np.ndarray, labels: np.ndarray) -> Calibration:
        """See `airloop.training.calibration`."""
        return calibrate(self._logits(members), members[:, :, 0], labels, self._prior_logit)

    def _logits(self, members: np.ndarray) -> np.ndarray:
        together: np.ndarray = keras.ops.convert_to_numpy(self.pooled(keras.ops.convert_to_tensor(members)))
        return together[:, 0]


class _Uncalibrated(ABC):
    """What heads have in common whose answers are taken as they are: the level of a few weeks is their
    weather, and no help in the next ones."""

    target: Target

    @abstractmethod
    def pooled(self, found: Any) -> Any:
        """See `Head`."""

    @abstractmethod
    def answer(self, pooled: Any, calibration: Calibration) -> Any:
        """See `Head`."""

    def answers(self, members: np.ndarray, calibration: Calibration) -> np.ndarray:
        """See `Head`."""
        pooled = self.pooled(keras.ops.convert_to_tensor(members))
        found: np.ndarray = keras.ops.convert_to_numpy(self.answer(pooled, calibration))
        return found

    def mean_loss(self, members: np.ndarray, labels: np.ndarray) -> float:
        """See `Head`."""
        return float(row_losses(self.target, labels, self.answers(members, IDENTITY)).mean())

    def calibrate(self, members: np.ndarray, labels: np.ndarray) -> Calibration:
        """See `Head`."""
        return IDENTITY


class MultiClassHead(_Uncalibrated):
    """A logit for each class."""

    def __init__(self, target: Multiclass) -> None:
        self.target, self.outputs = target, len(target.classes)

    def losses(self, targets: tf.Tensor, found: tf.Tensor, batch: int, outcome_weight: float) -> Losses:
        """The mean cross-entropy."""
        labels = tf.broadcast_to(tf.cast(targets[:, :1], tf.int32), tf.shape(found)[:2])
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, found)
        loss = tf.reduce_sum(losses) / (batch * found.shape[1])
        return loss, loss

    def pooled(self, found: Any) -> Any:
        """The logarithms of the members' mean probabilities."""
        summed = keras.ops.logsumexp(keras.ops.log_softmax(found, axis=-1), axis=1)
        return keras.ops.log_softmax(summed, axis=-1)

    def answer(self, pooled: Any, calibration: Calibration) -> Any:
        """The probabilities."""
        return keras.ops.softmax(pooled, axis=-1)


class RegressionHead(_Uncalibrated):
    """A number, in standard deviations of the train split's labels from their mean."""

    outputs = 1

    def __init__(self, target: Regression, centre: float, scale: float) -> None:
        self.target, self._centre, self._scale = target, centre, scale
        self._absolute = target.estimates == "median"

    def losses(self, targets: tf.Tensor, found: tf.Tensor, batch: int, outcome_weight: float) -> Losses:
        """The mean squared or absolute error; in the label's unit to be told, scaled to be minimised."""
        gaps = found[:, :, 0] - (targets[:, :1] - self._centre) / self._scale
        losses = tf.abs(gaps) if self._absolute else tf.square(gaps)
        scaled = tf.reduce_sum(losses) / (batch * found.shape[1])
        return scaled * (self._scale if self._absolute else self._scale**2), scaled

    def pooled(self, found: Any) -> Any:
        """The members' mean."""
        return keras.ops.mean(found, axis=1)

    def answer(self, pooled: Any, calibration: Calibration) -> Any:
        """The number, in its unit."""
        return keras.ops.reshape(pooled * self._scale + self._centre, (-1,))


class QuantileHead(_Uncalibrated):
    """A number for each level, in standard deviations of the train split's labels from their mean."""

    def __init__(self, target: Quantiles, centre: float, scale: float) -> None:
        self.target, self.outputs = target, len(target.levels)
        self._levels = np.array(target.levels, np.float32)
        self._centre, self._scale = centre, scale

    def losses(self, targets: tf.Tensor, found: tf.Tensor, batch: int, outcome_weight: float) -> Losses:
        """The mean quantile loss over the levels (Koenker and Bassett, Regression Quantiles, 1978)."""
        above = ((targets[:, :1] - self._centre) / self._scale)[:, :, None] - found
        losses = tf.maximum(self._levels * above, (self._levels - 1) * above)
        scaled = tf.reduce_sum(losses) / (batch * found.shape[1] * self.outputs)
        return scaled * self._scale, scaled

    def pooled(self, found: Any) -> Any:
        """The members' mean of each level."""
        return keras.ops.mean(found, axis=1)

    def answer(self, pooled: Any, calibration: Calibration) -> Any:
        """The quantiles in their unit, sorted: fitted one by one they can cross (Chernozhukov, Fernández-Val
        and Galichon, Quantile and Probability Curves Without Crossing, 2010)."""
        return keras.ops.sort(pooled * self._scale + self._centre, axis=-1)
