"""Kills and cuts the cluster's services while runs are under way: `python -m tests.faults.survival.services`.

Belongs here: which fault meets which task, what is waited for, what must be equal afterwards. Does not belong
here: how a container is killed or cut (`tests.cluster.podman`), or what is compared (`contents`).

The days of a features run are run once undisturbed; then, for each group of faults, the tables go back to
where they were and the same days are run again, disturbed. A training is compared with the cluster's first.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from airloop.errors import StackError
from airloop.stack.airflow_api import AirflowApi, TaskInstance
from tests.cluster.__main__ import WINDOWS, airflow_of, loop, make_cluster
from tests.cluster.podman import Cluster, ClusterError, podman
from tests.faults.survival.clients import Clients
from tests.faults.survival.outcomes import Outcome, markdown_of, summary_of, table_of

USE_CASE = "flight_delay"
DAYS = {"start_date": "2013-08-05", "end_date": "2013-08-07"}
"""Two days that no other run's features look back on."""
CUT_SECONDS = 45
SKEW = "+30m"
"""More than the quarter of an hour that S3 allows, less than the hour that Airflow's tokens hold."""
DISK_MIB = 3000
OVER = ("success", "failed")
MEASURED = ("accepted", "test_roc_auc", "test_log_loss", "baseline_roc_auc", "failed")
STREAM = "airport_kafka"
STREAMED = ("2013-07-01", "2013-07-02")
RUN_SECONDS = 3000
WELL_SECONDS = 600


@dataclass
class Fault:
    """Something that happens to a service while a task runs."""

    name: str
    task: str
    strike: Callable[[Cluster], None]
    services: tuple[str, ...]
    """Must be healthy again."""
    heal: Callable[[Cluster], None] | None = None
    """What a person, or time, puts right."""
    heal_after_seconds: float = 0.0
    heal_when_failed: bool = False
    """Only after the task failed a first time."""
    struck_at: float | None = None
    struck_after_seconds: float = 0.0
    """Of the task."""
    healed: bool = field(default=False)


def killed(service: str, task: str) -> Fault:
    """SIGKILL to `service` while `task` runs."""
    return Fault(f"{service} killed", task, lambda cluster: cluster.kill(service), (service,))


def cut(service: str, task: str) -> Fault:
    """No packet to or from `service` for a while."""
    return Fault(
        f"network of {service} cut for {CUT_SECONDS} s",
        task,
        lambda cluster: cluster.cut(service),
        (service,),
        heal=lambda cluster: cluster.mend(service),
        heal_after_seconds=CUT_SECONDS,
    )


