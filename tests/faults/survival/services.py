"""Kills and cuts the cluster's services while runs are under way: `python -m tests.faults.survival.services`.

Belongs here: which fault meets which task, and what must be right afterwards. Does not belong here: the
faults (`service_faults`), following a run (`disturbed_run`), or what is compared (`contents`).

The days of a features run are run once undisturbed; then, for each group of faults, the tables go back to
where they were and the same days are run again, disturbed. A training is compared with the cluster's first.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.cluster.__main__ import WINDOWS, airflow_of, loop, make_cluster
from tests.cluster.podman import Cluster, ClusterError
from tests.faults.survival.clients import Clients
from tests.faults.survival.disturbed_run import Ended, Watch
from tests.faults.survival.outcomes import Outcome, markdown_of, summary_of, table_of
from tests.faults.survival.service_faults import (
    SKEW,
    Fault,
    cut,
    full_disk,
    killed,
    leave_nothing,
    restart,
    second_scheduler,
    small_disk,
    wrong_clock,
)

USE_CASE = "flight_delay"
DAYS = {"start_date": "2013-08-05", "end_date": "2013-08-07"}
"""Two days that no other run's features look back on."""
MEASURED = ("accepted", "figures", "failed")
STREAM = "airport_kafka"
STREAMED = ("2013-07-01", "2013-07-02")
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
        second_scheduler("materialise"),
    ],
    "third": lambda: [
        killed("airflow-dag-processor", "ingest"),
        full_disk("clean"),
        killed("spark-master", "features"),
    ],
}
"""By group; a group is one run."""
GROUPS = ("rollout", "training", *FEATURES_FAULTS, "skew", "stream")


def contents(cluster: Cluster, what: str, given: str | None = None) -> Any:
    """See `contents`."""
    command = ("python", "-m", "tests.faults.survival.contents", what)
    return json.loads(cluster.execute("worker-data", *command, given=given).strip().splitlines()[-1])


def features(watch: Watch, groups: Sequence[str]) -> tuple[list[Outcome], dict[str, float]]:
    """`groups` of `FEATURES_FAULTS` and `skew`, over the same days; and the undisturbed run's seconds."""
    cluster, dag_id = watch.cluster, f"{USE_CASE}_features"
    # As an hour ends it lands the day so far, and pushes it online: in one run, and not in another.
    watch.api.pause(f"{USE_CASE}_push")
    watch.api.unpause(dag_id)
    before = contents(cluster, "snapshots")

    def again(name: str, faults: Sequence[Fault]) -> tuple[dict[str, Any], Ended]:
        contents(cluster, "reset", json.dumps(before))
        if contents(cluster, "snapshots") != before:
            raise ClusterError("the tables are not where they were before the days were run")
        ended = watch.run(dag_id, run_id(name), DAYS, faults)
        return contents(cluster, "digest"), ended

    reference, undisturbed = again("undisturbed", ())
    found: list[Outcome] = []
    for name in groups:
        if name == "skew":
            held, ended = _with_a_wrong_clock(watch, lambda: again("skew", ()))
        else:
            if name == "third":
                small_disk(cluster)
            held, ended = again(name, FEATURES_FAULTS[name]())
        different = [table for table in reference if held.get(table) != reference[table]]
        why = f"the run ended {ended.state}" if ended.state != "success" else ""
        if different:
            why = f"other rows in {', '.join(different)} {why}".strip()
        outcomes = lost(ended.outcomes, why) if why else ended.outcomes
        found += told(watch, outcomes)
    return found, {name: round(task.seconds, 1) for name, task in undisturbed.tasks.items()}


def _with_a_wrong_clock(watch: Watch, run: Any) -> tuple[dict[str, Any], Ended]:
    """The run as `worker-data` has it whose clock is wrong from its start on."""
    restart(watch.cluster, "worker-data", wrong_clock())
    started = time.monotonic()
    held, ended = run()
    outcome = Outcome(
        f"clock of worker-data {SKEW} off",
        f"{USE_CASE}_features, all of it",
        "survived",
        recovered_seconds=round(time.monotonic() - started, 1),
        tries=max(task.try_number for task in ended.tasks.values()),
    )
    restart(watch.cluster, "worker-data")
    return held, ended._replace(outcomes=[outcome])


