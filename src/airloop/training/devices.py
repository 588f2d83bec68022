"""What a training runs on: one device, several, several hosts, or a TPU; chosen from the environment.

Belongs here: the choice of `tf.distribute` strategy, this worker's place among the workers, and precision.
Does not belong here: who starts the workers (the deployment does), or what they compute.

The environment decides: a TPU that is named in `TPU_NAME`, workers that are named in `TF_CONFIG` (SageMaker,
Kubernetes, Batch and local processes all set it), else the GPUs that there are, else the processor.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import keras
import numpy as np
import tensorflow as tf

from airloop.errors import SpecError

log = logging.getLogger(__name__)

TF_CONFIG: Final = "TF_CONFIG"
TPU_NAME: Final = "TPU_NAME"


@dataclass(frozen=True)
class Devices:
    """Where the steps of a training run."""

    strategy: tf.distribute.Strategy
    worker: int = 0
    workers: int = 1
    compiled: bool = False
    """Whether XLA is to compile steps where that helps. For a TPU it always does, and is not told to."""

    @property
    def leads(self) -> bool:
        """Whether this worker alone writes what all have computed."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """How many replicas share a batch, over all workers."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def own_replicas(self) -> range:
        """The numbers of this worker's replicas."""
        here = self.replicas // self.workers
        return range(self.worker * here, (self.worker + 1) * here)

    def share_of(self, batch: int) -> int:
        """Rows of a global `batch` for each replica; raises `SpecError` when they are no whole number."""
        if batch % self.replicas:
            raise SpecError(
                expected=f"training.parameters.batch_size to be a multiple of the {self.replicas} replicas",
                found=f"{batch}",
                next_step="change the batch size, or the number of workers or devices",
            )
        return batch // self.replicas

    def from_leader(self, value: np.ndarray) -> np.ndarray:
        """The first worker's `value` at every worker; all must ask at once, for values of one shape."""
        if self.workers == 1:
            return value
        wide = value.astype(np.int64 if value.dtype.kind in "biu" else np.float64)
        # Each of the first worker's replicas sends, and one counts.
        summed = self._sum(wide if self.leads else np.zeros_like(wide)) / len(self.own_replicas)
        return summed.astype(value.dtype)

    def any_worker(self, value: bool) -> bool:
        """Whether `value` is true at any worker; all must ask at once."""
        return value if self.workers == 1 else bool(self._sum(np.array(value, np.int64)) > 0)

    def _sum(self, value: np.ndarray) -> np.ndarray:
        def add(part: tf.Tensor) -> tf.Tensor:
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, part)

        summed = self.strategy.run(add, args=(tf.constant(value),))
        found: np.ndarray = self.strategy.experimental_local_results(summed)[0].numpy()
        return found


def open_devices(environment: Mapping[str, str]) -> Devices:
    """The devices that `environment` (usually `os.environ`) and this machine offer; call it once, first.

    Raises `SpecError` for a `TF_CONFIG` that names no place for this worker, or a TPU that does not answer.
    """
    if environment.get(TPU_NAME):
        return _tpu(environment[TPU_NAME])
    gpus = tf.config.list_physical_devices("GPU")
    if gpus and all(map(_has_bfloat16, gpus)):
        # Products in half precision; weights, sums and losses stay in single precision.
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    workers, worker = _place(environment.get(TF_CONFIG, ""))
    if workers > 1:
        strategy: tf.distribute.Strategy = tf.distribute.MultiWorkerMirroredStrategy()
    elif len(gpus) > 1:
        strategy = tf.distribute.MirroredStrategy()
    else:
        strategy = tf.distribute.get_strategy()
    devices = Devices(strategy, worker, workers, compiled=len(gpus) == 1 and workers == 1)
    log.info(
        "worker %d of %d: %s, %d replicas, %d GPUs here, %s%s",
        *(worker + 1, workers, type(strategy).__name__, devices.replicas, len(gpus)),
        *(
            keras.mixed_precision.dtype_policy().name,
            ", compiled by XLA where it helps" if devices.compiled else "",
        ),
    )
    return devices


def _place(tf_config: str) -> tuple[int, int]:
    """How many workers `TF_CONFIG` names, and which of them this is; the chief, if there is one, is first."""
    if not tf_config:
        return 1, 0
    try:
        config = json.loads(tf_config)
        cluster, task = config["cluster"], config["task"]
        members = list(_members(cluster))
        return len(members), members.index((task["type"], int(task["index"])))
    except (ValueError, KeyError, TypeError) as error:
        raise SpecError(
            expected=f"{TF_CONFIG} to name the workers, and this one among them",
            found=f"{type(error).__name__}: {error} in {tf_config[:200]}",
            next_step="correct what starts the workers; unset it for a training in one process",
        ) from None


def _members(cluster: Mapping[str, list[str]]) -> Iterator[tuple[str, int]]:
    for kind in ("chief", "worker"):
        for number in range(len(cluster.get(kind, ()))):
            yield kind, number


def _has_bfloat16(gpu: tf.config.PhysicalDevice) -> bool:
    """Whether the GPU computes in bfloat16, as NVIDIA's do from compute capability 8 on."""
    capability = tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
    return bool(capability >= (8, 0))


def _tpu(name: str) -> Devices:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, OSError, RuntimeError, tf.errors.OpError) as error:
        raise SpecError(
            expected=f"the TPU {name!r} that {TPU_NAME} names",
            found=f"{type(error).__name__}: {error}".splitlines()[0],
            next_step=f"run on a TPU host (there the name is local), or unset {TPU_NAME}",
        ) from None
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    return Devices(tf.distribute.TPUStrategy(resolver))
