"""Candidates made from the champion: one that is as good, and others that are bad in one way each.

Belongs here: wrapping the champion's SavedModel, and registering the result as training does. Does not belong
here: rolling them out (`benchmarks.rollout`).

Each records the answers that it gives itself, as training would, so that it passes what a candidate with that
fault would pass. What fails fails on a share of requests that recorded ones are chosen not to be among.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf

from airloop import registry
from airloop.settings import Settings
from airloop.signed_models import download_verified, sign_run
from airloop.training.served_model import input_signature
from airloop.use_cases.spec import UseCase

SIGNATURE: Final = "serving_default"
SLOW_SECONDS: Final = 0.04
FAILING_SHARE: Final = 0.02
NAN_SHARE: Final = 0.05
SHIFT: Final = 1.0
"""In log-odds."""
NOISE: Final = 0.6
"""Standard deviation in log-odds."""

Inputs = Mapping[str, tf.Tensor]
Change = Callable[[tf.Tensor, Inputs], tf.Tensor]


def changes(spec: UseCase) -> dict[str, Change]:
    """What each candidate makes of the champion's probability, by its name."""
    words = [item.name for item in spec.inputs if item.type == "string"]
    moment = next(item.name for item in spec.inputs if item.type == "instant")

    def uniform(inputs: Inputs) -> tf.Tensor:
        """Between 0 and 1 for each row, the same for equal rows."""
        text = tf.strings.join([*(inputs[name] for name in words), tf.strings.as_string(inputs[moment])], "|")
        return tf.cast(tf.strings.to_hash_bucket_fast(text, 10_000), tf.float32) / 10_000

    def log_odds(p: tf.Tensor) -> tf.Tensor:
        p = tf.clip_by_value(p, 1e-6, 1 - 1e-6)
        return tf.math.log(p) - tf.math.log1p(-p)

    def errors(p: tf.Tensor, inputs: Inputs) -> tf.Tensor:
        fine = tf.reduce_all(uniform(inputs) >= FAILING_SHARE)
        with tf.control_dependencies([tf.debugging.Assert(fine, ["a row that this candidate fails on"])]):
            return tf.identity(p)

    rounds = _rounds(SLOW_SECONDS)

    def slow(p: tf.Tensor, inputs: Inputs) -> tf.Tensor:
        square = tf.fill([128, 128], 1e-3) + tf.reduce_mean(p) * 1e-9
        _, worked = tf.while_loop(
            lambda i, x: i < rounds,
            lambda i, x: (i + 1, tf.math.tanh(tf.matmul(x, x))),
            [tf.constant(0), square],
            parallel_iterations=1,
        )
        return p + 0.0 * tf.reduce_mean(worked)

    return {
        "good": lambda p, inputs: tf.math.sigmoid(log_odds(p) + 0.02 * (uniform(inputs) - 0.5)),
        "slow": slow,
        "errors_2_percent": errors,
        "nan": lambda p, inputs: tf.where(uniform(inputs) < NAN_SHARE, math.nan, p),
        "shifted": lambda p, inputs: tf.math.sigmoid(log_odds(p) + SHIFT),
        "worse": lambda p, inputs: tf.math.sigmoid(
            log_odds(p) + NOISE * math.sqrt(12) * (uniform(inputs) - 0.5)
        ),
        "wrong_signature": lambda p, inputs: p,
        "damaged_file": lambda p, inputs: p,
    }


