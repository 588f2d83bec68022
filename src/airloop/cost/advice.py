"""Which machines are larger, or smaller, than what runs on them needs.

Belongs here: what jobs used beside what their machines have, and a suggestion. Does not belong here: renting.

Peaks count, not means: a job that needs its memory for a second needs it. A suggestion keeps room to spare,
and names a machine of the price table; of several that would do the cheapest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from airloop.cost.prices import Machine, PriceTable, Rented
from airloop.cost.sums import Cost
from airloop.cost.usage_table import Used, spent

MEMORY_TO_SPARE: Final = 1.25
"""A machine has so many times the memory that was needed at most: the system needs some, and data grow."""
NARROW_SHARE: Final = 0.9
"""Of a machine's memory, from which on a job is near its end."""
WORTH_IT_SHARE: Final = 0.1
"""Saving less than this share is not worth a change."""
IDLE_ACCELERATOR_SHARE: Final = 0.3
"""An accelerator that is busy for less of the time is waiting for something."""


class Fit(Cost):
    """A kind of job beside its machine."""

    module: str
    attempts: int
    machine: str | None
    wall_seconds: float
    price: float | None
    cpu_share: float | None
    """Processors used, of those that the machine has, over all of the time."""
    peak_vcpus: float
    peak_memory_gib: float
    memory_share: float | None
    """Most memory used, of what the machine has."""
    accelerator_share: float | None
    """Busy time of the accelerators; None without any."""
    suggestion: str | None
    """What to change; None where it fits, or nothing is known of the machine."""


def fits(found: Sequence[Used], prices: PriceTable | None) -> list[Fit]:
    """Each kind of job of `found`, the dearest (without prices, the longest) first."""
    of_modules: dict[str, list[Used]] = defaultdict(list)
    for used in found:
        of_modules[used.attempt.module].append(used)
    made = [_fit(module, attempts, prices) for module, attempts in of_modules.items()]
    return sorted(made, key=lambda fit: (fit.price or 0.0, fit.wall_seconds), reverse=True)


def _fit(module: str, attempts: Sequence[Used], prices: PriceTable | None) -> Fit:
    wall = sum(used.attempt.wall_seconds for used in attempts)
    cpu = sum(used.attempt.cpu_seconds for used in attempts)
    busy = sum(used.attempt.accelerator_seconds for used in attempts)
    peak_vcpus = max(used.attempt.peak_vcpus for used in attempts)
    peak_memory = max(used.attempt.peak_memory_gib for used in attempts)
    rented = None if prices is None else prices.of_job(module)
    # What ran elsewhere is known as it was billed: how busy its machine was, nobody looked at.
    is_measured = peak_memory > 0
    machine = None if prices is None or rented is None or not is_measured else prices.machines[rented.machine]
    # Of a machine that has some: on a host that others share, what they do would be taken for the job's.
    had = wall * machine.accelerators if machine is not None else 0.0
    accelerator_share = min(busy / had, 1.0) if had else None
    has_price = any(used.price is not None for used in attempts)
    return Fit(
        module=module,
        attempts=len(attempts),
        machine=None if rented is None else rented.machine,
        wall_seconds=wall,
        price=spent(attempts) if has_price else None,
        cpu_share=None if machine is None or not wall else cpu / wall / machine.vcpus,
        peak_vcpus=peak_vcpus,
        peak_memory_gib=peak_memory,
        memory_share=None if machine is None else peak_memory / machine.memory_gib,
        accelerator_share=accelerator_share,
        suggestion=_suggestion(
            prices, rented if is_measured else None, peak_vcpus, peak_memory, accelerator_share
        ),
    )


def _suggestion(
    prices: PriceTable | None,
    rented: Rented | None,
    peak_vcpus: float,
    peak_memory_gib: float,
    accelerator_share: float | None,
) -> str | None:
    if prices is None or rented is None:
        return None
    machine = prices.machines[rented.machine]
    used = (
        f"at most {peak_memory_gib:.1f} of {machine.memory_gib:g} GiB and {peak_vcpus:.1f} of "
        f"{machine.vcpus:g} vCPUs"
    )

    def would_do(other: Machine) -> bool:
        return (
            other.memory_gib >= MEMORY_TO_SPARE * peak_memory_gib
            # What is short of processors takes longer, and costs more in the end.
            and other.vcpus >= min(peak_vcpus, machine.vcpus)
            and other.accelerator == machine.accelerator
            and other.accelerators >= machine.accelerators
        )

    now = machine.per_hour(rented.market)
    assert now is not None  # the price table was checked
    others = {
        name: price
        for name, other in prices.machines.items()
        if would_do(other) and (price := other.per_hour(rented.market)) is not None
    }
    best = min(others, key=lambda name: others[name], default=None)
    if peak_memory_gib > NARROW_SHARE * machine.memory_gib:
        return f"{used}: near its end; " + (
            f"{best} would do" if best else "no machine of the table would do"
        )
    if accelerator_share is not None and accelerator_share < IDLE_ACCELERATOR_SHARE:
        return (
            f"its accelerators are busy for {accelerator_share:.0%} of the time: see what they wait for, or "
            "train on processors"
        )
    if best is not None and now > 0 and 1 - others[best] / now >= WORTH_IT_SHARE:
        return f"{used}: {best} would do, for {1 - others[best] / now:.0%} less"
    if rented.market == "on_demand" and machine.spot_per_hour is not None and now > 0:
        saved = 1 - machine.spot_per_hour / now
        if saved >= WORTH_IT_SHARE:
            return f"as spot it costs {saved:.0%} less; the task is tried again when it is taken away"
    return None
