"""TabM, an ensemble of small networks for tables: the model builder `airloop.training.tabm:build` of specs.

Belongs here: the architecture, from raw inputs to logits. Does not belong here: how it is fitted, calibrated
or exported, or anything of one use case.

Categories are embedded, with unknown words sharing the embedding that rare ones trained. A number becomes a
piecewise-linear code over the train split's quantiles and an indicator of its absence, and those an embedding
of its own (Gorishniy et al., "On embeddings for numerical features in tabular deep learning", NeurIPS 2022):
a small network can then bend where the data do. Times of day are periodic and embedded by the hour; the day
of the year is left out on purpose: a window shorter than a year could only extrapolate it.

Several members share nearly all weights: each sees its own part of the features (the random subspaces of Ho,
"The random subspace method for constructing decision forests", 1998), scales the inputs of the first layer in
its own way and has its own last layers, and each is fitted for itself (TabM-mini of Gorishniy et al., "TabM:
advancing tabular deep learning with parameter-efficient ensembling", ICLR 2025). Together they err less than
any of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import keras
import numpy as np
from keras import layers, ops

from airloop.training.dropout import PlacedDropout
from airloop.training.examples import SECONDS_PER_DAY
from airloop.training.heads import head_of
from airloop.training.network import Network, require_parameters
from airloop.training.statistics import SECONDS_PER_HOUR, Number, Statistics
from airloop.use_cases.spec import ModelInput, UseCase

EPOCH_WEEKDAY: Final = 3
"""1970-01-01 was a Thursday, and Monday is 0."""
DAY_HARMONICS: Final = 4
ONE_HOT_WORDS: Final = 1024
"""Above this, one-hot rows cost more than they spare."""
PARAMETERS: Final = frozenset(
    {
        *("width", "hidden_layers", "members", "dropout"),
        *("embedding_size", "number_embedding_size", "category_dropout", "input_dropout"),
        "member_feature_share",
    }
)
_NO_NUMBER: Final = Number(low=0.0, high=1.0, mean=0.0, deviation=1.0, edges=(0.0, 1.0))
_DTYPES: Final = {"string": "string", "double": "float32", "instant": "int64", "local_time": "int64"}


def build(use_case: UseCase, statistics: Statistics, parameters: Mapping[str, int | float]) -> Network:
    """The untrained network of `use_case`.

    `parameters` must have those in `PARAMETERS`; others (the optimiser's) are ignored here. Raises
    `SpecError` naming those that are missing.
    """
    require_parameters(parameters, PARAMETERS, "airloop.training.tabm")
    encoder = _encoder(use_case, statistics)
    sizes = [len(statistics.vocabularies[item.name]) + 1 for item in _of(use_case, "string")]
    for _ in _of(use_case, "local_time"):
        sizes += [24, 7]
    head = _head(
        sizes or [1],
        list(statistics.numbers.values()) or [_NO_NUMBER],
        encoder.output["times"].shape[1],
        statistics,
        parameters,
    )
    return Network(encoder=encoder, head=head, label=head_of(use_case.label.target, statistics))


def _of(use_case: UseCase, type_: str) -> list[ModelInput]:
    return [item for item in use_case.inputs if item.type == type_]


def _encoder(use_case: UseCase, statistics: Statistics) -> keras.Model:
    """Raw inputs, each [batch], to compact tensors: categories, numbers (standardised), missing, times."""
    inputs = {
        item.name: keras.Input(shape=(), name=item.name, dtype=_DTYPES[item.type]) for item in use_case.inputs
    }
    categories = [
        layers.StringLookup(vocabulary=list(statistics.vocabularies[item.name]), num_oov_indices=1)(
            inputs[item.name]
        )
        for item in _of(use_case, "string")
    ]
    times = []
    for item in _of(use_case, "local_time"):
        seconds = inputs[item.name]
        second_of_day = ops.mod(seconds, SECONDS_PER_DAY)
        day = ops.floor_divide(seconds, SECONDS_PER_DAY)
        categories.append(ops.floor_divide(second_of_day, SECONDS_PER_HOUR))
        categories.append(ops.mod(day + EPOCH_WEEKDAY, 7))
        angle = ops.cast(second_of_day, "float32") * (2 * np.pi / SECONDS_PER_DAY)
        for harmonic in range(1, DAY_HARMONICS + 1):
            times += [ops.sin(angle * harmonic), ops.cos(angle * harmonic)]
    quantities = {item.name: inputs[item.name] for item in _of(use_case, "double")}
    for span in use_case.elapsed:
        since, until = inputs[span.since], inputs[span.until]
        hours = ops.cast(until - since, "float32") / SECONDS_PER_HOUR
        known = ops.logical_and(ops.not_equal(since, 0), ops.not_equal(until, 0))
        quantities[span.name] = ops.where(known, hours, float("nan"))
    # A use case without numbers has one that is always missing, one without categories one of one word.
    nothing = ops.zeros_like(next(iter(inputs.values())), dtype="float32")
    values = ops.stack([quantities[name] for name in statistics.numbers] or [nothing / nothing], axis=1)
    missing = ops.logical_not(ops.isfinite(values))
    table = list(statistics.numbers.values()) or [_NO_NUMBER]
    low, high, mean, deviation = (
        np.array([getattr(number, field) for number in table], np.float32)
        for field in ("low", "high", "mean", "deviation")
    )
    standardised = (ops.minimum(ops.maximum(values, low), high) - mean) / deviation
    encoded = {
        "categories": ops.stack([ops.cast(ids, "int32") for ids in categories or [nothing]], axis=1),
        "numbers": ops.where(missing, 0.0, standardised),
        "missing": ops.cast(missing, "float32"),
        "times": ops.stack(times, axis=1) if times else ops.zeros_like(standardised[:, :1]),
    }
    return keras.Model(inputs, encoded, name="encoder")


def _head(
    category_sizes: list[int],
    numbers: list[Number],
    time_features: int,
    statistics: Statistics,
    parameters: Mapping[str, int | float],
) -> keras.Model:
    """What the encoder yields to logits, [batch, members, targets]: the part with weights."""
    width, dropout = int(parameters["width"]), float(parameters["dropout"])
    categories = keras.Input((len(category_sizes),), name="categories", dtype="int32")
    values = keras.Input((len(numbers),), name="numbers", dtype="float32")
    missing = keras.Input((len(numbers),), name="missing", dtype="float32")
    times = keras.Input((time_features,), name="times", dtype="float32")

    parts = [
        WordEmbedding(
            size, min(int(parameters["embedding_size"]), (size + 1) // 2), embeddings_initializer="he_normal"
        )(categories[:, column])
        for column, size in enumerate(category_sizes)
    ]
    codes = NumberEmbedding(int(parameters["number_embedding_size"]))(
        _piecewise_linear(values, missing, numbers)
    )
    seeds = itertools.count()
    numeric = PlacedDropout(float(parameters["input_dropout"]), seed=next(seeds))(
        layers.Concatenate()([codes, times])
    )
    parts = [PlacedDropout(float(parameters["category_dropout"]), seed=next(seeds))(part) for part in parts]
    sizes = [*(part.shape[-1] for part in parts), *(int(parameters["number_embedding_size"]),) * len(numbers)]
    seen = features_seen(
        int(parameters["members"]), float(parameters["member_feature_share"]), [*sizes, time_features]
    )
    x = Members(seen)(layers.Concatenate()([*parts, numeric]))
    for _ in range(int(parameters["hidden_layers"])):
        x = layers.Dense(width, activation="relu", kernel_initializer="he_normal")(x)
        x = PlacedDropout(dropout, seed=next(seeds))(x)
    logit = MemberLogits(statistics.every_prior, dtype="float32", name="logit")(x)
    inputs = {"categories": categories, "numbers": values, "missing": missing, "times": times}
    return keras.Model(inputs, logit, name="head")


def features_seen(members: int, least_share: float, sizes: Sequence[int]) -> np.ndarray:
    """[members, columns]: 0 for the columns of features that a member does not see, else 1 over its share.

    The first member sees `least_share` of the features, though at least one, the last sees all, and those
    between evenly more. Every feature is seen by as many members as any other, give or take two, or which
    ones few see would be luck. `sizes` are the features' numbers of columns. The same for the same arguments.
    """
    random = np.random.default_rng(members)
    shares = np.linspace(least_share, 1.0, members) if members > 1 else np.ones(1)
    rows, seen_by = [], np.zeros(len(sizes))
    for share in shares:
        count = max(1, round(share * len(sizes)))
        least_seen_first = np.lexsort([random.random(len(sizes)), seen_by])
        seen = np.isin(np.arange(len(sizes)), least_seen_first[:count])
        seen_by += seen
        rows.append(np.repeat(seen * (len(sizes) / count), sizes))
    return np.stack(rows).astype(np.float32)


class WordEmbedding(layers.Embedding):  # type: ignore[misc]  # Keras publishes no types
    """[batch] of numbers to their embeddings, [batch, size].

    Those of few words are looked up by a product with one-hot rows. The gradient is a product then: that of
    a plain look-up is a scattered sum, which XLA computes row after row when the result must be repeatable
    (on one H100, 10,000 in place of 670,000 examples a second).
    """

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Embeddings."""
        if self.input_dim > ONE_HOT_WORDS:
            return super().call(inputs)
        words = ops.one_hot(inputs, self.input_dim, dtype=self.compute_dtype)
        return ops.matmul(words, ops.cast(self.embeddings, self.compute_dtype))


class Members(layers.Layer):  # type: ignore[misc]
    """[batch, features] to [batch, members, features]: each member's own signs and scales of what it sees."""

    def __init__(self, seen: np.ndarray) -> None:
        super().__init__()
        self.seen, self.members = seen, len(seen)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Random signs, so that members begin apart; one member begins with the features as they are."""

        def signs(shape: tuple[int, ...], dtype: str) -> keras.KerasTensor:
            return ops.sign(keras.random.uniform(shape, -1.0, 1.0, dtype=dtype))

        self.scales = self.add_weight(
            shape=(self.members, input_shape[-1]), initializer=signs if self.members > 1 else "ones"
        )

    def call(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """Scaled features."""
        return ops.expand_dims(features, 1) * ops.cast(self.scales * self.seen, features.dtype)


class MemberLogits(layers.Layer):  # type: ignore[misc]
    """[batch, members, width] to [batch, members, targets]: each member's own last layer for each target,
    which begins at the target's prior.

    In float32, whatever the products before are computed in: three digits would make ties of logits.
    """

    def __init__(self, priors: Sequence[float], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.priors = tuple(priors)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """No slope at first, and the priors as offsets."""
        _, members, width = input_shape
        targets = len(self.priors)

        def priors(shape: tuple[int, ...], dtype: str) -> keras.KerasTensor:
            return ops.broadcast_to(ops.convert_to_tensor(self.priors, dtype), shape)

        self.kernel = self.add_weight(shape=(members, width, targets), initializer="zeros")
        self.bias = self.add_weight(shape=(members, targets), initializer=priors)

    def call(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """Logits."""
        return ops.einsum("bmw,mwt->bmt", features, self.kernel) + self.bias


class NumberEmbedding(layers.Layer):  # type: ignore[misc]
    """[batch, numbers, codes] to [batch, numbers * size]: a linear map of each number's own."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Small, and zero offsets."""
        _, numbers, codes = input_shape
        spread = keras.initializers.RandomNormal(stddev=float(1 / np.sqrt(codes or 1)))
        self.kernel = self.add_weight(shape=(numbers, codes, self.size), initializer=spread)
        self.bias = self.add_weight(shape=(numbers, self.size), initializer="zeros")

    def call(self, codes: keras.KerasTensor) -> keras.KerasTensor:
        """Embeddings, side by side."""
        found = ops.einsum("bnc,ncs->bns", codes, ops.cast(self.kernel, codes.dtype))
        found = found + ops.cast(self.bias, codes.dtype)
        return ops.reshape(found, (-1, found.shape[1] * self.size))


def _piecewise_linear(
    values: keras.KerasTensor, missing: keras.KerasTensor, numbers: list[Number]
) -> keras.KerasTensor:
    """[batch, numbers, bins + 1]: how far each number is in each quantile bin, 0 below to 1 above, and
    whether it is missing. All bins are 0 then; what a number has fewer of than another always is.
    """
    bins = max(len(number.edges) - 1 for number in numbers)
    lows = np.full((len(numbers), bins), np.inf, np.float32)
    widths = np.ones((len(numbers), bins), np.float32)
    for row, number in enumerate(numbers):
        edges = (np.array(number.edges) - number.mean) / number.deviation
        lows[row, : len(edges) - 1] = edges[:-1]
        widths[row, : len(edges) - 1] = np.diff(edges)
    absent = ops.expand_dims(missing, axis=-1)
    position = ops.clip((ops.expand_dims(values, axis=-1) - lows) / widths, 0.0, 1.0)
    return ops.concatenate([position * (1.0 - absent), absent], axis=-1)
