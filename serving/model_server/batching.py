"""Server-side batching: requests that wait at the same time are run as one.

Belongs here: forming batches, running them, and taking the results apart. Does not belong here: what runs a
batch (`servable`), or the parameters' file (`option_files`).

A model's Python call costs about the same for one row as for fifty, so under load this is what decides how
many requests a second are answered. A request that comes alone does not wait (`batch_timeout_seconds` 0): the
next batch is what gathered while the last one ran.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from serving.model_server.errors import Code, ServingError
from serving.model_server.metrics import Metrics
from serving.model_server.option_files import Batching
from serving.model_server.tensor_types import Array

Arrays = Mapping[str, Array]
Run = Callable[[Arrays], Arrays]

_STOPPED: Final = "The server is stopping"


@dataclass
class _Task:
    inputs: Arrays
    rows: int
    future: Future[Arrays] = field(default_factory=Future)
    queued_at: int = field(default_factory=time.monotonic_ns)


class Queue:
    """Requests of one signature of one version whose rows may be run together."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tasks: deque[_Task] = deque()
        self.rows = 0


class BatchScheduler:
    """Runs the batches of all queues on a few threads, the longest waiting first."""

    def __init__(self, parameters: Batching, metrics: Metrics) -> None:
        self._parameters = parameters
        self._metrics = metrics
        self._waiting: list[Queue] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{parameters.thread_pool_name}-{number}", daemon=True)
            for number in range(parameters.threads)
        ]
        for thread in self._threads:
            thread.start()

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
        with self._changed:
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
            self._changed.notify()
        return task.future.result()

    def stop(self) -> None:
        """Take no more; what waits is still run."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            queue, tasks = taken
            now = time.monotonic_ns()
            for task in tasks:
                self._metrics.queued(self._parameters.thread_pool_name, now - task.queued_at)
            _answer(queue.run, tasks, self._parameters.allowed_batch_sizes)
            self._metrics.batch_ran()

    def _next(self) -> tuple[Queue, list[_Task]] | None:
        """The next batch, once one is due; None when the server stops and nothing waits."""
        with self._changed:
            while True:
                if not self._waiting:
                    if self._stopping:
                        return None
                    self._changed.wait()
                    continue
                wait_seconds = [self._wait_seconds(queue) for queue in self._waiting]
                first = int(np.argmin(wait_seconds))
                if wait_seconds[first] > 0 and not self._stopping:
                    self._changed.wait(wait_seconds[first])
                    continue
                return self._take(self._waiting[first])

    def _wait_seconds(self, queue: Queue) -> float:
        """How long until the queue's next batch is due, counting down below 0 as it waits longer."""
        waited = (time.monotonic_ns() - queue.tasks[0].queued_at) / 1e9
        if queue.rows >= self._parameters.max_batch_size:
            return -waited
        return self._parameters.batch_timeout_seconds - waited

    def _take(self, queue: Queue) -> tuple[Queue, list[_Task]]:
        tasks: list[_Task] = []
        rows = 0
        while queue.tasks and rows + queue.tasks[0].rows <= self._parameters.max_batch_size:
            task = queue.tasks.popleft()
            tasks.append(task)
            rows += task.rows
        queue.rows -= rows
        if not queue.tasks:
            self._waiting.remove(queue)
        else:
            self._changed.notify()
        return queue, tasks


def _answer(run: Run, tasks: Sequence[_Task], sizes: Sequence[int]) -> None:
    """Run `tasks` as one batch, and give each its own part or error."""
    try:
        results = _run_together(run, tasks, sizes)
    except Exception as error:
        if len(tasks) == 1:
            tasks[0].future.set_exception(error)
            return
        # One request that the model refuses must not fail its neighbours.
        for task in tasks:
            _answer(run, [task], sizes)
        return
    for task, result in zip(tasks, results, strict=True):
        task.future.set_result(result)


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
