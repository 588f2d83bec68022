"""Has a world go through the scenario, and says how each run ended.

Belongs here: the order of triggering, waiting and trying a missed kill again. Does not belong here: the steps
(`scenario`), or when a task is killed (`killer`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import httpx

from airloop.errors import StackError
from tests.faults.survival.killer import Killer, Task
from tests.faults.survival.scenario import Act, Run
from tests.faults.survival.world import OVER, RunEnded, World

STARTED_BY_ASSET_SECONDS: Final = 300
ATTEMPTS: Final = 3
"""At killing a task while it runs, then it is not tested."""


class ScenarioError(Exception):
    """The undisturbed world is not as the scenario wants it: then nothing can be compared with it."""


def play(world: World, killer: Killer, steps: Sequence[Run | Act], *, strict: bool) -> dict[str, RunEnded]:
    """Go through `steps`; the runs by their step's name, those that Assets started by `<step>/<dag>`.

    A `strict` scenario ends with the first step that does not end as it should. Otherwise what was lost is
    missing among the runs, and the steps after it show what follows from that.
    """
    ended: dict[str, RunEnded] = {}
    for step in steps:
        try:
            ended |= _play(world, killer, step, strict=strict)
        except (StackError, OSError, ValueError, StopIteration, httpx.HTTPError) as error:
            if strict:
                raise ScenarioError(f"{step.name}: {error!r}") from error
            world.console.print(f"{step.name}: {error!r}", markup=False, soft_wrap=True)
    return ended


def _play(world: World, killer: Killer, step: Run | Act, *, strict: bool) -> dict[str, RunEnded]:
    began = time.monotonic()
    if isinstance(step, Act):
        step.do(world)
        world.console.print(f"{step.name}: done ({time.monotonic() - began:.0f} s)")
        return {}
    with world.switched_on([step.dag_id, *step.starts]):
        ended = _run(world, killer, step)
    for name, run in ended.items():
        world.console.print(f"{name}: {run.state} ({run.seconds:.0f} s)")
        wanted = step.ends if name == step.name else "success"
        if run.state != wanted:
            said = f"{name} ended as {run.state}, not as {wanted}: {dict(run.tasks)}"
            if strict:
                raise ScenarioError(said)
            world.console.print(said, markup=False, soft_wrap=True)
    return ended


def _run(world: World, killer: Killer, step: Run) -> dict[str, RunEnded]:
    before = {dag_id: set(world.runs(dag_id)) for dag_id in (step.dag_id, *step.starts)}
    conf = step.conf(world) if callable(step.conf) else step.conf
    for dag_id, there in before.items():
        killer.follow(dag_id, there)
    try:
        world.trigger(step.dag_id, step.run_id, conf, step.run_after)
        ended = {step.name: _to_its_end(world, killer, step.dag_id, step.run_id, step.starts)}
        if ended[step.name].state == "success":
            for dag_id in step.starts:
                run_id = _started(world, dag_id, before[dag_id])
                ended[f"{step.name}/{dag_id}"] = _to_its_end(world, killer, dag_id, run_id)
    finally:
        for dag_id in before:
            killer.leave_when_recovered(dag_id)
    return ended


def _started(world: World, dag_id: str, before: set[str]) -> str:
    """The run of `dag_id` that was not there before; waits until there is one."""
    end = time.monotonic() + STARTED_BY_ASSET_SECONDS
    while time.monotonic() < end:
        if new := sorted(set(world.runs(dag_id)) - before):
            return new[0]
        time.sleep(1)
    raise TimeoutError(f"no Asset started {dag_id} within {STARTED_BY_ASSET_SECONDS} s")


def _to_its_end(
    world: World, killer: Killer, dag_id: str, run_id: str, starts: Sequence[str] = ()
) -> RunEnded:
    """Wait for the run, and have tasks that ended before their moment done again until each was killed.

    Meanwhile `starts` are off: a task that is done again makes its Asset's event again, which is no fault.
    """
    ended = world.wait_for_run(dag_id, run_id)
    for _ in range(ATTEMPTS - 1):
        missed = [task for task in killer.to_be_hit if task.dag_id == dag_id]
        again = [task for task in missed if _ran(ended, task)]
        if not again:
            break
        for task in again:
            killer.aim_earlier(task)
            with world.switched_off(starts):
                world.clear(dag_id, run_id, task.task_id)
                again_ended = world.wait_for_run(dag_id, run_id)
            ended = again_ended._replace(seconds=ended.seconds + again_ended.seconds)
    return ended


def _ran(ended: RunEnded, task: Task) -> bool:
    """Whether the task came to an end in this run: only then is it done again without doing more."""
    states = ended.tasks.get(task.task_id, ())
    return ended.state in OVER and any(state in ("success", "skipped") for state in states)