class Run:
    """One DAG run, watched, with faults that strike as their tasks run."""

    def __init__(self, cluster: Cluster, api: AirflowApi, console: Console, seed: int) -> None:
        self.cluster, self.api, self.console = cluster, api, console
        self.random = random.Random(seed)

    def through(
        self, dag_id: str, run_id: str, conf: dict[str, Any], faults: Sequence[Fault] = ()
    ) -> tuple[str, list[TaskInstance], list[Outcome]]:
        """The run's final state, its tasks, and what became of each fault.

        Raises `ClusterError` when the run is not over in time.
        """
        if self.api.run(dag_id, run_id) is None:
            self.api.trigger(dag_id, run_id, conf)
        delays = {fault.name: self.random.uniform(2, 15) for fault in faults}
        outcomes: dict[str, Outcome] = {}
        told: dict[str, str] = {}
        deadline = time.monotonic() + RUN_SECONDS
        while True:
            if time.monotonic() > deadline:
                raise ClusterError(f"{dag_id} {run_id} is not over after {RUN_SECONDS} s")
            time.sleep(1)
            for fault in faults:
                self._heal_by_time(fault)
            try:
                run = self.api.run(dag_id, run_id)
                tasks = {task.task_id: task for task in self.api.tasks(dag_id, run_id)}
            except (StackError, httpx.HTTPError) as error:
                self.console.print(f"  Airflow's API does not answer: {type(error).__name__}")
                continue
            for task in tasks.values():
                shown = f"{task.state} (try {task.try_number})"
                if task.state and told.get(task.task_id) != shown:
                    self.console.print(f"  {dag_id}.{task.task_id} {shown} {task.seconds:.0f} s")
                    told[task.task_id] = shown
            for fault in faults:
                task = tasks[fault.task]
                under_way = task.state in ("running", "deferred") and task.seconds > delays[fault.name]
                if fault.struck_at is None and under_way:
                    self.console.print(f"[bold]{fault.name}[/] after {task.seconds:.1f} s of {fault.task}")
                    fault.strike(self.cluster)
                    fault.struck_at = time.monotonic()
                    fault.struck_after_seconds = round(task.seconds, 1)
                elif fault.struck_at is not None and fault.name not in outcomes:
                    if fault.heal_when_failed and not fault.healed and task.state == "up_for_retry":
                        self._heal(fault)
                    if task.state in (*OVER, "upstream_failed") and self._is_well(fault):
                        outcomes[fault.name] = Outcome(
                            fault=fault.name,
                            subject=f"{dag_id}.{fault.task}",
                            outcome="survived" if task.state == "success" else "stopped",
                            killed_after_seconds=fault.struck_after_seconds,
                            recovered_seconds=round(time.monotonic() - fault.struck_at, 1),
                            tries=task.try_number,
                        )
            if run is not None and run.state in OVER and all(self._is_well(f) for f in faults):
                for fault in faults:
                    if fault.struck_at is None:
                        outcomes[fault.name] = Outcome(fault.name, f"{dag_id}.{fault.task}", "not hit")
                self.console.print(f"{dag_id} {run_id}: {run.state}")
                return (
                    run.state,
                    list(tasks.values()),
                    [outcomes[f.name] for f in faults if f.name in outcomes],
                )

    def _heal_by_time(self, fault: Fault) -> None:
        due = fault.struck_at is not None and time.monotonic() - fault.struck_at >= fault.heal_after_seconds
        if due and fault.heal and not fault.healed and not fault.heal_when_failed:
            self._heal(fault)

    def _heal(self, fault: Fault) -> None:
        assert fault.heal is not None
        fault.heal(self.cluster)
        fault.healed = True
        self.console.print(f"{fault.name}: over")

    def _is_well(self, fault: Fault) -> bool:
        if fault.struck_at is None:
            return True
        if fault.heal is not None and not fault.healed:
            return False
        return all(self.cluster.is_healthy(service) for service in fault.services)


def contents(cluster: Cluster, what: str, given: str | None = None) -> Any:
    """See `contents`."""
    command = ("python", "-m", "tests.faults.survival.contents", what)
    return json.loads(cluster.execute("worker-data", *command, given=given).strip().splitlines()[-1])


def wait_until_well(cluster: Cluster, *services: str) -> None:
    """Raises `ClusterError` when one is not healthy in time."""
    deadline = time.monotonic() + WELL_SECONDS
    for service in services:
        while not (cluster.is_running(service) and cluster.is_healthy(service)):
            if time.monotonic() > deadline:
                raise ClusterError(f"{service} is not healthy:\n{cluster.logs(service)[-1500:]}")
            time.sleep(1)


def fill(cluster: Cluster) -> None:
    """Leave no byte free where the S3 server keeps objects."""
    place = cluster.volume("s3")
    free = int(subprocess.check_output(["df", "--output=avail", "--block-size=1", str(place)]).split()[-1])
    subprocess.run(["fallocate", "--length", str(free), str(place / ".filler")], check=True)


def free(cluster: Cluster) -> None:
    """What on-call does then: make room."""
    (cluster.volume("s3") / ".filler").unlink()


