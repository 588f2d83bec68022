"""Runs docker-compose.yaml's services by podman, on this machine's own programs in place of images.

Belongs here: what a service of the file means to podman, starting, asking for health, removing. Does
not belong here: the root that stands in for an image (`root`), or what is done on the cluster (`__main__`).

Of the file this honours: entrypoint, command, user, environment, secrets (mounted as files), volumes, tmpfs,
read_only, cap_drop, security_opt, mem_limit, ports, hostname, aliases, restart, healthcheck, depends_on. This
program asks for health at its own pace: podman asks by itself only where systemd runs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import root

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE = REPOSITORY / "docker-compose.yaml"
NOT_RUN = {
    "grafana": "no package of it is to be had without its registry",
    "otel-collector": "no package of it is to be had without its registry",
}
"""Services that have no stand-in, and why."""
_VARIABLE = re.compile(r"\$\$|\$\{([A-Z0-9_]+):-([^}]*)\}")
_CONF = """[containers]
default_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]
log_driver = "k8s-file"
[engine]
events_logger = "file"
cgroup_manager = "cgroupfs"
runtime = "runc"
"""


class ClusterError(Exception):
    """The cluster did not come up, with the end of the log that says why."""


@dataclass
class Cluster:
    """The services of docker-compose.yaml under a name of their own."""

    name: str
    secrets: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    """Values for the file's variables, such as AIRLOOP_AIRFLOW_PORT."""
    document: dict[str, Any] = field(default_factory=lambda: yaml.safe_load(COMPOSE.read_text("utf-8")))
    tell: Callable[[str], None] = print

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        """Those that are run."""
        return {name: s for name, s in self.document["services"].items() if name not in NOT_RUN}

    def up(self, only: Iterable[str] | None = None, timeout_seconds: float = 900) -> dict[str, float]:
        """Start every service when what it depends on is ready; the seconds that each took to be healthy."""
        wanted = list(self.services if only is None else only)
        podman("network", "create", self.name, check=False)
        taken: dict[str, float] = {}
        started: dict[str, float] = {}
        ask_again: dict[str, float] = {}
        deadline = time.monotonic() + timeout_seconds
        while len(taken) < len(wanted):
            for name in wanted:
                needed = self.services[name].get("depends_on", {})
                if name not in started and all(other in taken for other in needed if other in wanted):
                    if not self.is_running(name):
                        self.start(name)
                    started[name] = time.monotonic()
                if name not in started or name in taken or time.monotonic() < ask_again.get(name, 0):
                    continue
                asked = time.monotonic()
                if self.is_ready(name):
                    taken[name] = round(time.monotonic() - started[name], 1)
                    self.tell(f"{name}: ready after {taken[name]} s")
                # Some checks start a Python that imports Airflow: asking must not keep it from starting.
                ask_again[name] = time.monotonic() + max(1.0, 3 * (time.monotonic() - asked))
            if time.monotonic() > deadline:
                waiting = sorted(set(started) - set(taken))
                logs = "\n".join(f"--- {name}\n{self.logs(name)[-1500:]}" for name in waiting)
                raise ClusterError(f"not ready after {timeout_seconds:g} s: {', '.join(waiting)}\n{logs}")
            time.sleep(0.5)
        return taken

    def start(self, name: str, *, named: str | None = None, extra: Mapping[str, str] | None = None) -> None:
        """Start one service's container, in place of one that is there.

        `named` is another name for one more of its kind, `extra` are further variables.
        """
        service = self.services[name]
        known = named or name
        arguments = ["run", "--detach", "--replace", "--name", self.container(known), "--network", self.name]
        arguments += ["--network-alias", known, "--hostname", service.get("hostname", known)]
        for alias in service.get("networks", {}).get("default", {}).get("aliases", ()):
            arguments += ["--network-alias", alias]
        if service.get("read_only"):
            arguments += ["--read-only", "--read-only-tmpfs=false"]
        for place in service.get("tmpfs", ()):
            path, _, options = place.partition(":")
            arguments += ["--tmpfs", f"{path}:{options or 'mode=1777'}"]
        for dropped in service.get("cap_drop", ()):
            arguments += ["--cap-drop", dropped.lower()]
        for option in service.get("security_opt", ()):
            arguments += ["--security-opt", option.removesuffix(":true")]
        for key, flag in (("user", "--user"), ("mem_limit", "--memory"), ("restart", "--restart")):
            if service.get(key):
                arguments += [flag, str(service[key])]
        environment = {**root.environment(service), **service.get("environment", {}), **(extra or {})}
        for key, value in environment.items():
            arguments += ["--env", f"{key}={self._interpolated(str(value))}"]
        # The mount points are made in there, and not in the root that all services share.
        arguments += ["--tmpfs", "/run/secrets:mode=755,notmpcopyup"]
        for secret in service.get("secrets", ()):
            arguments += ["--volume", f"{self.secrets / secret}:/run/secrets/{secret}:ro"]
        for volume in service.get("volumes", ()):
            place, target, *mode = volume.split(":")
            source = REPOSITORY / place if place.startswith(".") else self._made(place, service)
            arguments += ["--volume", ":".join([str(source), target, *mode])]
        for port in service.get("ports", ()):
            arguments += ["--publish", self._interpolated(port)]
        for source, target in root.mounts():
            arguments += ["--volume", f"{source}:{target}:ro"]
        if "build" in service:
            arguments += ["--workdir", root.WORK, *(("--user", root.USER) if "user" not in service else ())]
        command = [self._interpolated(part) for part in _as_list(service.get("command"))]
        entrypoint = _as_list(service.get("entrypoint")) or root.entrypoint(service)
        podman(*arguments, "--rootfs", str(root.make(REPOSITORY)), *entrypoint, *command)

    def process(self, name: str) -> int:
        """Pid, on this machine, of the service's first process; 0 while it does not run."""
        return int(podman("inspect", self.container(name), "--format", "{{.State.Pid}}").strip())

    def kill(self, name: str) -> None:
        """SIGKILL to everything that the service runs; its restart policy is left to do what it does."""
        # Not `podman kill`: that is a person's wish, after which nothing is restarted.
        os.kill(self.process(name), signal.SIGKILL)

    def stop(self, name: str) -> None:
        """Remove the service's container; what it kept stays."""
        podman("rm", "--force", "--time", "2", self.container(name))

    def cut(self, name: str) -> None:
        """Have every packet to and from the service be lost, until `mend`."""
        for chain in ("INPUT", "OUTPUT"):
            self._in_network(
                name,
                "iptables",
                "--insert",
                chain,
                "!",
                "--in-interface" if chain == "INPUT" else "--out-interface",
                "lo",
                "--jump",
                "DROP",
            )

    def mend(self, name: str) -> None:
        """Undo `cut`."""
        self._in_network(name, "iptables", "--flush")

    def _in_network(self, name: str, *command: str) -> None:
        subprocess.run(["nsenter", "--target", str(self.process(name)), "--net", *command], check=True)

    def is_running(self, name: str) -> bool:
        """Whether the service's container runs, or has done what it does once."""
        found = podman("inspect", self.container(name), "--format", "{{json .State}}", check=False)
        state = json.loads(found) if found.strip() else {}
        once = self.services[name].get("restart") == "no" and state.get("ExitCode") == 0
        return bool(state) and (state["Status"] == "running" or (once and state["Status"] == "exited"))

    def is_ready(self, name: str) -> bool:
        """Whether the service is healthy, or has ended well where it runs once."""
        service = self.services[name]
        if service.get("restart") == "no":
            state = json.loads(podman("inspect", self.container(name), "--format", "{{json .State}}"))
            if state["Status"] == "exited" and state["ExitCode"] != 0:
                raise ClusterError(f"{name} ended with {state['ExitCode']}:\n{self.logs(name)[-1500:]}")
            return bool(state["Status"] == "exited")
        return self.is_healthy(name)

    def is_healthy(self, name: str) -> bool:
        """What the service's own health check says."""
        kind, *command = self.services[name]["healthcheck"]["test"]
        command = [self._interpolated(part) for part in command]
        if kind == "CMD-SHELL":
            command = ["sh", "-c", *command]
        try:
            done = subprocess.run(
                ["podman", "exec", self.container(name), *command],
                env=_environment(),
                capture_output=True,
                timeout=180,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def execute(self, name: str, *command: str, check: bool = True, given: str | None = None) -> str:
        """What `command` prints, run in the service's container with `given` on its standard input."""
        return podman("exec", "--interactive", self.container(name), *command, check=check, given=given)

    def logs(self, name: str) -> str:
        """What the service printed."""
        done = subprocess.run(
            ["podman", "logs", self.container(name)], env=_environment(), capture_output=True, check=False
        )
        return (done.stdout + done.stderr).decode("utf-8", "replace")

    def down(self, volumes: bool = False) -> None:
        """Remove every container, and with `volumes` what they kept."""
        for name in self.document["services"]:
            podman("rm", "--force", "--time", "2", self.container(name), check=False)
        if volumes:
            shutil.rmtree(self._volumes, ignore_errors=True)
        podman("network", "rm", "--force", self.name, check=False)

    def container(self, name: str) -> str:
        """The name of the service's container."""
        return f"{self.name}-{name}"

    @property
    def _volumes(self) -> Path:
        return REPOSITORY / ".airloop" / "cluster" / self.name

    def volume(self, name: str) -> Path:
        """The folder of a named volume."""
        return self._volumes / name

    def _made(self, name: str, service: Mapping[str, Any]) -> Path:
        """The folder of a named volume; a new one belongs to the user who first mounts it."""
        folder = self.volume(name)
        if not folder.exists():
            folder.mkdir(parents=True)
            user, _, group = str(service.get("user", root.USER)).partition(":")
            os.chown(folder, int(user), int(group or user))
        return folder

    def _interpolated(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            return "$" if match[0] == "$$" else self.environment.get(match[1], match[2])

        return _VARIABLE.sub(value, text)


def podman(*arguments: str, check: bool = True, given: str | None = None) -> str:
    """What podman prints; raises `ClusterError` with its words when it fails."""
    done = subprocess.run(
        ["podman", *arguments],
        env=_environment(),
        # Where a container that runs out of memory has a file `oom` left.
        cwd=REPOSITORY / ".airloop" / "cluster",
        input=given or "",
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        raise ClusterError(f"podman {' '.join(arguments[:6])} ...: {done.stderr.strip()}")
    return done.stdout


def _environment() -> dict[str, str]:
    file = REPOSITORY / ".airloop" / "cluster" / "containers.conf"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_CONF, encoding="utf-8")
    return {**os.environ, "CONTAINERS_CONF": str(file)}


def _as_list(value: Any) -> list[str]:
    return [] if value is None else [str(part) for part in value]
