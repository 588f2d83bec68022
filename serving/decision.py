"""What follows from a look at a rollout's stage: go on, hold, or roll back.

Belongs here: that rule, a pure function. Does not belong here: what the checks measure (`serving.analysis`),
or doing what was decided (`serving.stage`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal, NamedTuple

from airloop.references import RolloutCheck
from airloop.use_cases.rollout_policy import Rollout
from serving.model_server_client import AVAILABLE, END

Decision = Literal["go_on", "hold", "roll_back", "superseded"]


class Decided(NamedTuple):
    """A decision and why."""

    decision: Decision
    reason: str


def decide(
    policy: Rollout,
    checks: Sequence[RolloutCheck],
    *,
    answers: int,
    clients: int,
    elapsed: timedelta,
    bake: timedelta,
    state: str,
) -> Decided:
    """What a look decides, in this order: a breach ends it, then time and evidence let it go on.

    `answers` are the candidate's in this stage, `clients` the answers that clients got from any version;
    `state` is what the model server says of the candidate.
    Fails closed: what is not known after `longest_hold` counts against the candidate.
    """
    breached = [check for check in checks if check.outcome == "breached"]
    if breached:
        return Decided("roll_back", "; ".join(map(shown, breached)))
    if state == END:
        return Decided("roll_back", "the model server has let the candidate go")
    too_long = elapsed >= max(policy.longest_hold, bake)
    if state != AVAILABLE:
        waiting = f"the candidate is {state} on the model server"
        return Decided("roll_back" if too_long else "hold", waiting)
    if elapsed < bake:
        return Decided("hold", f"{_seconds(elapsed)} of {_seconds(bake)} have passed")
    if answers >= policy.min_requests:
        return Decided("go_on", f"no rule is breached by {answers} answers in {_seconds(elapsed)}")
    few = f"{answers} of {policy.min_requests} answers in {_seconds(elapsed)}"
    # A candidate that answers little of much traffic is not a quiet one.
    if policy.when_quiet == "go_on" and clients < policy.min_requests:
        return Decided("go_on", f"no rule is breached, and what little traffic there is risks little: {few}")
    return Decided("roll_back" if too_long else "hold", f"too little is known: {few}")


def shown(check: RolloutCheck) -> str:
    """A check in words."""
    value = "unknown" if check.value is None else f"{check.value:.4g}"
    bounds = [f"at least {check.low:.4g}"] if check.low is not None else []
    if check.champion is not None:
        bounds.append(f"champion {check.champion:.4g}")
    if check.threshold is not None:
        bounds.append(f"allowed {check.threshold:.4g}")
    return f"{check.name} {value} ({', '.join(bounds)}; {check.detail})"


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.0f} s"
