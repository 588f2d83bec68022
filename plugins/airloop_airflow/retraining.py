"""Requests to train a candidate: made, told, and carried to the training that they start.

Belongs here: the Asset event's words, and when an alert goes out. Does not belong here: deciding
(`airloop.retraining`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import Asset, get_current_context

from airloop_airflow.alert_kinds import BUDGET, RETRAINING_HELD, RETRAINING_REQUESTED
from airloop_airflow.alerts import alert_of_run, send

LONGEST_WHY = 450
"""A run's tags are cut a little above that."""


def wanted(decided: Mapping[str, Any]) -> bool:
    """Whether a candidate is to be trained; only an explicit `true` says so."""
    return decided["requested"] is True


def request(asset: Asset, because: str) -> str:
    """Request a training through `asset`, whose event says `because` of what; returns that."""
    get_current_context()["outlet_events"][asset].extra = {"why": because}
    return because


def tell(decided: Mapping[str, Any]) -> str:
    """Send that a training was requested, or that only a person can have one; returns what was decided."""
    context = get_current_context()
    use_case = context["dag"].dag_id.removesuffix("_retraining")
    told = None
    if decided["requested"]:
        told = RETRAINING_REQUESTED, f"a training is requested ({', '.join(decided['causes'])})"
    elif decided["needs_a_person"]:
        kind = BUDGET if decided["refusal"] == "budget" else RETRAINING_HELD
        told = kind, f"no training is requested ({decided['refusal']})"
    if told is not None:
        kind, title = told
        send(
            alert_of_run(
                context,
                kind=kind,
                title=f"{use_case}: {title}",
                detail=f"version {decided['version']} serves. {decided['said']}",
            )
        )
    said: str = decided["said"]
    return said


def why(events: Mapping[Any, Sequence[Any]] | None) -> str:
    """What the events that started a run give as their reason; empty for a run that none started."""
    extras = [event.extra or {} for of_asset in (events or {}).values() for event in of_asset]
    said = dict.fromkeys(str(extra["why"]) for extra in extras if extra.get("why"))
    return "; ".join(said)[:LONGEST_WHY]
