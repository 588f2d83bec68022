"""What of a loop's wall clock counts as work, bake and overhead."""

from __future__ import annotations

from benchmarks.loop import Task, length, measured, union, without
from tests.observability.collector import Received


def span(name: str, start: float, end: float, job: str = "") -> Received:
    attributes = {"airloop.job": job} if job else {}
    at = {"start_nanoseconds": int(start * 1e9), "end_nanoseconds": int(end * 1e9)}
    return Received("job", name, "t", "s", "", attributes, [], failed=False, events=0, **at)


def test_spans_are_counted_once() -> None:
    assert union([(5, 6), (0, 2), (1, 3), (7, 7)]) == [(0, 3), (5, 6)]
    assert without([(0, 10)], [(2, 3), (9, 12)]) == [(0, 2), (3, 9)]
    assert length([(0, 2), (3, 9)]) == 8


def test_every_second_is_one_of_three_kinds() -> None:
    tasks = [Task("f.clean", 10, 30), Task("f.audit", 25, 40), Task("r.shadow", 45, 75)]
    received = [
        span("job spark_jobs.clean", 14, 29, "spark_jobs.clean"),
        span("spark session", 15, 18),
        span("job spark_jobs.audit", 27, 39, "spark_jobs.audit"),
        span("job serving.stage", 50, 51, "serving.stage"),
        span("Predict", 0, 100),
    ]
    found = measured(tasks, received, 5, 80)
    # From 14 to 15 and from 18 to 39; both jobs at once are work once.
    assert found["seconds"] == {"work": 22.0, "bake": 30.0, "overhead": 23.0}
    assert found["wall_seconds"] == 75
    assert found["between_tasks"] == 75 - 30 - 30
    assert found["overhead_share"] == round(23 / 45, 3)
    assert found["overhead_share_with_bake"] == round(23 / 75, 3)
    assert found["tasks"]["f.clean"] == {"seconds": 20, "work": 13.0, "bake": 0, "overhead": 7.0}
    assert found["tasks"]["r.shadow"] == {"seconds": 30, "work": 0, "bake": 30, "overhead": 0}
