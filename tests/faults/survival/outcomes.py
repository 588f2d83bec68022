"""The table of faults and outcomes, and the line of JSON that the test ends with.

Belongs here: what counts as survived, lost or not tested, and how it is shown. Does not belong here: causing
faults, or comparing worlds (`state`).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from rich.table import Table

from tests.faults.survival.killer import Kill, Task, Watched
from tests.faults.survival.world import RunEnded

COLUMNS = ("fault", "task", "killed after s", "processes", "recovered in s", "tries", "outcome")


@dataclass(frozen=True)
class Outcome:
    """One fault, and what became of it."""

    fault: str
    subject: str
    outcome: Literal["survived", "stopped", "lost", "not hit"]
    """`stopped`: the run ended, said what to do, and went on after that was done."""
    killed_after_seconds: float | None = None
    processes: int | None = None
    recovered_seconds: float | None = None
    tries: int | None = None
    why: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """As a row of the table."""
        said = f"{self.outcome}: {self.why}" if self.why else self.outcome
        return (
            self.fault,
            self.subject,
            _number(self.killed_after_seconds, ".1f"),
            _number(self.processes, "d"),
            _number(self.recovered_seconds, ".1f"),
            _number(self.tries, "d"),
            said,
        )


def of_kills(
    watched: Watched,
    undisturbed: Mapping[str, RunEnded],
    disturbed: Mapping[str, RunEnded],
    expected: Iterable[Task] = (),
) -> list[Outcome]:
    """An outcome for each task that was to be killed: those of `expected` ran in the undisturbed world."""
    wrong = differing_runs(undisturbed, disturbed)
    found = [_of_kill(kill, wrong) for kill in watched.kills.values()]
    found += [
        Outcome("kill -9", str(task), "not hit", why=f"it ended before its moment, {times} times")
        for task, times in sorted(watched.missed.items())
        if task not in watched.kills
    ]
    found += [
        Outcome("kill -9", str(task), "not hit", why="it was not seen running")
        for task in sorted({*expected} - {*watched.kills} - {*watched.missed})
    ]
    return found


def differing_runs(undisturbed: Mapping[str, RunEnded], disturbed: Mapping[str, RunEnded]) -> dict[str, str]:
    """What is different of each DAG's runs, by DAG: their ends, and those of their tasks."""
    found: dict[str, str] = {}
    for name, run in undisturbed.items():
        other = disturbed.get(name)
        if other is None:
            found[run.dag_id] = f"{name} never ran"
        elif (other.state, other.tasks) != (run.state, run.tasks):
            tasks = [
                f"{task} {'/'.join(map(str, other.tasks.get(task, ())))} (not {'/'.join(map(str, states))})"
                for task, states in run.tasks.items()
                if other.tasks.get(task) != states
            ]
            found[run.dag_id] = f"{name} ended as {other.state}: {', '.join(tasks)}"
    return found


UNKNOWN: Final = "NO REASON IS KNOWN"
"""Of a task that nothing reached: a mistake of the scenario."""


def not_reached(
    dags: Mapping[str, Sequence[str]], watched: Watched, reasons: Mapping[str, str]
) -> dict[str, str]:
    """Tasks that never ran in a process of their own, and why; a task without a known reason says so."""
    met = {*watched.kills, *watched.missed}
    return {
        str(Task(dag_id, task_id)): reasons.get(str(Task(dag_id, task_id)), UNKNOWN)
        for dag_id, task_ids in sorted(dags.items())
        for task_id in task_ids
        if Task(dag_id, task_id) not in met
    }


def table_of(outcomes: Iterable[Outcome]) -> Table:
    """For a terminal."""
    table = Table(*COLUMNS, title="faults and outcomes")
    for outcome in outcomes:
        table.add_row(*outcome.cells)
    return table


def markdown_of(outcomes: Iterable[Outcome], missing: Mapping[str, str], line: str) -> str:
    """For a file."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *(outcome.cells for outcome in outcomes)]
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    left = "\n".join(f"- `{task}`: {why}" for task, why in missing.items())
    parts = [text, *(["Not reached:", left] if left else []), f"```json\n{line}\n```"]
    return "\n\n".join(parts) + "\n"


def summary_of(outcomes: Sequence[Outcome], **further: object) -> dict[str, Any]:
    """The last line."""
    tested = [outcome for outcome in outcomes if outcome.outcome != "not hit"]
    recovered = [o.recovered_seconds for o in tested if o.recovered_seconds is not None]
    return {
        "faults": len(tested),
        **{kind: sum(o.outcome == kind for o in tested) for kind in ("survived", "stopped", "lost")},
        "not_hit": [f"{o.fault}: {o.subject}" for o in outcomes if o.outcome == "not hit"],
        "seconds_to_recover": {
            "median": round(statistics.median(recovered), 1) if recovered else None,
            "max": round(max(recovered), 1) if recovered else None,
        },
        **further,
    }


def _of_kill(kill: Kill, wrong: Mapping[str, str]) -> Outcome:
    why = wrong.get(kill.task.dag_id, "")
    if kill.recovered_seconds is None:
        why = why or "its end was not seen"
    return Outcome(
        "kill -9",
        str(kill.task),
        "lost" if why else "survived",
        kill.after_seconds,
        kill.processes,
        kill.recovered_seconds,
        kill.tries,
        why,
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
