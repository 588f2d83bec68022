"""Server-side batching: requests that wait at the same time are run as one.

Belongs here: forming batches, running them, and taking the results apart. Does not belong here: what runs a
batch (`servable`), or the parameters' file (`option_files`).

A model's Python call costs about the same for one row as for fifty, so under load this is what decides how
many requests a second are answered. A request that comes alone does not wait (`batch_timeout_seconds` 0): the
next batch is what gathered while the last one ran.

A batch is run by a thread of a request that waits, not by one of the scheduler's own: a request that comes
alone is then answered without handing it over and back, which costs Python more than a small model.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from serving.model_server.errors import Code, ServingError
from serving.model_server.metrics import Metrics
from serving.model_server.option_files import Batching
from serving.model_server.tensor_types import Array

Arrays = Mapping[str, Array]
Run = Callable[[Arrays], Arrays]

_STOPPED: Final = "The server is stopping"


class _Task:
    """One request's rows, and the thread that waits for their outputs."""

    def __init__(self, inputs: Arrays, rows: int) -> None:
        self.inputs = inputs
        self.rows = rows
        self.queued_at = time.monotonic_ns()
        self.result: Arrays | None = None
        self.error: Exception | None = None
        # Held, but for a moment after `wake`: an Event, which is made of one, takes three times as long.
        self._asleep = threading.Lock()
        self._asleep.acquire()

    @property
    def done(self) -> bool:
        """Whether it has outputs, or an error in their place."""
        return self.result is not None or self.error is not None

    def wake(self) -> None:
        """Have the thread look again; it does not mind being woken for nothing."""
        with contextlib.suppress(RuntimeError):
            self._asleep.release()

    def sleep(self, seconds: float | None) -> None:
        """Until woken, if need be since before, or for so long."""
        self._asleep.acquire(timeout=-1 if seconds is None else seconds)

    def outputs(self) -> Arrays:
        """Of a task that is done; raises its error."""
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


