"""What happens in both worlds, in order: a run of each DAG, and what clients ask in between.

Belongs here: the steps, and why a task of a DAG is reached by none of them. Does not belong here: having them
run (`play`), or killing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from airloop.intervals import Interval
from airloop.stack.loop import Windows, features_interval
from airloop.upcoming import upcoming_requests
from airloop.use_cases.catalogue import use_case
from tests.faults.survival.traffic import ask, begin_a_new_audit_log
from tests.faults.survival.world import World

USE_CASE: Final = "flight_delay"
AS_OF: Final = datetime(2013, 11, 11, tzinfo=UTC)
"""Five weeks that are alike: after two weeks of another kind the gate would rightly reject the candidate."""
WINDOWS: Final = Windows(21, 5, 7)

Conf = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A run of a DAG by hand, and those that its Assets start."""

    name: str
    dag_id: str
    conf: Conf | Callable[[World], Conf] = field(default_factory=dict)
    run_after: datetime | None = None
    """The moment that it is about; the present by default."""
    ends: str = "success"
    starts: tuple[str, ...] = ()
    """DAGs that an Asset of this run starts once each, which are waited for too."""

    @property
    def run_id(self) -> str:
        """The same in both worlds: it is in tables and names."""
        return f"survival__{self.name}"


@dataclass(frozen=True)
class Act:
    """Something else that happens."""

    name: str
    do: Callable[[World], None]


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def loop() -> list[Run | Act]:
    """From the source to the gateway."""
    span = features_interval(use_case(USE_CASE), AS_OF, WINDOWS)
    return [
        Run(
            "features",
            f"{USE_CASE}_features",
            {"start_date": _day(span.start), "end_date": _day(span.end)},
            AS_OF + timedelta(hours=1),
        ),
        Run(
            "training",
            f"{USE_CASE}_training",
            {"as_of": _day(AS_OF), **WINDOWS.given},
            AS_OF + timedelta(hours=2),
            starts=(f"{USE_CASE}_rollout",),
        ),
    ]


def watching() -> list[Run | Act]:
    """A second version by way of override, stages and a rollback, and what watches the first meanwhile."""
    dag = f"{USE_CASE}_{{}}".format
    yesterday = AS_OF - timedelta(days=1)
    return [
        Act("traffic", lambda world: ask(world, USE_CASE, Interval(AS_OF, AS_OF + timedelta(hours=14)))),
        Run("predictions", "predictions"),
        # A single day has fewer rows than the gate asks for: rejected, whatever the study finds.
        Run(
            "training_tuned",
            dag("training"),
            {
                "as_of": _day(yesterday),
                "train_days": 14,
                "validation_days": 4,
                "test_days": 1,
                "tune": True,
                "trials": 2,
                "minutes": 600,
                "cross_validate": True,
            },
            AS_OF + timedelta(hours=3),
        ),
        Run(
            "override",
            dag("override"),
            lambda world: {
                "run_id": _result(world, "training_tuned", dag("training"), "train")["run_id"],
                "by": "Ada",
                "reason": "the test needs a second version",
            },
        ),
        Act("audit log", begin_a_new_audit_log),
        Run("rollout_staged", dag("rollout"), {"version": 2, "bake_minutes": 0}),
        Run("drill", dag("drill")),
        Run(
            "monitoring",
            dag("monitoring"),
            {"start": (AS_OF - timedelta(days=2)).isoformat(), "end": AS_OF.isoformat()},
            AS_OF + timedelta(minutes=20),
        ),
        Run("rollout_back", dag("rollout"), {"action": "rollback", "reason": "the test wants it so"}),
        Run(
            "silence",
            dag("silence"),
            {
                "cause": "decay",
                "until": (AS_OF + timedelta(days=9)).isoformat(),
                "by": "Ada",
                "reason": "known",
            },
            AS_OF + timedelta(minutes=24),
        ),
        Run("retraining", dag("retraining"), run_after=AS_OF + timedelta(minutes=25)),
        Run(
            "experiment",
            dag("experiment"),
            {"name": "wider", "version": 2, "share": 0.5, "horizon_hours": 0.002},
        ),
        Run("rollout_failed", dag("rollout"), {"version": 99}, ends="failed"),
        Run(
            "experiment_failed",
            dag("experiment"),
            {"name": "missing", "version": 99, "share": 0.5, "horizon_hours": 0.002},
            ends="failed",
        ),
        Run("skew", dag("skew"), {"start_date": _day(yesterday)}, AS_OF + timedelta(hours=1)),
        Run("scoring", dag("scoring"), {"start_date": _day(yesterday)}, AS_OF + timedelta(hours=1)),
        Run("overview", dag("overview"), run_after=AS_OF + timedelta(hours=2)),
    ]


def keeping() -> list[Run | Act]:
    """What looks after the data and the platform."""
    dag = f"{USE_CASE}_{{}}".format
    a_day = AS_OF - timedelta(days=6)
    return [
        Run("push", dag("push"), {"until": (AS_OF + timedelta(hours=6)).isoformat()}),
        Run("stream_ingest", "stream_ingest", run_after=AS_OF + timedelta(hours=12)),
        Run("watchdog", "watchdog", run_after=AS_OF + timedelta(hours=12)),
        Run("cost", "cost"),
        Run(
            "rollback",
            dag("rollback"),
            {"before_run": "survival__features", "start_date": _day(a_day)},
            AS_OF + timedelta(hours=13),
        ),
        Run("features_again", dag("features"), {"start_date": _day(a_day)}, AS_OF + timedelta(hours=14)),
        Run("backup", "backup"),
        Run(
            "erasure",
            "erasure",
            lambda world: {
                "subject": _subject(world),
                "reason": "ticket 7",
                "use_case": USE_CASE,
                "dry_run": False,
                "accept_similar": True,
                "grace_minutes": 0,
            },
        ),
        Run("maintenance", "maintenance"),
    ]


def steps() -> list[Run | Act]:
    """All of it."""
    return [*loop(), *watching(), *keeping()]


def _result(world: World, step: str, dag_id: str, task_id: str) -> Any:
    return world.api.result(dag_id, f"survival__{step}", task_id)


def _subject(world: World) -> str:
    """The plane of the first flight after the as-of date that has one."""
    spec = use_case(USE_CASE)
    before = Interval(AS_OF - timedelta(hours=12), AS_OF)
    planes = (
        json.loads(body).get("tail_number") for body in upcoming_requests(world.settings, spec, before, 20)
    )
    return str(next(plane for plane in planes if plane))


NOT_REACHED: Final[Mapping[str, str]] = {
    f"{USE_CASE}_rollout.nothing_beside": "an EmptyOperator, which no process runs",
    f"{USE_CASE}_experiment.ended": "an EmptyOperator, which no process runs",
    f"{USE_CASE}_retraining.request_training": "a training is requested a week after the last one at "
    "the earliest, and these worlds are younger; the tasks of that name in the rollback and the features "
    "call the same",
    **dict.fromkeys(
        (f"{USE_CASE}_features.{task}" for task in ("mark_stale", "retraining_wanted", "request_training")),
        "no published row becomes another in this scenario, so `changed` skips them; the rollback's of these "
        "names, which are the same, are killed",
    ),
    "stream_ingest.flight_delay_late_days": "skipped by its own rule where no stream has a connection; what "
    "lands streams is killed by tests/streams/test_kills.py",
}
"""Why the scenario does not reach a task, by `<dag>.<task>`; one that is neither here nor reached is a
mistake of the scenario."""
