"""The command line `python -m airloop.stack up|down|status|run|clean|airflow`, which the Makefile calls."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx
from rich.console import Console

from airloop.errors import EXIT_PERMANENT, AirloopError, StackError
from airloop.intervals import resolve_as_of
from airloop.settings import Settings, load_settings
from airloop.stack import lifecycle
from airloop.stack.airflow_api import AirflowApi
from airloop.stack.loop import LoopResult, Windows, run_loop
from airloop.stack.memory import PeakMemory
from airloop.stack.programs import LOGIN, airflow_command, environment, password
from airloop.stack.summary import StageTime, Summary, ask_gateway, figures_of, show
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.whole_files import write_whole


def run(settings: Settings, spec: UseCase, as_of: datetime, windows: Windows, console: Console) -> None:
    """Bring the stack up, run the loop of `spec`, and show the summary."""
    started = time.monotonic()
    lifecycle.up(settings, console)
    with (
        PeakMemory(settings) as memory,
        AirflowApi(settings.airflow_url, LOGIN, password(settings)) as api,
    ):
        result = run_loop(api, spec, as_of, console, windows)
    if result.scored is not None:
        version, curl, prediction = int(result.scored["version"]), "", dict(result.scored)
    else:
        version = _serving(settings, spec)
        curl, prediction = ask_gateway(settings, spec, as_of)
    figures = figures_of(settings, spec, version)
    summary = Summary(
        use_case=spec.name,
        as_of=f"{as_of:%Y-%m-%d}",
        total_seconds=round(time.monotonic() - started, 1),
        stages=tuple(StageTime(**stage._asdict()) for stage in result.stages),
        model_version=version,
        candidate_accepted=result.accepted,
        figures=figures,
        prediction=prediction,
        curl=curl,
        peak_memory_gib=round(memory.gib, 2),
        reused=not result.worked,
        addresses=lifecycle.addresses(settings),
    )
    show(_kept(settings, summary, result), lifecycle.login(settings), console)


def _serving(settings: Settings, spec: UseCase) -> int:
    """The version that the gateway answers with; raises `StackError` when nothing serves."""
    # What serves is asked of what serves, not of the registry.
    answer = httpx.get(f"{settings.gateway_url}/v1/{spec.name}", timeout=30)
    version = (answer.json().get("model") or {}).get("version") if answer.status_code == 200 else None
    if version is None:
        raise StackError(
            expected=f"a champion of {spec.name} to serve",
            found=f"none (the gateway answers {answer.status_code}: {answer.text[:200]})",
            next_step="read the verdict in MLflow if the gate rejected the candidate, else the rollout's log",
        )
    return int(version)


def _kept(settings: Settings, summary: Summary, result: LoopResult) -> Summary:
    """The summary, with the times and memory of the call that did the work if this one had none."""
    file = settings.reports_dir / summary.use_case / f"{result.training_run}.json"
    if result.worked:
        write_whole(file, summary.model_dump_json())
    elif file.exists():
        before = Summary.model_validate_json(file.read_text("utf-8"))
        kept = {name: getattr(before, name) for name in ("total_seconds", "peak_memory_gib")}
        return summary.model_copy(update=kept)
    return summary


def _show_failure(settings: Settings, console: Console) -> None:
    """The end of the newest task log, since the reason of a failed run is there."""
    logs = list((settings.state_dir / "airflow" / "logs").glob("dag_id=*/run_id=*/task_id=*/*.log"))
    if logs:
        newest: Path = max(logs, key=lambda path: path.stat().st_mtime)
        console.print(f"the end of {newest}:", soft_wrap=True, highlight=False)
        for line in map(_plain, newest.read_text("utf-8", errors="replace").splitlines()[-25:]):
            if line and not line.startswith("::"):
                console.print(f"  {line[:600]}", markup=False, highlight=False, soft_wrap=True)


def _plain(line: str) -> str:
    """A line of Airflow's task log, which is JSON, as a person would read it."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    errors = [f"{item['exc_type']}: {item['exc_value']}" for item in record.get("error_detail") or ()]
    return " ".join([str(record.get("event", line)), *errors])


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {text}")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, 1 when `status` finds something unwell, or `EXIT_PERMANENT`."""
    parser = argparse.ArgumentParser(prog="python -m airloop.stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down", "status", "clean"):
        commands.add_parser(name)
    loop = commands.add_parser("run", help="the whole loop of a use case")
    loop.add_argument("--use-case", default="flight_delay")
    loop.add_argument("--as-of", help="UTC midnight to look back from, ISO 8601; by default today's")
    for name in Windows._fields:
        loop.add_argument(f"--{name.replace('_', '-')}", type=_positive, help="instead of the spec's")
    cli = commands.add_parser("airflow", help="Airflow's own command line, on the stack's Airflow")
    cli.add_argument("arguments", nargs=argparse.REMAINDER, help="such as: dags list")
    flags = parser.parse_args(argv)
    # In a pipe or a log there is no width to fit into.
    width = None if sys.stdout.isatty() else 140
    console = Console(highlight=False, soft_wrap=True, width=width)
    settings = None
    try:
        settings = load_settings()
        if flags.command == "status":
            return 0 if lifecycle.status(settings, console) else 1
        if flags.command == "airflow":
            os.execve(airflow_command(), ["airflow", *flags.arguments], environment(settings))  # noqa: S606 - a program with its arguments, no shell
        if flags.command == "run":
            # The one reading of the clock: everything after it is given the date.
            as_of = resolve_as_of(as_of=flags.as_of, data_interval=None, run_after=datetime.now(UTC))
            windows = Windows(**{name: getattr(flags, name) for name in Windows._fields})
            run(settings, use_case(flags.use_case), as_of, windows, console)
            return 0
        {"up": lifecycle.up, "down": lifecycle.down, "clean": lifecycle.clean}[flags.command](
            settings, console
        )
        if flags.command == "up":
            _tell_addresses(settings, console)
    except AirloopError as error:
        if isinstance(error, StackError) and flags.command == "run" and settings is not None:
            _show_failure(settings, console)
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"{type(error).__name__}: {error}", markup=False
        )
        return EXIT_PERMANENT
    return 0


def _tell_addresses(settings: Settings, console: Console) -> None:
    for name, address in lifecycle.addresses(settings).items():
        console.print(f"  {name:<18} {address}")
    who = lifecycle.login(settings)
    console.print(f"  Airflow login      {who['username']} / {who['password']}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
