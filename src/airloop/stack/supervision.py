"""The stack's supervisord: its config, its start and end, and the state of each program.

Belongs here: talking to supervisord, and ending what it started. Does not belong here: what the programs are.
"""

from __future__ import annotations

import configparser
import io
import os
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import psutil
from supervisor.xmlrpc import SupervisorTransport

from airloop.errors import StackError
from airloop.settings import Settings
from airloop.stack.programs import Program
from airloop.whole_files import write_whole

LONGEST_SOCKET_PATH = 100
"""Linux takes 107 bytes for a Unix socket's path; supervisord adds its process id while it binds."""
STOP_SECONDS = 30


class ProgramState(NamedTuple):
    """What supervisord says of a program."""

    name: str
    state: str
    """`RUNNING`, `STARTING`, `STOPPED`, `BACKOFF`, `EXITED` or `FATAL`."""
    pid: int
    uptime_seconds: float


def socket_path(settings: Settings) -> Path:
    """supervisord's socket; raises `StackError` when its path is longer than a socket's may be."""
    path = settings.state_dir / "run" / "supervisor.sock"
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise StackError(
            expected=f"a state folder whose socket path has at most {LONGEST_SOCKET_PATH} bytes",
            found=f"{path}, {len(os.fsencode(path))} bytes",
            next_step="clone to a shorter path, or set AIRLOOP_STATE_DIR to one",
        )
    return path


def config(settings: Settings, programs: Iterable[Program]) -> str:
    """supervisord's config file."""
    socket, logs = socket_path(settings), settings.state_dir / "logs"
    run = socket.parent
    parser = configparser.RawConfigParser()
    parser.read_dict(
        {
            "unix_http_server": {"file": str(socket), "chmod": "0700"},
            "supervisord": {
                "logfile": str(logs / "supervisord.log"),
                "pidfile": str(run / "supervisord.pid"),
                "childlogdir": str(logs),
                "directory": str(settings.repository),
            },
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
            **{
                f"program:{program.name}": {
                    # supervisord expands %(name)s and splits like a shell.
                    "command": " ".join(f'"{part}"' for part in program.command).replace("%", "%%"),
                    "autostart": str(not program.needs_airflow_database).lower(),
                    "autorestart": "true",
                    "startsecs": "2",
                    "stopwaitsecs": str(STOP_SECONDS),
                    "stopasgroup": "true",
                    "killasgroup": "true",
                    "redirect_stderr": "true",
                    "stdout_logfile": str(log_file(settings, program.name)),
                    "stdout_logfile_maxbytes": "20MB",
                    "stdout_logfile_backups": "1",
                }
                for program in programs
            },
        }
    )
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def log_file(settings: Settings, name: str) -> Path:
    """Where the output of the program `name` goes."""
    return settings.state_dir / "logs" / f"{name}.log"


def start(settings: Settings, programs: Iterable[Program], environment: Mapping[str, str]) -> None:
    """Start supervisord in the background; it starts the programs that need no database.

    Raises `StackError` when it does not come up.
    """
    run = socket_path(settings).parent
    for folder in (run, settings.state_dir / "logs", settings.state_dir / "home", settings.state_dir / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    file = run / "supervisord.conf"
    write_whole(file, config(settings, programs))
    command = [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(file)]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)  # noqa: S603 - our own program, no shell
    for _ in range(100):
        if is_up(settings):
            return
        time.sleep(0.1)
    raise StackError(
        expected="supervisord to answer within 10 seconds",
        found=(done.stdout + done.stderr).strip()[-500:] or "no answer",
        next_step=f"read {settings.state_dir / 'logs' / 'supervisord.log'}",
    )


def start_program(settings: Settings, name: str) -> None:
    """Start the program `name` without waiting for it."""
    _supervisor(settings).startProcess(name, False)


def is_up(settings: Settings) -> bool:
    """Whether this state folder's supervisord answers."""
    try:
        _supervisor(settings).getState()
    except (OSError, xmlrpc.client.Error):
        return False
    return True


def states(settings: Settings) -> dict[str, ProgramState]:
    """Each program's state by name; nothing when supervisord is down."""
    if not is_up(settings):
        return {}
    return {
        info["name"]: ProgramState(
            info["name"], info["statename"], info["pid"], max(0, info["now"] - info["start"])
        )
        for info in cast(list[dict[str, Any]], _supervisor(settings).getAllProcessInfo())
    }


def stop(settings: Settings) -> None:
    """Stop supervisord and all that it started, and nothing else; returns when all of it has ended."""
    everything = set(descendants(settings))
    if is_up(settings):
        _supervisor(settings).shutdown()
    # supervisord asks each program to end, and kills it after `STOP_SECONDS`.
    psutil.wait_procs(everything, timeout=STOP_SECONDS + 10)
    left = {process for process in everything | set(descendants(settings)) if process.is_running()}
    for process in left:
        _signal(process, "terminate")
    _, alive = psutil.wait_procs(left, timeout=10)
    for process in alive:
        _signal(process, "kill")
    psutil.wait_procs(alive, timeout=10)


def descendants(settings: Settings) -> list[psutil.Process]:
    """This state folder's supervisord and every process that it started, directly or not.

    They are its children's children, and whatever bears the mark that supervisord puts into its children's
    environment: a job whose parent died belongs to no tree, and a process that has changed its title (as
    Airflow's do) has overwritten its environment, so neither way finds all.
    """
    mark = f"unix://{socket_path(settings)}"
    roots = [psutil.Process(_supervisor(settings).getPID())] if is_up(settings) else []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SUPERVISOR_SERVER_URL") == mark:
                roots.append(process)
        except psutil.Error:
            continue
    found = set(roots)
    for root in roots:
        try:
            found.update(root.children(recursive=True))
        except psutil.NoSuchProcess:
            continue
    return list(found)


def _signal(process: psutil.Process, name: str) -> None:
    try:
        getattr(process, name)()
    except psutil.NoSuchProcess:
        return


def _supervisor(settings: Settings) -> Any:
    # The host is not used: the transport talks to the socket.
    transport = SupervisorTransport(None, None, f"unix://{socket_path(settings)}")
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor
