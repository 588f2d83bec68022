"""Benchmark: examples a second of training, by how the rows get to the step.

    make bench-training        (or: python -m benchmarks.training [--rows 100000] [--repeats 15]
                                    [--precision float32|mixed_bfloat16] [--xla on|off])

Rows are synthetic, of the shape of flight_delay's: its inputs, its network, its batch size; what is learnt
does not matter here. They are written to an Iceberg table of their own and pinned, as a training set is. What
a training does with them once is timed once: *staging* (record batches from the snapshot into mapped files)
and *encoding* (what the network's encoder makes of them). After one unmeasured epoch of each, short epochs in
turns:

- *pipeline*: the batches of an epoch are made and thrown away, nothing is trained.
- *memory*: our step, on batches that lie ready in memory: nothing is shuffled or gathered.
- *through the pipeline*: our step as the training job runs it, from mapped files.
- *Keras fit*: `fit` of the same network with the same optimiser on the batches of *memory*, with as many
  steps between two looks at Python as ours.

Ends with one line of JSON: `examples_per_second` by way of feeding, medians; `pipeline_cost`, the share of
speed that training through the pipeline loses against training from memory (0.10 is the most); `fit_ratio`,
our speed from memory over `fit`'s (1 is the least). Both are medians over pairs of neighbouring turns, their
quartiles beside them: a shared machine is half as fast for seconds at times, for all alike.
`pipeline_cost_from_the_snapshot` is that of a whole training of the spec's epochs: staging and encoding count
as lost, too. Exits with 1 when any is missed. Precision and XLA are what a training on this machine gets,
unless the options say otherwise: they show what each is worth on an accelerator. (Keras leaves XLA out of
`fit` when results must be repeatable, as here.)

Belongs here: the measure. Does not belong here: anything that training needs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

from airloop.dotted import load
from airloop.lakehouse.catalog import open_catalog
from airloop.references import TrainingSet
from airloop.settings import Settings, load_settings
from airloop.training import fitting, statistics
from airloop.training.checkpoints import Checkpoints
from airloop.training.devices import Devices, open_devices
from airloop.training.encoding import Encoded, encode
from airloop.training.examples import PREDICTION_TIME
from airloop.training.feeding import training_batches
from airloop.training.network import Network
from airloop.training.staging import Staged, stage
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase

MOST_COST: Final = 0.10
LEAST_RATIO: Final = 1.0
WORDS: Final = 100


def synthetic_rows(spec: UseCase, rows: int, seed: int) -> Staged:
    """Random rows with the inputs of `spec`."""
    random = np.random.default_rng(seed)
    hours = random.integers(1, 24, rows)
    columns: dict[str, np.ndarray] = {}
    for item in spec.inputs:
        if item.type == "string":
            columns[item.name] = random.integers(0, WORDS, rows, dtype=np.int32)
        elif item.type == "double":
            columns[item.name] = random.normal(size=rows).astype(np.float32)
            columns[item.name][random.random(rows) < 0.1] = np.nan
        else:
            columns[item.name] = 1_360_000_000 + np.arange(rows) * 60 + hours * 3600
    words = np.array([f"word {n:03}" for n in range(WORDS)], object)
    return Staged(
        columns=columns,
        words={item.name: words for item in spec.inputs if item.type == "string"},
        labels=(random.random(rows) < 0.25).astype(np.int8),
        outcomes=random.normal(5, 40, rows).astype(np.float32),
    )


def training_set_of(settings: Settings, spec: UseCase, rows: Staged) -> TrainingSet:
    """`rows` as the train split of a pinned snapshot."""
    outcome = spec.label.outcome
    columns: dict[str, pa.Array] = {spec.label.name: pa.array(rows.labels, pa.int32())}
    if outcome is not None:
        columns[outcome.name] = pa.array(rows.outcomes, pa.float64())
    for item in spec.inputs:
        values = rows.columns[item.name]
        if item.name in rows.words:
            columns[item.name] = pa.array(rows.words[item.name][values], pa.string())
        elif item.type == "double":
            columns[item.name] = pa.array(values, pa.float64(), from_pandas=True)
        else:
            columns[item.name] = pa.array(values, pa.int64())
    minutes = 1_360_000_000 + np.arange(len(rows), dtype=np.int64) * 60
    columns[PREDICTION_TIME] = pa.array(minutes * 1_000_000, pa.timestamp("us", tz="UTC"))
    columns["split"] = pa.array(["train"] * len(rows))
    arrow = pa.table(columns)
    catalog = open_catalog(settings)
    catalog.create_namespace("training")
    table = catalog.create_table(f"training.{spec.name}", arrow.schema)
    table.append(arrow)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return TrainingSet(
        table=f"training.{spec.name}",
        tag="synthetic",
        snapshot_id=snapshot.snapshot_id,
        rows=len(rows),
        train_rows=len(rows),
        validation_rows=0,
        test_rows=0,
        as_of="2013-05-01T00:00:00+00:00",
        sources=(),
    )


def in_memory(encoded: Encoded, batch: int) -> tf.data.Dataset:
    """Whole batches that lie ready."""
    steps = len(encoded) // batch
    tensors, targets = encoded.at(slice(0, steps * batch))
    ready = {name: values.reshape(steps, batch, *values.shape[1:]).copy() for name, values in tensors.items()}
    return tf.data.Dataset.from_tensor_slices((ready, targets.reshape(steps, batch, -1))).prefetch(4)


def cross_entropy(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """What our step minimises, as `fit` wants it; the targets' weights do not change the work."""
    truth = tf.broadcast_to(targets[:, None, :], tf.shape(logits))
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(truth, logits), axis=[1, 2])


def measure(
    settings: Settings, spec: UseCase, devices: Devices, batch: int, rows: int, repeats: int, folder: Path
) -> dict[str, Any]:
    """All sides in turns."""
    policy = spec.training
    parameters = {**policy.parameters, "max_epochs": 1000, "batch_size": batch}
    training_set = training_set_of(settings, spec, synthetic_rows(spec, rows, policy.seed))
    began = time.monotonic()
    staged = stage(settings, spec, training_set, "train", folder / "staged")
    staging = time.monotonic() - began
    facts = statistics.compute(spec, staged, bins=int(parameters["quantile_bins"]))
    steps = rows // batch

    def network() -> Network:
        built: Network = load(policy.model_builder)(spec, facts, parameters)
        return built

    encoder = network()
    began = time.monotonic()
    encoded = encode(encoder, staged, folder / "encoded", spec.label.thresholds)
    encoding = time.monotonic() - began
    ready = in_memory(encoded, batch)

    def ours(name: str) -> fitting.Fitting:
        return fitting.Fitting(
            network(), encoded, parameters, policy.seed, devices, Checkpoints(folder / name)
        )

    through, from_memory, never = ours("through"), ours("memory"), threading.Event()
    compiled = network().head
    compiled.compile(
        optimizer=fitting.optimiser(parameters, steps * 1000, steps, clip=True),
        loss=cross_entropy,
        steps_per_execution=fitting.STEPS_AT_ONCE,
        jit_compile=devices.compiled,
    )

    def pipeline() -> None:
        for _ in training_batches(encoded, batch, policy.seed, 0, devices=devices):
            pass

    def run(one: fitting.Fitting, epoch: Callable[[], float]) -> Callable[[], None]:
        def turn() -> None:
            epoch()
            one.progress.step = 0

        return turn

    sides: dict[str, Callable[[], Any]] = {
        "pipeline": pipeline,
        "memory": run(from_memory, lambda: from_memory.run_steps(ready, never)),
        "through_pipeline": run(through, lambda: through.run_epoch(never)),
        "keras_fit": lambda: compiled.fit(ready, epochs=1, shuffle=False, verbose=0),
    }
    took: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, side in sides.items():
            began = time.monotonic()
            side()
            seconds = time.monotonic() - began
            print(f"{name:<18}{steps * batch / seconds:12.0f} examples a second", flush=True)
            if turn:
                took[name].append(seconds)
    speed = {name: [steps * batch / seconds for seconds in turns] for name, turns in took.items()}
    cost = [1 - a / b for a, b in zip(speed["through_pipeline"], speed["memory"], strict=True)]
    ratio = [a / b for a, b in zip(speed["memory"], speed["keras_fit"], strict=True)]
    epochs = int(policy.parameters["max_epochs"])
    through_seconds, memory_seconds = (epochs * median(took[name]) for name in ("through_pipeline", "memory"))
    whole = staging + encoding + through_seconds
    return {
        "examples_per_second": {
            "staging": round(rows / staging),
            "encoding": round(rows / encoding),
            **{name: round(median(found)) for name, found in speed.items()},
        },
        "pipeline_cost": round(median(cost), 3),
        "pipeline_cost_quartiles": _quartiles(cost),
        "pipeline_cost_from_the_snapshot": round(1 - memory_seconds / whole, 3),
        "epochs": epochs,
        "fit_ratio": round(median(ratio), 3),
        "fit_ratio_quartiles": _quartiles(ratio),
        "turns": repeats,
        "rows": rows,
        "batch_size": batch,
        "devices": [device.device_type for device in tf.config.list_physical_devices()],
        "precision": keras.mixed_precision.dtype_policy().name,
        "xla": from_memory.compiled,
    }


def _quartiles(values: Sequence[float]) -> list[float]:
    return [round(float(value), 3) for value in np.quantile(values, [0.25, 0.75])]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Examples a second, by how the rows get to the step.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=15, help="measured epochs of each side")
    parser.add_argument("--batch", type=int, help="rows of a step; the spec's if not given")
    parser.add_argument("--precision", choices=["float32", "mixed_bfloat16"])
    parser.add_argument("--xla", choices=["on", "off"])
    arguments = parser.parse_args(argv)
    settings, spec = load_settings(), use_case("flight_delay")
    fitting.make_deterministic(spec.training.seed, settings.training_threads)
    devices = open_devices({})
    if arguments.precision:
        keras.mixed_precision.set_global_policy(arguments.precision)
    if arguments.xla:
        devices = replace(devices, compiled=arguments.xla == "on")
    batch = arguments.batch or int(spec.training.parameters["batch_size"])
    settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-training-", dir=settings.scratch_dir) as folder:
        own = settings.model_copy(update={"state_dir": Path(folder) / "state"})
        figures = measure(own, spec, devices, batch, arguments.rows, arguments.repeats, Path(folder))
    print(json.dumps(figures))
    cost = max(figures["pipeline_cost"], figures["pipeline_cost_from_the_snapshot"])
    met = cost <= MOST_COST and figures["fit_ratio"] >= LEAST_RATIO
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
