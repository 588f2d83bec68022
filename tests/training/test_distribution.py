"""More workers, a killed one, or an interruption: the training is the same in the end.

The workers are real processes under `MultiWorkerMirroredStrategy`, on this machine's loopback.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from airloop.errors import EXIT_PERMANENT
from airloop.registry import open_registry
from airloop.settings import REPOSITORY, Settings
from tests.training.conftest import settings_in
from tests.training.planted import planted_rows, write_training_set
from tests.training.planted_job import EPOCHS

pytestmark = pytest.mark.timeout(900)

ROUNDING = 2e-4
"""Sums over workers are made in another order."""


@dataclass
class Job:
    """A training of the planted use case, in processes."""

    folder: Path
    workers: int

    def __post_init__(self) -> None:
        self.settings: Settings = settings_in(self.folder)
        self.training_set = write_training_set(self.settings, planted_rows())

    def start(self) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join((str(REPOSITORY / "src"), str(REPOSITORY)))
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.training.planted_job", str(self.folder)),
                    *(self.training_set.model_dump_json(), "--workers", str(self.workers)),
                    *("--result", str(self.folder / "result.json")),
                ],
                env={**os.environ, "PYTHONPATH": paths},
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", errors="replace")

    def checkpoint(self) -> Path | None:
        return next(self.settings.checkpoints_dir.glob("*/*/checkpoint.npz"), None)

    def wait_for_epoch(self, process: subprocess.Popen[bytes], epoch: int, times: int = 1) -> None:
        deadline = time.monotonic() + 240
        while self.log.count(f"airloop.training.train: epoch {epoch}:") < times:
            assert process.poll() is None, self.log[-3000:]
            assert time.monotonic() < deadline, self.log[-3000:]
            time.sleep(0.05)

    def curve(self) -> dict[str, list[float]]:
        """The losses of each epoch of the run that is complete."""
        result = json.loads((self.folder / "result.json").read_text())
        client = open_registry(self.settings)
        run = client.get_run(result["run_id"])
        assert run.info.status == "FINISHED"

        def of(name: str) -> list[float]:
            points: list[Any] = client.get_metric_history(run.info.run_id, name)
            assert [point.step for point in points] == list(range(EPOCHS))
            return [point.value for point in points]

        return {name: of(name) for name in ("train_log_loss", "val_log_loss")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = Job(tmp_path_factory.mktemp("alone"), 1)
    assert job.start().wait(600) == 0, job.log[-3000:]
    return job


def test_two_workers_learn_as_one_does(alone: Job, tmp_path: Path) -> None:
    pair = Job(tmp_path, 2)
    assert pair.start().wait(600) == 0, pair.log[-3000:]
    assert pair.log.count("AllReduceStrategy, 2 replicas") == 2
    curve = pair.curve()
    assert curve["val_log_loss"][-1] < curve["val_log_loss"][0] - 0.05
    for name, losses in alone.curve().items():
        assert curve[name] == pytest.approx(losses, abs=ROUNDING)
    assert pair.checkpoint() is None


@pytest.mark.faults
def test_an_interruption_writes_a_checkpoint_within_its_notice_and_loses_nothing(
    alone: Job, tmp_path: Path
) -> None:
    job = Job(tmp_path, 1)
    interrupt(job, epoch=3)
    assert job.start().wait(600) == 0, job.log[-3000:]
    for name, losses in alone.curve().items():
        assert job.curve()[name] == losses
    assert job.checkpoint() is None


@pytest.mark.faults
def test_neither_an_interruption_nor_a_worker_that_is_killed_costs_two_workers_a_step(
    alone: Job, tmp_path: Path
) -> None:
    pair = Job(tmp_path, 2)
    interrupt(pair, epoch=3)
    process = pair.start()
    pair.wait_for_epoch(process, 8)
    assert pair.log.count("going on in epoch") == 2
    assert pair.checkpoint() is not None
    first, second = psutil.Process(process.pid).children()
    random.choice([first, second]).kill()
    assert process.wait(600) == 0, pair.log[-3000:]
    assert "a worker ended with status -9: all are started again" in pair.log
    assert pair.log.count("going on in epoch") == 4
    for name, losses in alone.curve().items():
        assert pair.curve()[name] == pytest.approx(losses, abs=ROUNDING)
    assert pair.checkpoint() is None
    assert list(pair.settings.scratch_dir.iterdir()) == []
    assert not psutil.pid_exists(first.pid)
    assert not psutil.pid_exists(second.pid)


def interrupt(job: Job, epoch: int) -> None:
    """Start the job, and take its machine away in `epoch`: it leaves a checkpoint, in time."""
    process = job.start()
    job.wait_for_epoch(process, epoch)
    written = job.checkpoint()
    before = written.stat().st_mtime_ns if written else 0
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    status = process.wait(60)
    assert time.monotonic() - began < 20
    assert status not in (0, EXIT_PERMANENT), (
        "an interruption is to be tried again, so it is no permanent failure"
    )
    assert "PreemptedError" in job.log
    left = job.checkpoint()
    assert left is not None
    assert left.stat().st_mtime_ns > before


@pytest.mark.faults
def test_a_permanent_error_of_all_workers_is_reported_once_and_not_tried_again(tmp_path: Path) -> None:
    pair = Job(tmp_path, 2)
    pair.training_set = pair.training_set.model_copy(update={"train_rows": 1})
    assert pair.start().wait(120) == EXIT_PERMANENT, pair.log[-3000:]
    document = json.loads((tmp_path / "result.json").read_text())
    assert "1 train rows" in document["error"]["expected"]
    assert "started again" not in pair.log