def small_disk(cluster: Cluster) -> None:
    """Have the S3 server keep its objects on a disk of `DISK_MIB`."""
    place = cluster.volume("s3")
    if place.is_mount():
        return
    cluster.stop("s3")
    aside, image = place.with_name("s3-aside"), place.with_name("s3.img")
    place.rename(aside)
    place.mkdir()
    subprocess.run(["truncate", "--size", f"{DISK_MIB}M", str(image)], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    subprocess.run(["cp", "--archive", "--", f"{aside}/.", str(place)], check=True)
    cluster.start("s3")
    wait_until_well(cluster, "s3")


def second_scheduler(cluster: Cluster) -> None:
    """One more of them, on the same database."""
    cluster.start("airflow-scheduler", named="airflow-scheduler-2")


def restarted(cluster: Cluster, service: str, extra: dict[str, str] | None = None) -> None:
    """`service` in a new container, with `extra` in its environment."""
    cluster.stop(service)
    cluster.start(service, extra=extra)
    wait_until_well(cluster, service)


def skewed(skew: str) -> dict[str, str]:
    """Variables that have a container's clock be wrong."""
    (library,) = Path("/usr/lib").glob("*-linux-gnu/faketime/libfaketimeMT.so.1")
    return {"LD_PRELOAD": str(library), "FAKETIME": skew, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


FEATURES_FAULTS = {
    "first": lambda: [
        killed("worker-data", "ingest"),
        killed("spark-worker-1", "clean"),
        killed("s3", "audit"),
        killed("postgres", "features"),
        killed("redis", "materialise"),
    ],
    "second": lambda: [
        killed("airflow-scheduler", "ingest"),
        killed("broker", "clean"),
        killed("airflow-api-server", "audit"),
        cut("worker-data", "features"),
        Fault(
            "two schedulers",
            "materialise",
            second_scheduler,
            (),
            heal=lambda cluster: cluster.stop("airflow-scheduler-2"),
            heal_after_seconds=60,
        ),
    ],
    "third": lambda: [
        killed("airflow-dag-processor", "ingest"),
        Fault("disk of s3 full", "clean", fill, ("s3",), heal=free, heal_when_failed=True),
        killed("spark-master", "features"),
    ],
}
"""By group; a group is one run."""


def lost(outcomes: Sequence[Outcome], why: str) -> list[Outcome]:
    """All of a run's faults, where what they left is not right: which of them did it is not known."""
    return [dataclasses.replace(item, outcome="lost", why=why) for item in outcomes]


GROUPS = ("rollout", "training", *FEATURES_FAULTS, "skew", "stream")


def features(run: Run, groups: Sequence[str]) -> tuple[list[Outcome], dict[str, float]]:
    """`groups` of `FEATURES_FAULTS`, each over the same days; and the undisturbed run's seconds."""
    cluster, dag_id = run.cluster, f"{USE_CASE}_features"
    # As an hour ends it lands the day so far, and pushes it online: in one run, and not in another.
    run.api.pause(f"{USE_CASE}_push")
    before = contents(cluster, "snapshots")

    def again(name: str, faults: Sequence[Fault]) -> tuple[dict[str, Any], list[TaskInstance], list[Outcome]]:
        contents(cluster, "reset", json.dumps(before))
        if contents(cluster, "snapshots") != before:
            raise ClusterError("the tables are not where they were before the days were run")
        state, tasks, outcomes = run.through(dag_id, run_id(name), DAYS, faults)
        if state != "success":
            outcomes = lost(outcomes, f"the run ended {state}")
        return contents(cluster, "digest"), tasks, outcomes

    reference, undisturbed, _ = again("undisturbed", ())
    found: list[Outcome] = []
    for name in groups:
        if name == "skew":
            restarted(cluster, "worker-data", skewed(SKEW))
            started = time.monotonic()
            held, tasks, _ = again(name, ())
            seconds = round(time.monotonic() - started, 1)
            restarted(cluster, "worker-data")
            tries = max(task.try_number for task in tasks)
            states = {task.state for task in tasks}
            well = states <= {"success", "skipped"}
            outcomes = [
                Outcome(
                    f"clock of worker-data {SKEW} ahead",
                    f"{dag_id}, all of it",
                    "survived" if well else "lost",
                    recovered_seconds=seconds,
                    tries=tries,
                )
            ]
        else:
            if name == "third":
                small_disk(cluster)
            held, _, outcomes = again(name, FEATURES_FAULTS[name]())
        different = [table for table in reference if held.get(table) != reference[table]]
        if different:
            outcomes = lost(outcomes, "other rows in " + ", ".join(different))
        found += outcomes
        for item in outcomes:
            run.console.print(item)
    return found, {task.task_id: round(task.seconds, 1) for task in undisturbed}


def training(run: Run) -> list[Outcome]:
    """The cluster's first training again, disturbed: its candidate must measure the same."""
    dag_id = f"{USE_CASE}_training"
    first = next(item for item in run.api.newest_runs(dag_id) if item.run_id.startswith("make_run__"))
    conf = {"as_of": first.run_id.split("__")[1], **WINDOWS.given}
    name = run_id("training")
    state, _, outcomes = run.through(
        dag_id, name, conf, [killed("mlflow", "train"), killed("worker-model", "evaluate")]
    )
    if state != "success":
        return lost(outcomes, f"the run ended {state}")
    measured = [
        {key: run.api.result(dag_id, one, "evaluate")[key] for key in MEASURED}
        for one in (first.run_id, name)
    ]
    run.console.print(f"undisturbed and disturbed: {measured}")
    return outcomes if measured[0] == measured[1] else lost(outcomes, f"measured {measured}")


def rollout(run: Run) -> list[Outcome]:
    """The champion's rollout again, with requests all the while: none may go unanswered."""
    dag_id = f"{USE_CASE}_rollout"
    champion = run.api.result(dag_id, run.api.newest_runs(dag_id)[-1].run_id, "infra_check")["version"]
    clients = Clients(run.cluster, USE_CASE)
    with clients:
        state, _, outcomes = run.through(
            dag_id,
            run_id("rollout"),
            {"version": champion, "bake_minutes": 1, "reason": "survival"},
            [
                killed("model-server-1", "infra_check"),
                killed("gateway-1", "promote"),
                killed("airflow-triggerer", "watch"),
            ],
        )
    run.console.print(f"requests meanwhile: {dict(clients.answers)}")
    if state != "success":
        return lost(outcomes, f"the run ended {state}")
    if set(clients.answers) != {f"version {champion}"}:
        return lost(outcomes, f"requests: {dict(clients.answers)}")
    return outcomes


def stream(run: Run) -> list[Outcome]:
    """What is published to Kafka lands once, though the broker is killed while it is read."""
    publish = ("--use-case", USE_CASE, "--stream", STREAM, "--start", STREAMED[0], "--end", STREAMED[1])
    command = ("python", "-m", "airloop.sources.publish_replay", *publish, "--speed", "0")
    printed = run.cluster.execute("worker-data", *command).strip().splitlines()[-1]
    sent = json.loads(printed)["messages"]
    run.api.unpause("stream_ingest")
    task = f"{USE_CASE}_{STREAM}"
    state, _, outcomes = run.through("stream_ingest", run_id("stream"), {}, [killed("kafka", task)])
    landed = contents(run.cluster, "streamed", STREAM)
    run.console.print(f"sent {sent}, landed (rows, places) {landed}")
    if state != "success" or any(landed[feed] != [count, count] for feed, count in sent.items()):
        return lost(outcomes, f"the run ended {state}; sent {sent}, landed {landed}")
    return outcomes


def run_id(name: str) -> str:
    """Of a run of this test's own."""
    return f"survival__{name}__{datetime.now(UTC):%Y%m%dT%H%M%S}"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 0 when nothing was lost and every fault struck."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.survival.services", description=__doc__)
    parser.add_argument("--again", action="store_true", help="on what `tests.cluster --keep` left running")
    parser.add_argument("--keep", action="store_true", help="leave it running")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--table", type=Path, help="where to write the table")
    parser.add_argument("--groups", nargs="*", choices=GROUPS, default=GROUPS)
    flags = parser.parse_args(argv)
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
    cluster = make_cluster(console)
    started = time.monotonic()
    outcomes: list[Outcome] = []
    undisturbed: dict[str, float] = {}
    try:
        if not flags.again:
            cluster.down(volumes=True)
        cluster.up()
        if not flags.again:
            loop(cluster, USE_CASE, console)
        with airflow_of(cluster) as api:
            run = Run(cluster, api, console, flags.seed)
            if {"rollout"} & set(flags.groups):
                outcomes += rollout(run)
            if {"training"} & set(flags.groups):
                outcomes += training(run)
            of_features = [name for name in flags.groups if name in (*FEATURES_FAULTS, "skew")]
            if of_features:
                found, undisturbed = features(run, of_features)
                outcomes += found
            if {"stream"} & set(flags.groups):
                outcomes += stream(run)
    finally:
        if not flags.keep:
            subprocess.run(["umount", str(cluster.volume("s3"))], check=False, capture_output=True)
            podman("rm", "--force", "--time", "2", cluster.container("airflow-scheduler-2"), check=False)
            cluster.down(volumes=True)
    summary = summary_of(
        outcomes,
        seed=flags.seed,
        undisturbed_seconds=undisturbed,
        seconds=round(time.monotonic() - started),
    )
    console.print(table_of(outcomes))
    if flags.table is not None:
        flags.table.write_text(markdown_of(outcomes, {}, json.dumps(summary)), encoding="utf-8")
    print(json.dumps(summary))
    return 0 if outcomes and not summary["lost"] and not summary["not_hit"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
