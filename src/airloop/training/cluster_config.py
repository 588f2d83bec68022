"""`TF_CONFIG`, from what SageMaker and Batch tell the hosts that share a training.

Belongs here: finding out the hosts, this one among them, and where each listens. Does not belong here: what
TensorFlow makes of it (`devices`), or starting hosts.

SageMaker names all hosts, and their names resolve. Batch tells a node how many there are and which it is, but
of addresses only the main node's, and that not to the main node: so each writes its own into the job's
folder, and waits until all have. TensorFlow needs the same list everywhere before it starts.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from airloop.job_folder import HOSTS, JobFolder

PORT: Final = 2222
"""Where workers listen; the hosts' security group must let them reach it among themselves."""
RESOURCE_CONFIG: Final = Path("/opt/ml/input/config/resourceconfig.json")
SM_HOSTS: Final = "SM_HOSTS"
SM_CURRENT_HOST: Final = "SM_CURRENT_HOST"
BATCH_NODES: Final = "AWS_BATCH_JOB_NUM_NODES"
BATCH_NODE: Final = "AWS_BATCH_JOB_NODE_INDEX"
BATCH_MAIN_ADDRESS: Final = "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"
BATCH_ATTEMPT: Final = "AWS_BATCH_JOB_ATTEMPT"
MEETING_SECONDS: Final = 600.0
"""How long nodes wait for one another: Batch starts all within minutes, or none."""
LOOK_EVERY_SECONDS: Final = 2.0


class HostsMissingError(Exception):
    """Not all hosts came in time; another try may have more luck."""


def on_sagemaker(environment: Mapping[str, str], file: Path = RESOURCE_CONFIG) -> dict[str, Any] | None:
    """`TF_CONFIG` of a SageMaker training with several hosts, None of any other.

    The hosts are those of the toolkit's variables, where an image sets them, else of SageMaker's `file`.
    """
    if SM_HOSTS in environment and SM_CURRENT_HOST in environment:
        hosts, current = json.loads(environment[SM_HOSTS]), environment[SM_CURRENT_HOST]
    elif file.exists():
        said = json.loads(file.read_text("utf-8"))
        hosts, current = said["hosts"], said["current_host"]
    else:
        return None
    # By number, as "algo-10" comes after "algo-2": the first is the one that writes.
    hosts = sorted(hosts, key=lambda host: (len(host), host))
    return _config([f"{host}:{PORT}" for host in hosts], hosts.index(current))


def on_batch(
    environment: Mapping[str, str],
    folder: JobFolder,
    *,
    address: str | None = None,
    port: int = PORT,
    seconds: float = MEETING_SECONDS,
    look_every_seconds: float = LOOK_EVERY_SECONDS,
) -> dict[str, Any] | None:
    """`TF_CONFIG` of a node of a multi-node Batch job, None of any other job.

    `address` is this node's own, by default the one from which it reaches the main node. Raises
    `HostsMissingError` after `seconds`.
    """
    nodes, node = int(environment.get(BATCH_NODES, "1")), int(environment.get(BATCH_NODE, "0"))
    if nodes == 1:
        return None
    # An attempt that Batch starts again has other machines.
    meeting = f"{HOSTS}/{environment.get(BATCH_ATTEMPT, '1')}"
    own = address or _own_address(environment.get(BATCH_MAIN_ADDRESS, ""))
    folder.put(f"{meeting}/{node}", f"{own}:{port}")
    wanted = [f"{meeting}/{number}" for number in range(nodes)]
    until = time.monotonic() + seconds
    while missing := set(wanted) - set(folder.names(meeting)):
        if time.monotonic() > until:
            raise HostsMissingError(
                f"{len(missing)} of {nodes} nodes did not come within {seconds:.0f} seconds: "
                f"{', '.join(sorted(name.rpartition('/')[2] for name in missing))}"
            )
        time.sleep(look_every_seconds)
    return _config([(folder.get(name) or b"").decode() for name in wanted], node)


def _config(workers: list[str], index: int) -> dict[str, Any] | None:
    if len(workers) == 1:
        return None
    return {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}


def _own_address(main: str) -> str:
    """The address of the interface from which the main node (or, at the main node, anything) is reached."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Nothing is sent: this only asks the system for a route.
        probe.connect((main or "10.0.0.1", PORT))
        own: str = probe.getsockname()[0]
        return own
