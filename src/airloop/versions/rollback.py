"""Job: set the clean tables of a use case back to before a run, whole or for some days, and say what follows.

    python -m airloop.versions.rollback --use-case NAME --before-run DAG_ID/RUN_ID [--start DAY [--end DAY]]
        [--before-snapshot ID] [--tables clean.a,clean.b] [--dry-run]

Belongs here: which snapshot each table goes back to, and the move. Does not belong here: what was made of the
data since (`consequences`), or building it again, which the features DAG does. Nothing is deleted: what was
undone stays under a tag until the use case's retention.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import NamedTuple

from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot

from airloop.airflow_run import BY_HAND
from airloop.errors import HistoryError, PublishError
from airloop.intervals import ONE_DAY, Interval, make_interval, parse_instant, require_whole_days
from airloop.jobs import run_job
from airloop.lakehouse.catalog import load_table, open_catalog
from airloop.lakehouse.history import UNDONE_TAG, Publication, publications, undone
from airloop.lakehouse.properties import CHANGED_DAYS, RESTORED_FROM, ROLLED_BACK, json_text
from airloop.lakehouse.provenance import signature
from airloop.lakehouse.replace import despite_conflicts, replace_interval
from airloop.references import RolledBack, TableSnapshot, UndonePublication
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.versions.consequences import consequences

CLEAN = "clean"
RUNS_SHOWN = 10


class Step(NamedTuple):
    """What is to be done to one table."""

    table: Table
    event_time: str | None
    head: Snapshot
    """`main`, or what it was before it was set back by an earlier try."""
    undone: tuple[Publication, ...]
    """The run's publication, last, and what was published since, newest first."""
    target: Snapshot
    """What `main` was before the run."""
    done: bool
    """Whether an earlier try set this table back already."""


def roll_back(
    spec: UseCase,
    settings: Settings,
    *,
    before_run: str | None = None,
    before_snapshot: int | None = None,
    interval: Interval | None = None,
    tables: Sequence[str] = (),
    dry_run: bool = False,
) -> RolledBack:
    """Set the clean tables that a run published back to before it, all of them or none.

    The run is `before_run` (`<dag_id>/<run_id>`; without a DAG id, the use case's features DAG), or the one
    that made `before_snapshot`. Without an `interval` each table's `main` goes back as a whole, later runs
    included; with one, only its rows come back as they were, in a new snapshot, and other days stay. Safe to
    repeat: what was set back already is left, and a run that was killed is completed. Raises `HistoryError`,
    before any table moves, when the run published nothing there or the state before it has expired.
    """
    catalog = open_catalog(settings)
    chosen = _chosen(spec, tables)
    loaded = {name: load_table(catalog, name) for name in chosen}
    matches, run_id = _matcher(spec, loaded, before_run, before_snapshot)
    steps = [
        step
        for name, table in loaded.items()
        if (step := _step(table, chosen[name], matches, interval, run_id)) is not None
    ]
    if not steps:
        raise HistoryError(
            expected=f"{run_id} to have published to {', '.join(chosen)}",
            found=f"only {_known(loaded) or 'no run at all'}",
            next_step="name one of those, or list them: python -m airloop.lakehouse.history --table <table>",
        )
    days = interval or _spanned([item for step in steps for item in step.undone])
    own = _spanned([step.undone[-1] for step in steps])
    if not _overlap(own, days):
        raise HistoryError(
            expected=f"days that {run_id} published",
            found=f"{days.start:%Y-%m-%d} to {days.end:%Y-%m-%d}; it published {own.start:%Y-%m-%d} to "
            f"{own.end:%Y-%m-%d}",
            next_step="correct the start and the end, or name the run that published those days",
        )
    first = {
        publication.table: (step.table, publication) for step in steps for publication in step.undone[-1:]
    }
    follows = consequences(settings, spec, catalog, first, days)
    changed, notes = [], list(follows.notes)
    if interval is not None:
        left = [".".join(step.table.name()) for step in steps if step.event_time is None]
        if left:
            notes.append(f"{', '.join(left)} stays: it has no days; roll it back whole if it must go back")
        steps = [step for step in steps if step.event_time is not None]
    if not dry_run:
        for step in steps:
            move = _restore if interval is not None else _set_back
            work = partial(move, spec, step, matches, run_id, days)
            changed.append(despite_conflicts(step.table, work))
    return RolledBack(
        use_case=spec.name,
        before_run=run_id,
        dry_run=dry_run,
        start=follows.days.start.isoformat(),
        end=follows.days.end.isoformat(),
        snapshots=tuple(_result(step, dry_run) for step in steps),
        changed=any(changed),
        undone=tuple(
            _described(item, days) for step in steps for item in step.undone if _touches(item, interval)
        ),
        features=follows.features,
        training_sets=follows.training_sets,
        models=follows.models,
        notes=tuple(notes),
    )


