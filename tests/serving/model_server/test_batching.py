"""Requests that come together are run as one, and each gets its own answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest

from serving.model_server.batching import Arrays, BatchScheduler, Queue
from serving.model_server.errors import Code, ServingError
from serving.model_server.metrics import Metrics
from serving.model_server.option_files import Batching
from tests.serving.model_server.clients import Client, config, eventually
from tests.serving.model_server.models import publish


@dataclass
class Doubling:
    """Doubles `x`; waits at `gate` first, and refuses a batch with a negative number in it."""

    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[list[float]] = field(default_factory=list)

    def __call__(self, inputs: Arrays) -> Arrays:
        self.gate.wait(10)
        self.batches.append(inputs["x"].tolist())
        if (inputs["x"] < 0).any():
            raise ServingError(Code.OUT_OF_RANGE, "negative")
        return {"y": inputs["x"] * 2}


@pytest.fixture
def schedule() -> Iterator[Callable[..., BatchScheduler]]:
    started: list[BatchScheduler] = []

    def start(**parameters: object) -> BatchScheduler:
        started.append(BatchScheduler(Batching(threads=1, **parameters), Metrics()))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for scheduler in started:
        scheduler.stop()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


def ask(scheduler: BatchScheduler, queue: Queue, *values: float) -> list[float]:
    return scheduler.run(queue, {"x": np.array(values)}, len(values))["y"].tolist()


def hold(scheduler: BatchScheduler, queue: Queue, pool: ThreadPoolExecutor) -> None:
    """Occupy the one thread with a batch of its own, until the gate opens."""
    pool.submit(ask, scheduler, queue, 0.0)
    assert eventually(lambda: queue.rows == 0 and not queue.tasks)


def submit(scheduler, queue, pool, *tasks):  # type: ignore[no-untyped-def]
    """`tasks` one after the other, so that they wait in this order."""
    futures = []
    rows = queue.rows
    for values in tasks:
        futures.append(pool.submit(ask, scheduler, queue, *values))
        rows += len(values)
        assert eventually(lambda expected=rows: queue.rows == expected)
    return futures


def test_what_waits_is_run_together_and_taken_apart(schedule, pool) -> None:  # type: ignore[no-untyped-def]
    run = Doubling()
    scheduler, queue = schedule(), Queue(run)
    hold(scheduler, queue, pool)
    futures = submit(scheduler, queue, pool, [1.0, 2.0], [3.0], [4.0, 5.0, 6.0])
    run.gate.set()
    assert [future.result(10) for future in futures] == [[2.0, 4.0], [6.0], [8.0, 10.0, 12.0]]
    assert run.batches == [[0.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]


def test_a_batch_is_no_larger_than_it_may_be(schedule, pool) -> None:  # type: ignore[no-untyped-def]
    run = Doubling()
    scheduler, queue = schedule(max_batch_size=3), Queue(run)
    hold(scheduler, queue, pool)
    futures = submit(scheduler, queue, pool, [1.0, 2.0], [3.0, 4.0], [5.0])
    run.gate.set()
    assert [future.result(10) for future in futures] == [[2.0, 4.0], [6.0, 8.0], [10.0]]
    assert run.batches == [[0.0], [1.0, 2.0], [3.0, 4.0, 5.0]]


def test_a_batch_is_filled_up_to_an_allowed_size(schedule, pool) -> None:  # type: ignore[no-untyped-def]
    run = Doubling()
    scheduler, queue = schedule(max_batch_size=4, allowed_batch_sizes=(1, 4)), Queue(run)
    hold(scheduler, queue, pool)
    futures = submit(scheduler, queue, pool, [1.0, 2.0], [3.0])
    run.gate.set()
    assert [future.result(10) for future in futures] == [[2.0, 4.0], [6.0]]
    assert run.batches == [[0.0], [1.0, 2.0, 3.0, 1.0]]


def test_a_refused_request_does_not_fail_its_neighbours(schedule, pool) -> None:  # type: ignore[no-untyped-def]
    run = Doubling()
    scheduler, queue = schedule(), Queue(run)
    hold(scheduler, queue, pool)
    good, bad, other = submit(scheduler, queue, pool, [1.0], [-1.0], [2.0])
    run.gate.set()
    assert good.result(10) == [2.0]
    assert other.result(10) == [4.0]
    with pytest.raises(ServingError, match="negative"):
        bad.result(10)


def test_a_first_request_waits_for_others_when_told_to(schedule, pool) -> None:  # type: ignore[no-untyped-def]
    run = Doubling()
    run.gate.set()
    scheduler, queue = schedule(max_batch_size=2, batch_timeout_seconds=30.0), Queue(run)
    first = pool.submit(ask, scheduler, queue, 1.0)
    assert eventually(lambda: queue.rows == 1)
    assert not run.batches
    assert pool.submit(ask, scheduler, queue, 2.0).result(10) == [4.0]
    assert first.result(10) == [2.0]
    assert run.batches == [[1.0, 2.0]]


def test_too_many_rows_are_refused(schedule, pool) -> None:  # type: ignore[no-untyped-def]
    run = Doubling()
    scheduler, queue = schedule(max_batch_size=2, max_enqueued_batches=1), Queue(run)
    with pytest.raises(ServingError, match="Task size 3 is larger than maximum input batch size 2"):
        ask(scheduler, queue, 1.0, 2.0, 3.0)
    hold(scheduler, queue, pool)
    waiting = submit(scheduler, queue, pool, [1.0, 2.0])
    with pytest.raises(ServingError, match="is full") as error:
        ask(scheduler, queue, 3.0)
    assert error.value.code is Code.UNAVAILABLE
    run.gate.set()
    assert waiting[0].result(10) == [2.0, 4.0]


def test_what_waits_is_answered_before_the_end(schedule, pool) -> None:  # type: ignore[no-untyped-def]
    run = Doubling()
    scheduler, queue = schedule(), Queue(run)
    hold(scheduler, queue, pool)
    waiting = submit(scheduler, queue, pool, [1.0])
    stopping = pool.submit(scheduler.stop)
    run.gate.set()
    stopping.result(10)
    assert waiting[0].result(10) == [2.0]
    with pytest.raises(ServingError, match="stopping"):
        ask(scheduler, queue, 1.0)


def test_a_server_that_batches_answers_as_one_that_does_not(
    saved: dict[str, Path], tmp_path: Path, start_server: Callable[..., Client], pool: ThreadPoolExecutor
) -> None:
    publish(saved["bias1"], tmp_path / "delay", 1)
    publish(saved["everything"], tmp_path / "everything", 1)
    client = start_server(batching=Batching(threads=1), grpc_threads=16, prometheus_path="/metrics")
    client.reload(config(*((name, tmp_path / name, {}) for name in ("delay", "everything"))))

    def score(number: int) -> float:
        row = np.array([[number, 0, 0, 0]], np.float32)
        return client.predict("delay", {"x": row}).outputs["y"].float_val[0]

    assert list(pool.map(score, range(200))) == [number + 1.0 for number in range(200)]
    lines = client.text("/metrics").splitlines()
    batches = next(line for line in lines if line.startswith(":tensorflow:serving:batching_session:wrapped"))
    assert 0 < int(batches.split()[-1]) < 200
    # No batch can be made of scalars, or of a fault.
    scalars = client.predict("everything", {"a": np.float64(1.0), "b": np.float64(2.0)}, signature="scalars")
    assert scalars.outputs["sum"].double_val[0] == 3.0
    with pytest.raises(grpc.RpcError) as error:
        client.predict("everything", {"index": np.array([9], np.int32)}, signature="lookup")
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