class Queue:
    """Requests of one signature of one version whose rows may be run together."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tasks: deque[_Task] = deque()
        self.rows = 0


class _Batch(NamedTuple):
    queue: Queue
    tasks: list[_Task]


class BatchScheduler:
    """Runs the batches of all queues, a few at a time, the longest waiting first."""

    def __init__(self, parameters: Batching, metrics: Metrics) -> None:
        self._parameters = parameters
        self._metrics = metrics
        self._waiting: list[Queue] = []
        self._running = 0
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._stopping = False

    def run(self, queue: Queue, inputs: Arrays, rows: int) -> Arrays:
        """The outputs for `inputs`, whose arrays all have `rows` first entries; waits for their batch.

        Raises ServingError: INVALID_ARGUMENT for more rows than a batch may have, UNAVAILABLE when too many
        wait or the server stops, and what `queue.run` raises.
        """
        task = _Task(inputs, rows)
        most = self._parameters.max_batch_size
        if rows > most:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"Task size {rows} is larger than maximum input batch size {most}"
            )
        with self._lock:
            if self._stopping:
                raise ServingError(Code.UNAVAILABLE, _STOPPED)
            if queue.tasks and queue.rows + rows > most * self._parameters.max_enqueued_batches:
                raise ServingError(
                    Code.UNAVAILABLE, "The batch scheduling queue to which this task was submitted is full"
                )
            if not queue.tasks:
                self._waiting.append(queue)
            queue.tasks.append(task)
            queue.rows += rows
        while not task.done:
            with self._lock:
                due = self._due(task)
            if isinstance(due, _Batch):
                self._run_batch(due)
            elif not task.done:
                task.sleep(due)
        return task.outputs()

    def stop(self) -> None:
        """Take no more; what waits is still run."""
        with self._lock:
            self._stopping = True
            self._wake_first()
            while self._waiting or self._running:
                self._idle.wait()

    def _run_batch(self, batch: _Batch) -> None:
        try:
            now = time.monotonic_ns()
            for task in batch.tasks:
                self._metrics.queued(self._parameters.thread_pool_name, now - task.queued_at)
            _answer(batch.queue.run, batch.tasks, self._parameters.allowed_batch_sizes)
            self._metrics.batch_ran()
        except BaseException as error:
            # Nobody else would ever answer them.
            for task in batch.tasks:
                if not task.done:
                    task.error = ServingError(Code.INTERNAL, f"{type(error).__name__} while running a batch")
                    task.wake()
            raise
        finally:
            with self._lock:
                self._running -= 1
                self._wake_first()
                self._idle.notify_all()

    def _due(self, task: _Task) -> _Batch | float | None:
        """The batch that the thread of `task` is to run now, taken; else how long to sleep at most."""
        if task.done or not self._waiting or self._running >= self._parameters.threads:
            # Whoever ends a batch wakes the first that waits.
            return None
        seconds, queue = min(
            ((self._wait_seconds(queue), queue) for queue in self._waiting), key=lambda item: item[0]
        )
        if seconds > 0 and not self._stopping:
            mine = [queue for queue in self._waiting if queue.tasks[0] is task]
            return max(self._wait_seconds(mine[0]), 0.0) if mine else None
        self._running += 1
        batch = _Batch(queue, self._take(queue))
        self._wake_first()
        return batch

    def _wake_first(self) -> None:
        """Have the first task of each queue see whether a batch is due."""
        if self._running < self._parameters.threads:
            for queue in self._waiting:
                queue.tasks[0].wake()

    def _wait_seconds(self, queue: Queue) -> float:
        """How long until the queue's next batch is due, counting down below 0 as it waits longer."""
        waited = (time.monotonic_ns() - queue.tasks[0].queued_at) / 1e9
        if queue.rows >= self._parameters.max_batch_size:
            return -waited
        return self._parameters.batch_timeout_seconds - waited

    def _take(self, queue: Queue) -> list[_Task]:
        tasks: list[_Task] = []
        rows = 0
        while queue.tasks and rows + queue.tasks[0].rows <= self._parameters.max_batch_size:
            task = queue.tasks.popleft()
            tasks.append(task)
            rows += task.rows
        queue.rows -= rows
        if not queue.tasks:
            self._waiting.remove(queue)
        return tasks


def _answer(run: Run, tasks: Sequence[_Task], sizes: Sequence[int]) -> None:
    """Run `tasks` as one batch, and give each its own part or error."""
    try:
        results = _run_together(run, tasks, sizes)
    except Exception as error:
        if len(tasks) == 1:
            tasks[0].error = error
            tasks[0].wake()
            return
        # One request that the model refuses must not fail its neighbours.
        for task in tasks:
            _answer(run, [task], sizes)
        return
    for task, result in zip(tasks, results, strict=True):
        task.result = result
        task.wake()


def _run_together(run: Run, tasks: Sequence[_Task], sizes: Sequence[int]) -> list[Arrays]:
    rows = sum(task.rows for task in tasks)
    filled = next((size for size in sizes if size >= rows), rows)
    outputs = run(_joined(tasks, filled - rows))
    for alias, array in outputs.items():
        if not array.shape or array.shape[0] != filled:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                f"Batched output tensor {alias}: expected {filled} rows, one for each of the inputs, found "
                f"shape {list(array.shape)}",
            )
    results: list[Arrays] = []
    start = 0
    for task in tasks:
        part = slice(start, start + task.rows)
        results.append({alias: array[part] for alias, array in outputs.items()})
        start += task.rows
    return results


def _joined(tasks: Sequence[_Task], more: int) -> Arrays:
    """The inputs of all tasks, followed by `more` copies of the first row."""
    if len(tasks) == 1 and not more:
        return tasks[0].inputs
    first = tasks[0].inputs
    return {
        alias: np.concatenate(
            [*(task.inputs[alias] for task in tasks), *([np.repeat(array[:1], more, axis=0)] if more else [])]
        )
        for alias, array in first.items()
    }