def _chosen(spec: UseCase, tables: Sequence[str]) -> dict[str, str | None]:
    """The tables to look at, with their event times; raises `HistoryError` for one that is not the spec's."""
    there = {f"{CLEAN}.{table.name}": table.event_time for table in spec.clean_tables}
    if unknown := sorted(set(tables) - set(there)):
        raise HistoryError(
            expected=f"clean tables of {spec.name}: {', '.join(there)}",
            found=", ".join(unknown),
            next_step="correct --tables",
        )
    return {name: event_time for name, event_time in there.items() if not tables or name in tables}


def _matcher(
    spec: UseCase, loaded: dict[str, Table], before_run: str | None, before_snapshot: int | None
) -> tuple[Callable[[Publication], bool], str]:
    """Which publications are the run's, and how it is called."""
    if before_snapshot is not None:
        for table in loaded.values():
            for head in (None, *(kept for _, kept in undone(table))):
                for item in publications(table, head):
                    if item.snapshot_id == before_snapshot and item.publication:
                        return partial(_is_of, item.publication), (
                            f"{BY_HAND} (snapshot {before_snapshot})"
                            if item.run_id == BY_HAND
                            else item.run_id
                        )
        raise HistoryError(
            expected=f"a snapshot {before_snapshot} by which a run published to {', '.join(loaded)}",
            found="none",
            next_step="list them: python -m airloop.lakehouse.history --table <table>",
        )
    if not before_run or before_run == BY_HAND:
        raise HistoryError(
            expected="the run to go back before, as <dag_id>/<run_id>",
            found=repr(before_run),
            next_step="name a run, or for work done by hand a snapshot that it published (--before-snapshot)",
        )
    run_id = before_run if "/" in before_run else f"{spec.name}_features/{before_run}"
    return lambda other: other.run_id == run_id, run_id


def _is_of(publication: str, other: Publication) -> bool:
    return other.publication == publication


def _step(
    table: Table,
    event_time: str | None,
    matches: Callable[[Publication], bool],
    interval: Interval | None,
    run_id: str,
) -> Step | None:
    """What is to be done to `table`; None when the run published nothing to it."""
    main = table.snapshot_by_name(MAIN_BRANCH)
    assert main is not None  # every table is made with one
    heads = [main, *(kept for name, kept in undone(table) if name.startswith(_tag(run_id)))]
    for head in heads if interval is None else heads[:1]:
        found = publications(table, head)
        ours = [place for place, item in enumerate(found) if matches(item)]
        if not ours:
            continue
        first = found[ours[-1]]
        target = table.snapshot_by_id(first.before) if first.before is not None else None
        if target is None:
            raise HistoryError(
                expected=f"the snapshot of {first.table} from before {run_id}",
                found="none; it expired",
                next_step="have the source deliver the days again and run the features DAG over them",
            )
        return Step(table, event_time, head, tuple(found[: ours[-1] + 1]), target, head is not main)
    return None


def _set_back(
    spec: UseCase, step: Step, matches: Callable[[Publication], bool], run_id: str, days: Interval
) -> bool:
    """Point `main` at the target, and a tag at what it was, in one commit; whether anything moved."""
    if step.done:
        return False
    main = step.table.snapshot_by_name(MAIN_BRANCH)
    now = publications(step.table)
    if main is None or tuple(now[: len(step.undone)]) != step.undone:
        raise PublishError(
            expected=f"{'.'.join(step.table.name())} to be as it was when the rollback was planned",
            found="another publication meanwhile",
            next_step="run the rollback again: it lists that run too, and completes what is left",
        )
    kept_for = timedelta(days=spec.retention.branches_days)
    tag = f"{_tag(run_id)}_{main.snapshot_id}"
    step.table.manage_snapshots().create_tag(
        main.snapshot_id, tag, max_ref_age_ms=int(kept_for.total_seconds() * 1000)
    ).set_current_snapshot(snapshot_id=step.target.snapshot_id).commit()
    return True


