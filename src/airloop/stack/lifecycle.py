"""Up, down, status, clean: the life of the stack as a whole.

Belongs here: the order of things and what is told about them. Does not belong here: the loop that runs on it.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from airloop.errors import StackError
from airloop.settings import Settings
from airloop.stack import supervision
from airloop.stack.ports import require_free
from airloop.stack.programs import (
    HOURLY_POOL,
    LOGIN,
    PARALLELISM,
    Program,
    airflow_command,
    airflow_home,
    environment,
    password,
    ports,
    programs,
)

START_SECONDS = 300
KEPT_BY_CLEAN = ("cache", "envs", "jars", "secrets", "stamps", "tools", "venv")
"""Parts of the state folder that are set-up, not data: `make clean` leaves them."""


def up(settings: Settings, console: Console) -> None:
    """Start what is not running, and wait until everything is well.

    Raises `StackError` for a taken port, a program that does not stay up, or one that is not well in time.
    """
    started, wanted = time.monotonic(), programs(settings)
    if not supervision.is_up(settings):
        require_free(settings.host, ports(settings))
        if not settings.model_config_file.exists():
            settings.model_config_file.parent.mkdir(parents=True, exist_ok=True)
            settings.model_config_file.write_text("model_config_list {}\n", encoding="utf-8")
        (settings.state_dir / "mlflow").mkdir(parents=True, exist_ok=True)
        password(settings)
        console.print("starting the stack")
        supervision.start(settings, wanted, environment(settings))
    states = supervision.states(settings)
    down = [p for p in wanted if states[p.name].state not in ("RUNNING", "STARTING")]
    if any(program.needs_airflow_database for program in down):
        _migrate(settings)
    for program in down:
        supervision.start_program(settings, program.name)
    _wait_until_well(settings, wanted, console)
    console.print(f"the stack is up ({time.monotonic() - started:.0f} s)")


def down(settings: Settings, console: Console) -> None:
    """Stop everything that `up` started, and only that."""
    was_up = bool(supervision.descendants(settings))
    supervision.stop(settings)
    console.print("the stack is down" if was_up else "the stack was not up")


def status(settings: Settings, console: Console) -> bool:
    """Print each program's state; returns whether everything is well."""
    states = supervision.states(settings)
    table = Table("program", "state", "pid", "up for", "address", "health")
    well = True
    for program in programs(settings):
        state = states.get(program.name)
        running = state is not None and state.state == "RUNNING"
        problem = _problem(program) if running else "not running"
        well = well and problem is None
        table.add_row(
            program.name,
            state.state if state else "DOWN",
            str(state.pid) if state and running else "",
            f"{state.uptime_seconds / 60:.0f} min" if state and running else "",
            _address(program),
            problem or "well",
        )
    console.print(table)
    return well


def clean(settings: Settings, console: Console) -> None:
    """Stop the stack, then remove all its data; the environment, the tools and the jars stay."""
    down(settings, console)
    removed = []
    for path in sorted(settings.state_dir.iterdir()) if settings.state_dir.exists() else []:
        if path.name in KEPT_BY_CLEAN:
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        removed.append(path.name)
    console.print(f"removed from {settings.state_dir}: {', '.join(removed) or 'nothing'}")


def addresses(settings: Settings) -> dict[str, str]:
    """Where a person finds what."""
    return {
        "airflow": settings.airflow_url,
        "gateway": f"{settings.gateway_url}/docs",
        "mlflow": settings.tracking_uri,
        "model_server_grpc": settings.model_server_address,
        "model_server_rest": f"http://{settings.host}:{settings.model_server_rest_port}",
    }


def login(settings: Settings) -> Mapping[str, str]:
    """The Airflow login."""
    return {"username": LOGIN, "password": password(settings)}


def _migrate(settings: Settings) -> None:
    """Create or upgrade Airflow's database, with the pool of what runs each hour."""
    log = settings.state_dir / "logs" / "airflow-db-migrate.log"
    airflow_home(settings).mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:

        def succeeds(*command: str) -> bool:
            done = subprocess.run(  # noqa: S603 - our own program, no shell
                [airflow_command(), *command],
                env=environment(settings),
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
            return done.returncode == 0

        made = succeeds("db", "migrate")
        # One that is there may have been made larger or smaller by a person.
        if made and not succeeds("pools", "get", HOURLY_POOL):
            said = "what runs each hour for every use case"
            made = succeeds("pools", "set", HOURLY_POOL, str(PARALLELISM // 2), said)
    if not made:
        raise StackError(
            expected="airflow db migrate to succeed, and the pool to be made",
            found=_tail(log),
            next_step=f"read {log}; `make clean` starts over with empty data",
        )


def _wait_until_well(settings: Settings, wanted: tuple[Program, ...], console: Console) -> None:
    waiting = {program.name: program for program in wanted}
    started = time.monotonic()
    while waiting:
        states = supervision.states(settings)
        for name, program in list(waiting.items()):
            log = supervision.log_file(settings, name)
            if states[name].state in ("FATAL", "BACKOFF", "EXITED"):
                raise StackError(
                    expected=f"{name} to stay up",
                    found=f"{states[name].state}: {_tail(log)}",
                    next_step=f"read {log}",
                )
            if states[name].state == "RUNNING" and _problem(program) is None:
                console.print(f"  {name:<22} well after {time.monotonic() - started:.0f} s")
                del waiting[name]
        if waiting and time.monotonic() - started > START_SECONDS:
            name, program = next(iter(waiting.items()))
            raise StackError(
                expected=f"all programs to be well within {START_SECONDS} s",
                found=f"not yet: {', '.join(waiting)}; {name}: {_problem(program)}",
                next_step=f"read {supervision.log_file(settings, name)}",
            )
        if waiting:
            time.sleep(0.5)


def _problem(program: Program, get: Callable[..., httpx.Response] = httpx.get) -> str | None:
    """Why the program is not well, or None when it is."""
    if program.health_url is None:
        return None
    try:
        # Whether it answers. Its certificate is for its clients, under whatever name they know it by.
        answer = get(program.health_url, timeout=5, verify=False)
    except httpx.TransportError as error:
        return f"{program.health_url}: {type(error).__name__}"
    return f"{program.health_url}: status {answer.status_code}" if answer.status_code >= 500 else None


def _address(program: Program) -> str:
    return "/".join(program.health_url.split("/")[:3]) if program.health_url else ""


def _tail(log: Path, characters: int = 600) -> str:
    return log.read_text("utf-8", errors="replace")[-characters:].strip() if log.exists() else "no log"
