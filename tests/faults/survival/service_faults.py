"""What happens to the cluster's services: kills, a cut network, a full disk, two schedulers, a wrong clock.

Belongs here: each fault, and what puts it right. Does not belong here: when it strikes (`disturbed_run`), or
how a container is killed (`tests.cluster.podman`).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.podman import Cluster, ClusterError, podman

CUT_SECONDS = 45
DISK_MIB = 3000
SECOND_SCHEDULER = "airflow-scheduler-2"
SECOND_SECONDS = 60
SKEW = "+30m"
"""More than the quarter of an hour that S3 allows, less than the hour that Airflow's tokens hold."""
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
    healed: bool = False
    says: str = ""
    """What the task said as it failed for good."""

    def is_over(self, cluster: Cluster) -> bool:
        """Whether it is put right, and what it struck is well again."""
        if self.struck_at is None:
            return True
        if self.heal is not None and not self.healed:
            return False
        return all(cluster.is_healthy(service) for service in self.services)


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


def full_disk(task: str) -> Fault:
    """No byte free where the S3 server keeps objects, until the task has failed for it; see `small_disk`."""
    return Fault("disk of s3 full", task, _fill, ("s3",), heal=_make_room, heal_when_failed=True)


def second_scheduler(task: str) -> Fault:
    """One more of them, on the same database, for a while."""
    return Fault(
        f"two schedulers for {SECOND_SECONDS} s",
        task,
        lambda cluster: cluster.start("airflow-scheduler", named=SECOND_SCHEDULER),
        (),
        heal=lambda cluster: cluster.stop(SECOND_SCHEDULER),
        heal_after_seconds=SECOND_SECONDS,
    )


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


def restart(cluster: Cluster, service: str, extra: dict[str, str] | None = None) -> None:
    """`service` in a new container, with `extra` in its environment."""
    cluster.stop(service)
    cluster.start(service, extra=extra)
    wait_until_well(cluster, service)


def wrong_clock() -> dict[str, str]:
    """Variables that have a container's clock be `SKEW` off."""
    (library,) = Path("/usr/lib").glob("*-linux-gnu/faketime/libfaketimeMT.so.1")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": SKEW,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # Of a JVM the clock cannot be faked: it turns in circles, or waits for moments that have passed.
        "FAKETIME_SKIP_CMDS": "java",
    }


def wait_until_well(cluster: Cluster, *services: str) -> None:
    """Raises `ClusterError` when one is not healthy in time."""
    deadline = time.monotonic() + WELL_SECONDS
    for service in services:
        while not (cluster.is_running(service) and cluster.is_healthy(service)):
            if time.monotonic() > deadline:
                raise ClusterError(f"{service} is not healthy:\n{cluster.logs(service)[-1500:]}")
            time.sleep(1)


def leave_nothing(cluster: Cluster) -> None:
    """Undo what `Cluster.down` knows nothing of."""
    podman("rm", "--force", "--time", "2", cluster.container(SECOND_SCHEDULER), check=False)
    podman("rm", "--force", "--time", "2", cluster.container("s3"), check=False)
    subprocess.run(["umount", str(cluster.volume("s3"))], check=False, capture_output=True)


def _fill(cluster: Cluster) -> None:
    place = cluster.volume("s3")
    free = int(subprocess.check_output(["df", "--output=avail", "--block-size=1M", str(place)]).split()[-1])
    # The last of it byte by byte: what is free is not all to be had at once.
    subprocess.run(["fallocate", "--length", f"{free - 64}M", str(place / ".filler")], check=True)
    with suppress(OSError), (place / ".filler").open("ab", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def _make_room(cluster: Cluster) -> None:
    (cluster.volume("s3") / ".filler").unlink()
