"""What the server counts and times, under TensorFlow Serving's names, and its Prometheus page.

Belongs here: the metrics and their text form. Does not belong here: when something is counted, or the path of
the page.

Prometheus' own client cannot write these: it ends the names of counters in `_total`, and TensorFlow Serving
does not.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence
from typing import Final

from serving.model_server.errors import Code

_NANOSECONDS_PER_MICROSECOND: Final = 1000


def exponential(first: float, growth: float, count: int) -> tuple[float, ...]:
    """The upper bounds of `count` buckets, each `growth` times the one before; what is above has its own."""
    return tuple(first * growth**power for power in range(count))


_LATENCY: Final = exponential(10, 1.8, 33)
"""Microseconds, to about 20 minutes."""


class Counter:
    """A number for each combination of labels, that only grows."""

    kind: Final = "counter"

    def __init__(self, name: str, labels: Sequence[str]) -> None:
        self.name, self._labels = name, tuple(labels)
        self._values: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, by: int = 1) -> None:
        """Count `by` more for `labels`."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + by

    def lines(self) -> list[str]:
        """One line for each combination of labels that was counted."""
        with self._lock:
            values = sorted(self._values.items())
        return [f"{self.name}{_braced(self._labels, labels)} {value}" for labels, value in values]


class Histogram:
    """How often a value fell into each bucket, for each combination of labels."""

    kind: Final = "histogram"

    def __init__(self, name: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.name, self._labels, self._bounds = name, tuple(labels), tuple(bounds)
        self._limits = [*(format(bound, "g") for bound in bounds), "+Inf"]
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def add(self, value: float, *labels: str) -> None:
        """Count `value` for `labels`. A value on a bound counts above it, as in TensorFlow's samplers."""
        bucket = bisect.bisect_right(self._bounds, value)
        with self._lock:
            counts = self._counts.get(labels)
            if counts is None:
                counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
                self._sums[labels] = 0.0
            counts[bucket] += 1
            self._sums[labels] += value

    def lines(self) -> list[str]:
        """The cumulated buckets, the sum and the count, for each combination of labels."""
        with self._lock:
            found = [(labels, list(counts), self._sums[labels]) for labels, counts in self._counts.items()]
        lines: list[str] = []
        for labels, counts, total in sorted(found):
            seen = 0
            for limit, count in zip(self._limits, counts, strict=True):
                seen += count
                braced = _braced((*self._labels, "le"), (*labels, limit))
                lines.append(f"{self.name}_bucket{braced} {seen}")
            braced = _braced(self._labels, labels)
            lines += [f"{self.name}_sum{braced} {total:g}", f"{self.name}_count{braced} {seen}"]
        return lines


class Metrics:
    """Every metric of a server. Threads may share it."""

    def __init__(self) -> None:
        name = ":tensorflow:serving:{}".format
        by_call = ("model_name", "API", "entrypoint")
        self._requests = Counter(name("request_count"), ("model_name", "status"))
        self._request_latency = Histogram(name("request_latency"), by_call, _LATENCY)
        self._runtime_latency = Histogram(name("runtime_latency"), ("model_name", "API", "runtime"), _LATENCY)
        self._examples = Histogram(name("request_example_counts"), ("model",), exponential(1, 2, 15))
        self._example_total = Counter(name("request_example_count_total"), ("model",))
        self._warm_up_latency = Histogram(name("model_warmup_latency"), ("model_path", "status"), _LATENCY)
        self._warm_up_records = Counter(name("model_warmup_records_read"), ("model_path", "status"))
        self._queuing = Histogram(
            name("batching_session:queuing_latency"), ("thread_pool_name",), exponential(100, 1.2, 52)
        )
        self._batches = Counter(name("batching_session:wrapped_run_count"), ())
        self._loads = Counter(":tensorflow:cc:saved_model:load_attempt_count", ("model_path", "status"))

    def request(self, model: str, api: str, entrypoint: str, code: Code, nanoseconds: int) -> None:
        """A request by `entrypoint` ("GRPC" or "REST") was answered with `code`; only good ones are timed."""
        if code is Code.OK:
            self._request_latency.add(nanoseconds / _NANOSECONDS_PER_MICROSECOND, model, api, entrypoint)
        self._requests.add(model, code.name)

    def ran(self, model: str, api: str, nanoseconds: int) -> None:
        """TensorFlow computed for one request ("TF1" is what TensorFlow Serving calls its usual runtime)."""
        self._runtime_latency.add(nanoseconds / _NANOSECONDS_PER_MICROSECOND, model, api, "TF1")

    def examples(self, model: str, count: int) -> None:
        """A request brought `count` examples."""
        self._examples.add(count, model)
        self._example_total.add(model, by=count)

    def warmed_up(self, path: str, status: str, records: int, nanoseconds: int) -> None:
        """A version in the folder `path` was warmed up with `records` requests."""
        self._warm_up_latency.add(nanoseconds / _NANOSECONDS_PER_MICROSECOND, path, status)
        self._warm_up_records.add(path, status, by=records)

    def loaded(self, path: str, *, well: bool) -> None:
        """A SavedModel in the folder `path` was loaded, or could not be."""
        self._loads.add(path, "success" if well else "fail")

    def queued(self, pool: str, nanoseconds: int) -> None:
        """A request waited so long for its batch."""
        self._queuing.add(nanoseconds / _NANOSECONDS_PER_MICROSECOND, pool)

    def batch_ran(self) -> None:
        """A batch was run."""
        self._batches.add()

    def page(self) -> bytes:
        """All of it as Prometheus reads it; metrics without a value are left out."""
        text: list[str] = []
        everything = [metric for metric in vars(self).values() if isinstance(metric, Counter | Histogram)]
        for metric in sorted(everything, key=lambda metric: metric.name):
            if lines := metric.lines():
                text += [f"# TYPE {metric.name} {metric.kind}", *lines]
        return ("\n".join(text) + "\n").encode()


def _braced(names: Sequence[str], values: Sequence[str]) -> str:
    pairs = (f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