def _restore(
    spec: UseCase, step: Step, matches: Callable[[Publication], bool], run_id: str, days: Interval
) -> bool:
    """Bring the rows of `days` back as they were at the target; whether that was not so already."""
    for item in publications(step.table):
        if item.restored_from == step.target.snapshot_id and item.interval == days:
            return False
        if item.interval is None or _overlap(item.interval, days):
            break
    properties = {
        **signature(spec.name, days),
        ROLLED_BACK: run_id,
        RESTORED_FROM: str(step.target.snapshot_id),
        CHANGED_DAYS: json_text([f"{days.start + n * ONE_DAY:%Y-%m-%d}" for n in range(days.days)]),
    }
    replace_interval(step.table, step.target, step.event_time, days, properties)
    return True


def _tag(run_id: str) -> str:
    """The start of the tags that keep what was undone of the run: readable, and short enough for a name."""
    readable = re.sub(r"[^A-Za-z0-9]+", "_", run_id)[:60]
    return f"{UNDONE_TAG}{readable}_{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"


def _spanned(published: Sequence[Publication]) -> Interval:
    """The days from the first to the last of what was published."""
    spans = [item.interval for item in published if item.interval is not None]
    return Interval(min(span.start for span in spans), max(span.end for span in spans))


def _overlap(one: Interval, other: Interval) -> bool:
    return one.start < other.end and other.start < one.end


def _touches(item: Publication, interval: Interval | None) -> bool:
    return interval is None or item.interval is None or _overlap(item.interval, interval)


def _described(item: Publication, days: Interval) -> UndonePublication:
    span = item.interval or days
    return UndonePublication(
        table=item.table,
        run_id=item.run_id,
        start=span.start.isoformat(),
        end=span.end.isoformat(),
        snapshot_id=item.snapshot_id,
    )


def _result(step: Step, dry_run: bool) -> TableSnapshot:
    live = step.table.snapshot_by_name(MAIN_BRANCH)
    snapshot = step.target if dry_run or live is None else live
    return TableSnapshot(table=".".join(step.table.name()), snapshot_id=snapshot.snapshot_id, rows=0)


def _known(loaded: dict[str, Table]) -> str:
    runs = [item.run_id for table in loaded.values() for item in publications(table)]
    return ", ".join(list(dict.fromkeys(runs))[:RUNS_SHOWN])


def _said(outcome: RolledBack) -> str:
    """The outcome for a person, as the task's log shows it."""
    verb = "would undo" if outcome.dry_run else "undid" if outcome.changed else "had undone before"
    lines = [f"going back before {outcome.before_run} {verb}:"]
    lines += [
        f"  {item.table}: {item.start} to {item.end}, published by {item.run_id}" for item in outcome.undone
    ]
    lines.append(f"features of {outcome.start} to {outcome.end} must be built again; built since:")
    lines += [f"  {item.table}: {item.start} to {item.end}" for item in outcome.features] or ["  none"]
    lines.append(f"training sets built since: {', '.join(outcome.training_sets) or 'none'}")
    models = [f"{m.name} {m.version} ({', '.join(m.aliases) or 'no alias'})" for m in outcome.models]
    lines.append(f"models trained on them: {', '.join(models) or 'none found'}")
    return "\n".join([*lines, *(f"note: {note}" for note in outcome.notes)])


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"true or false, not {text!r}")
    return text.lower() == "true"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = argparse.ArgumentParser(description="Set clean tables back to before a run.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--before-run", help="<dag_id>/<run_id>, or the run id of the features DAG")
    which.add_argument("--before-snapshot", type=int, help="instead: a snapshot that the run published")
    parser.add_argument("--start", help="only the rows from this day on, ISO 8601, UTC")
    parser.add_argument("--end", help="day after the last one; by default one day")
    parser.add_argument("--tables", default="", help="only these, comma-separated")
    parser.add_argument(
        "--dry-run", nargs="?", const=True, default=False, type=_flag, help="only say what follows"
    )

    def work(arguments: argparse.Namespace, settings: Settings) -> RolledBack:
        interval = None
        if arguments.start or arguments.end:
            start = parse_instant(arguments.start or "")
            end = parse_instant(arguments.end) if arguments.end else start + ONE_DAY
            interval = require_whole_days(make_interval(start, end))
        outcome = roll_back(
            use_case(arguments.use_case),
            settings,
            before_run=arguments.before_run,
            before_snapshot=arguments.before_snapshot,
            interval=interval,
            tables=[name.strip() for name in arguments.tables.split(",") if name.strip()],
            dry_run=arguments.dry_run,
        )
        print(_said(outcome), file=sys.stderr, flush=True)
        return outcome

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
