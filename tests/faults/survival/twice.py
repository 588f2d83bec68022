"""The same run, triggered twice at once under two names.

Belongs here: triggering, and what must hold afterwards. Does not belong here: how states are compared
(`state`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from tests.faults.survival.outcomes import Outcome
from tests.faults.survival.scenario import AS_OF, USE_CASE
from tests.faults.survival.state import State, differences, state_of
from tests.faults.survival.world import World

FAULT: Final = "triggered twice"
BOTH: Final = ("survival__twice_1", "survival__twice_2")
WITHOUT: Final = ("airflow", "files")
"""Parts of the state that count runs and their reports, of which there are two more."""


def features_twice(world: World) -> Outcome:
    """A published day built again by two runs: everything stays as it was."""
    day = AS_OF - timedelta(days=2)
    conf = {"start_date": f"{day:%Y-%m-%d}"}
    # Once before: the day has lost a subject's rows since it was built, to an erasure of the scenario.
    _, first = _ended(world, f"{USE_CASE}_features", conf, ["survival__once"])
    before = _state(world)
    seconds, states = _ended(world, f"{USE_CASE}_features", conf, BOTH)
    states += first
    return _outcome(f"{USE_CASE}_features", seconds, states, differences(before, _state(world)))


def training_twice(world: World) -> Outcome:
    """A training that was not there: one training set and one complete run of it, not two."""
    before = _state(world)
    as_of = AS_OF - timedelta(days=3)
    conf = {"as_of": f"{as_of:%Y-%m-%d}", "train_days": 7, "validation_days": 3, "test_days": 1}
    seconds, states = _ended(world, f"{USE_CASE}_training", conf, BOTH)
    after = _state(world)
    runs = f"runs of {USE_CASE}"
    new: Counter[str] = after["registry"].pop(runs) - before["registry"].pop(runs)
    table = f"training.{USE_CASE}"
    sets = Counter(after["tables"][table]["tags"]) - Counter(before["tables"][table]["tags"])
    wrong = [
        f"{what}: {dict(found)}" for what, found in (("runs", new), ("sets", sets)) if found.total() != 1
    ]
    before["tables"].pop(table)
    after["tables"].pop(table)
    return _outcome(f"{USE_CASE}_training", seconds, states, [*wrong, *differences(before, after)])


def _state(world: World) -> State:
    return {name: part for name, part in state_of(world.settings).items() if name not in WITHOUT}


def _ended(
    world: World, dag_id: str, conf: dict[str, Any], run_ids: Sequence[str]
) -> tuple[float, list[str]]:
    started = time.monotonic()
    with world.switched_on([dag_id]):
        for run_id in run_ids:
            world.trigger(dag_id, run_id, conf, AS_OF)
        states = [world.wait_for_run(dag_id, run_id).state for run_id in run_ids]
    return time.monotonic() - started, states


def _outcome(dag_id: str, seconds: float, states: list[str], wrong: list[str]) -> Outcome:
    failed = [state for state in states if state != "success"]
    why = "; ".join([*(f"a run ended as {state}" for state in failed), *wrong])
    return Outcome(
        FAULT, dag_id, "lost" if why else "survived", why=why or f"both over after {seconds:.0f} s"
    )