class Wrapped(tf.Module):
    """The champion with a change to what it answers."""

    def __init__(self, champion: Any, change: Change) -> None:
        super().__init__()
        self.champion = champion
        self._serve = champion.signatures[SIGNATURE]
        self._change = change

    def answer(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """`probability`, [rows]."""
        return {"probability": self._change(self._serve(**inputs)["probability"], inputs)}


def register(settings: Settings, spec: UseCase, champion: int, name: str, scratch: Path) -> int:
    """Make the candidate `name` of the champion's version, and register and sign it; its version."""
    source = scratch / "champion"
    if not source.exists():
        download_verified(settings, spec.model_name, champion, source)
    folder = scratch / name
    shutil.rmtree(folder, ignore_errors=True)
    loaded = tf.saved_model.load(str(source / registry.SAVED_MODEL))
    wrapped = Wrapped(loaded, changes(spec)[name])
    signature = dict(input_signature(spec))
    wrapped.call = tf.function(wrapped.answer)
    served = wrapped.call.get_concrete_function(**signature)
    if name == "wrong_signature":
        served = _renamed(wrapped, signature)
    tf.saved_model.save(wrapped, str(folder), signatures={SIGNATURE: served})
    extra = source / registry.SAVED_MODEL / "assets.extra"
    # A version that fails on a request of its warm-up does not even load; this one is to get further.
    if extra.exists() and name != "errors_2_percent":
        shutil.copytree(extra, folder / "assets.extra")
    recorded = _recorded(spec, wrapped, json.loads((source / registry.RECORDED_REQUESTS).read_text("utf-8")))
    return _registered(settings, spec, name, folder, recorded, source, damaged=name == "damaged_file")


def _renamed(wrapped: Wrapped, signature: dict[str, tf.TensorSpec]) -> Any:
    """A serving function that calls its first input something else."""
    first, *others = signature
    renamed = {
        "renamed_input": tf.TensorSpec([None], signature[first].dtype, name="renamed_input"),
        **{name: signature[name] for name in others},
    }

    def answer(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return wrapped.answer(**{first: inputs["renamed_input"], **{name: inputs[name] for name in others}})

    wrapped.renamed = tf.function(answer)
    return wrapped.renamed.get_concrete_function(**renamed)


def _recorded(spec: UseCase, wrapped: Wrapped, before: dict[str, Any]) -> dict[str, Any]:
    """The champion's recorded requests with this candidate's answers; rows that it fails on are left out."""
    columns = before["inputs"]
    inputs, answers = {name: [] for name in columns}, []
    signature = input_signature(spec)
    for row in range(len(before["probability"])):
        values = {
            name: tf.constant(
                [math.nan if columns[name][row] is None else columns[name][row]], signature[name].dtype
            )
            for name in columns
        }
        try:
            answer = float(wrapped.call(**values)["probability"][0])
        except tf.errors.InvalidArgumentError:
            continue
        if math.isfinite(answer):
            answers.append(answer)
            for name in columns:
                inputs[name].append(columns[name][row])
    return {"inputs": inputs, "probability": answers}


def _registered(
    settings: Settings,
    spec: UseCase,
    name: str,
    folder: Path,
    recorded: dict[str, Any],
    source: Path,
    *,
    damaged: bool,
) -> int:
    client = registry.open_registry(settings)
    experiment = client.get_experiment_by_name("bench_rollout")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("bench_rollout")
    run = client.create_run(experiment_id, run_name=name)
    run_id: str = run.info.run_id
    client.log_artifacts(run_id, str(folder), registry.SAVED_MODEL)
    client.log_text(run_id, json.dumps(recorded), registry.RECORDED_REQUESTS)
    background = source / registry.EXPLANATION_BACKGROUND
    if background.exists():
        client.log_artifact(run_id, str(background))
    version = registry.register_version(
        settings,
        name=spec.model_name,
        run_id=run_id,
        source=f"{run.info.artifact_uri}/{registry.SAVED_MODEL}",
        tags={"bench": name, registry.SIGNATURE_DIGEST: sign_run(settings, spec.model_name, run_id)},
    )
    if damaged:
        variables = next((folder / "variables").glob("variables.data*"))
        content = bytearray(variables.read_bytes())
        content[len(content) // 2] ^= 1
        variables.write_bytes(content)
        client.log_artifact(run_id, str(variables), f"{registry.SAVED_MODEL}/variables")
    return version


def _rounds(seconds: float) -> int:
    """How many products of two 128 by 128 matrices take so long here."""
    square = tf.constant(np.full((128, 128), 1e-3, np.float32))
    work = tf.function(
        lambda x: tf.while_loop(lambda i, y: i < 500, lambda i, y: (i + 1, tf.matmul(y, y)), [0, x])[1]
    )
    work(square)
    begun = time.perf_counter()
    work(square)
    return max(int(500 * seconds / (time.perf_counter() - begun)), 1)
