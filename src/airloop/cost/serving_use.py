"""How much of what answers requests is in use: a gateway's processors and memory, by its own metrics.

Belongs here: asking one, and what that says of the machines. Does not belong here: jobs' machines (`advice`).

Of several gateways behind one address one answers; they share the requests evenly. What the model server uses
it does not say (TensorFlow Serving has no such metric), so an idle gateway is a hint, and no more.
"""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

import httpx

from airloop.cost.prices import PriceTable, ServingMachines
from airloop.settings import Settings

log = logging.getLogger(__name__)

GATEWAY: Final = "gateway"
IDLE_SHARE: Final = 0.1
"""Of the machines' processors; below, most of what is paid for is idle."""
TIMEOUT_SECONDS: Final = 5
GIB: Final = 1024**3


class Use(NamedTuple):
    """What one gateway uses."""

    vcpus: float
    """On average since it started."""
    memory_gib: float
    since: datetime


def gateway_use(settings: Settings, now: datetime) -> Use | None:
    """What the gateway that answers uses; None where none does, or it does not say (only Linux does)."""
    certificate = settings.gateway_certificate
    try:
        page = httpx.get(
            f"{settings.gateway_url}/metrics",
            timeout=TIMEOUT_SECONDS,
            verify=str(certificate) if certificate else True,
        )
        text = page.raise_for_status().text
    except httpx.HTTPError as error:
        log.warning("what the gateway uses is not known: %s", error)
        return None
    found = [
        re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        for name in (
            "process_cpu_seconds_total",
            "process_start_time_seconds",
            "process_resident_memory_bytes",
        )
    ]
    if None in found:
        return None
    cpu, start, memory = (float(match[1]) for match in found if match)
    since = datetime.fromtimestamp(start, UTC)
    return Use(cpu / max((now - since).total_seconds(), 1.0), memory / GIB, since)


def idle(use: Use | None, use_case: str, prices: PriceTable | None) -> str | None:
    """What of the machines of `use_case`'s gateways is idle, in words; None where enough is used."""
    if use is None or prices is None:
        return None
    rented = next(
        (one for one in prices.serving if one.use_case == use_case and GATEWAY in one.program), None
    )
    if rented is None:
        return None
    vcpus = prices.machines[rented.machine].vcpus
    share = use.vcpus / vcpus
    if share >= IDLE_SHARE:
        return None
    since = f"{use.since:%Y-%m-%d %H:%M} UTC"
    return (
        f"a gateway uses {use.vcpus:.2f} of its machine's {vcpus:g} vCPUs ({share:.0%}) and "
        f"{use.memory_gib:.1f} GiB, on average since {since}: {_instead(rented, prices)}"
    )


def _instead(rented: ServingMachines, prices: PriceTable) -> str:
    """What would cost less."""
    if rented.count > 2:
        return f"two of the {rented.count} machines would do, for {1 - 2 / rented.count:.0%} less"
    now = prices.machines[rented.machine]
    smaller = {
        name: price
        for name, machine in prices.machines.items()
        if machine.accelerator is None
        and machine.vcpus < now.vcpus
        and (price := machine.per_hour(rented.market)) is not None
    }
    best = min(smaller, key=lambda name: smaller[name], default=None)
    own = now.per_hour(rented.market)
    if best is None or not own or smaller[best] >= own:
        return "no machine of the price table is smaller"
    return f"{best} would do, for {1 - smaller[best] / own:.0%} less"
