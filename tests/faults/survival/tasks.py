"""Kills every task of every DAG once, and compares what comes of it with a world where nothing was killed.

    python -m tests.faults.survival.tasks [--seed N] [--only DAG_ID ...] [--table FILE]

Belongs here: the two worlds one after the other, the further faults, and the report. Does not belong here:
each of those.

Takes an hour or two on two cores. Ends with one line of JSON, and with status 0 only if nothing was lost and
both worlds are equal.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from airloop.intervals import Interval
from airloop.stack import supervision
from airloop.upcoming import upcoming_requests
from airloop.use_cases.catalogue import use_case
from tests.faults.survival import outcomes, scenario
from tests.faults.survival.checkout import copy_checkout
from tests.faults.survival.deployment import deploy_in_mid_run
from tests.faults.survival.killer import Killer, Task, Watched
from tests.faults.survival.play import play
from tests.faults.survival.state import State, differences, state_of
from tests.faults.survival.twice import features_twice, training_twice
from tests.faults.survival.world import RunEnded, World, world

REQUESTS = 5


class Played(NamedTuple):
    """A world that went through the scenario."""

    runs: dict[str, RunEnded]
    watched: Watched
    state: State
    dags: dict[str, list[str]]
    """Every task of every DAG."""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Kill every task once, and compare with a world undisturbed."
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", nargs="+", metavar="DAG_ID", help="kill tasks of these DAGs alone")
    parser.add_argument("--until", metavar="STEP", help="end the scenario after this step")
    parser.add_argument("--table", type=Path, help="write the table there too, as Markdown")
    parser.add_argument("--folder", type=Path, help="where the worlds live; kept, if it is given")
    arguments = parser.parse_args(argv)
    console = Console(width=200)
    started = time.monotonic()
    only = frozenset(arguments.only) if arguments.only else None
    steps = scenario.steps()
    if arguments.until:
        names = [step.name for step in steps]
        steps = steps[: names.index(arguments.until) + 1]
    console.print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        folder = arguments.folder or Path(temporary)
        checkout = folder / "checkout"
        if not checkout.exists():
            copy_checkout(checkout)
        with _imported_from(checkout):
            first = _undisturbed(folder, checkout, steps, console)
            with world(folder / "b", console, checkout) as disturbed:
                second = _played(
                    disturbed, steps, seed=arguments.seed, lengths=first.watched.lengths, only=only
                )
                unequal = differences(first.state, second.state)
                found = outcomes.of_kills(
                    second.watched,
                    first.runs,
                    second.runs,
                    [task for task in first.watched.lengths if only is None or task.dag_id in only],
                )
                if not arguments.only and not arguments.until:
                    found += [
                        fault(disturbed) for fault in (features_twice, training_twice, deploy_in_mid_run)
                    ]
    return _report(arguments, console, found, unequal, first, second, time.monotonic() - started)


def _undisturbed(
    folder: Path, checkout: Path, steps: Sequence[scenario.Run | scenario.Act], console: Console
) -> Played:
    """The world in which nothing is killed, or what is known of it from an earlier call with this folder."""
    known = folder / "undisturbed.pickle"
    if known.exists():
        found: Played = pickle.loads(known.read_bytes())
        return found
    with world(folder / "a", console, checkout) as there:
        played = _played(there, steps, seed=0)
    known.write_bytes(pickle.dumps(played))
    return played


def _report(
    arguments: argparse.Namespace,
    console: Console,
    found: list[outcomes.Outcome],
    unequal: Sequence[str],
    first: Played,
    second: Played,
    seconds: float,
) -> int:
    missing = {}
    if not arguments.only and not arguments.until:
        missing = outcomes.not_reached(first.dags, second.watched, scenario.NOT_REACHED)
    console.print(outcomes.table_of(found))
    for task, why in missing.items():
        console.print(f"not reached: {task}: {why}", soft_wrap=True)
    for line in unequal:
        console.print(f"unequal: {line}", soft_wrap=True, markup=False)
    for problem in [*first.watched.problems, *second.watched.problems]:
        console.print(f"the killer met {problem}", soft_wrap=True, markup=False)
    summary = outcomes.summary_of(
        found, not_reached=missing, equal=not unequal, seed=arguments.seed, seconds=round(seconds)
    )
    line = json.dumps(summary)
    if arguments.table:
        arguments.table.write_text(outcomes.markdown_of(found, missing, line), encoding="utf-8")
    print(line)
    wrong = summary["lost"] or unequal or second.watched.problems or outcomes.UNKNOWN in missing.values()
    return 0 if summary["faults"] and not wrong else 1


def _played(
    there: World,
    steps: Sequence[scenario.Run | scenario.Act],
    *,
    seed: int,
    lengths: Mapping[Task, float] | None = None,
    only: frozenset[str] | None = None,
) -> Played:
    dag_ids = sorted(
        {dag for step in steps if isinstance(step, scenario.Run) for dag in (step.dag_id, *step.starts)}
    )
    there.wait_for_dags(dag_ids)
    scheduler = supervision.states(there.settings)["airflow-scheduler"].pid
    killer = Killer(there.database, scheduler, seed=seed, lengths=lengths, only=only)
    killer.start()
    try:
        runs = play(there, killer, steps, strict=lengths is None)
    finally:
        killer.end()
    return Played(runs, killer.watched, state_of(there.settings, _requests(there)), there.tasks_of_dags())


def _requests(there: World) -> list[str]:
    spec = use_case(scenario.USE_CASE)
    soon = scenario.AS_OF + spec.prediction_lead
    return upcoming_requests(there.settings, spec, Interval(soon, soon + timedelta(hours=12)), REQUESTS)


class _imported_from:
    """Processes that are started meanwhile import this project from `checkout`."""

    def __init__(self, checkout: Path) -> None:
        self._path = os.pathsep.join(str(checkout / part) for part in ("", "src", "plugins"))
        self._before = os.environ.get("PYTHONPATH")

    def __enter__(self) -> None:
        os.environ["PYTHONPATH"] = self._path

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = self._before


if __name__ == "__main__":
    sys.exit(main())