def training(watch: Watch) -> list[Outcome]:
    """The cluster's first training again, disturbed: its candidate must measure the same."""
    dag_id = f"{USE_CASE}_training"
    first = next(item for item in watch.api.newest_runs(dag_id) if item.run_id.startswith("make_run__"))
    name, conf = run_id("training"), {"as_of": first.run_id.split("__")[1], **WINDOWS.given}
    ended = watch.run(dag_id, name, conf, [killed("mlflow", "train"), killed("worker-model", "evaluate")])
    if ended.state != "success":
        return lost(ended.outcomes, f"the run ended {ended.state}")
    measured = [
        {key: watch.api.result(dag_id, one, "evaluate")[key] for key in MEASURED}
        for one in (first.run_id, name)
    ]
    watch.console.print(f"undisturbed and disturbed: {measured}")
    return ended.outcomes if measured[0] == measured[1] else lost(ended.outcomes, f"measured {measured}")


def rollout(watch: Watch) -> list[Outcome]:
    """The first champion's rollout again, with requests all the while: none may go unanswered."""
    dag_id = f"{USE_CASE}_rollout"
    champion = watch.api.result(dag_id, watch.api.newest_runs(dag_id)[-1].run_id, "infra_check")["version"]
    faults = [
        killed("model-server-1", "infra_check"),
        killed("gateway-1", "promote"),
        killed("airflow-triggerer", "watch"),
    ]
    conf = {"version": champion, "bake_minutes": 1, "reason": "survival"}
    with Clients(watch.cluster, USE_CASE) as clients:
        ended = watch.run(dag_id, run_id("rollout"), conf, faults)
    watch.console.print(f"requests meanwhile: {dict(clients.answers)}")
    if ended.state != "success":
        return lost(ended.outcomes, f"the run ended {ended.state}")
    # On a cluster that has a later champion, the first one comes back, stage by stage.
    if not clients.answers or any(not answer.startswith("version ") for answer in clients.answers):
        return lost(ended.outcomes, f"requests: {dict(clients.answers)}")
    return ended.outcomes


def stream(watch: Watch) -> list[Outcome]:
    """What is published to Kafka lands once, though the broker is killed while it is read."""
    flags = ("--use-case", USE_CASE, "--stream", STREAM, "--start", STREAMED[0], "--end", STREAMED[1])
    command = ("python", "-m", "airloop.sources.publish_replay", *flags, "--speed", "0")
    sent = json.loads(watch.cluster.execute("worker-data", *command).strip().splitlines()[-1])["messages"]
    # What it lands is of past days, which would have the features DAG begin.
    watch.api.pause(f"{USE_CASE}_features")
    watch.api.unpause("stream_ingest")
    fault = killed("kafka", f"{USE_CASE}_{STREAM}")
    ended = watch.run("stream_ingest", run_id("stream"), {}, [fault])
    landed = contents(watch.cluster, "streamed", STREAM)
    watch.console.print(f"sent {sent}, landed (rows, places) {landed}")
    if ended.state != "success" or any(landed[feed] != [count, count] for feed, count in sent.items()):
        return lost(ended.outcomes, f"the run ended {ended.state}; sent {sent}, landed {landed}")
    return ended.outcomes


def told(watch: Watch, outcomes: list[Outcome]) -> list[Outcome]:
    """`outcomes`, printed as they come: of a run that is given up they are all there is."""
    for outcome in outcomes:
        watch.console.print(outcome.cells, markup=False)
    return outcomes


def lost(outcomes: Sequence[Outcome], why: str) -> list[Outcome]:
    """All of a run's faults, where what they left is not right: which of them did it is not known."""
    return [dataclasses.replace(item, outcome="lost", why=why) for item in outcomes]


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
            watch = Watch(cluster, api, console, flags.seed)
            if "rollout" in flags.groups:
                outcomes += told(watch, rollout(watch))
            if "training" in flags.groups:
                outcomes += told(watch, training(watch))
            of_features = [name for name in flags.groups if name in (*FEATURES_FAULTS, "skew")]
            if of_features:
                found, undisturbed = features(watch, of_features)
                outcomes += found
            if "stream" in flags.groups:
                outcomes += told(watch, stream(watch))
    finally:
        if not flags.keep:
            leave_nothing(cluster)
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
