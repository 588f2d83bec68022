"""What is going on: what began and is not over, and which message on Slack began it.

Belongs here: remembering it, in an Airflow Variable that every worker reaches: what follows goes to the same
thread, and the use case's page lists it. Does not belong here: sending (`alerts`).
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from airflow.sdk import Variable

PREFIX = "airloop_incident."


class Incident(NamedTuple):
    """An incident that was told."""

    channel: str
    """Slack's id of the channel; empty for a webhook, which tells no id."""
    message: str
    """Slack's timestamp of the message that began it; empty for a webhook."""
    began: datetime
    heard: datetime
    """When it was last heard of, told or not."""
    told: datetime
    """When somebody was last told."""
    times: int = 1
    """How often it was heard of."""
    use_case: str = ""
    title: str = ""
    """What was last said of it."""
    severity: str = ""
    run_url: str = ""
    runbook: str = ""


def known(key: str, now: datetime, remembered: timedelta) -> Incident | None:
    """The incident `key`, if it was heard of within `remembered`: in an older thread nobody would see it."""
    found = incident_of(Variable.get(_variable(key), default=None))
    return found if found is not None and now - found.heard <= remembered else None


def incident_of(text: str | None) -> Incident | None:
    """The incident that a Variable's `text` keeps; None for none, and for a text that is none of ours."""
    try:
        kept: dict[str, Any] = json.loads(text or "")
        times = {name: datetime.fromisoformat(kept[name]) for name in ("began", "heard", "told")}
        return Incident(**{**kept, **times})
    except (ValueError, TypeError, KeyError):
        return None


def remember(key: str, incident: Incident) -> None:
    """Keep what is known of the incident `key`."""
    times = {name: getattr(incident, name).isoformat() for name in ("began", "heard", "told")}
    Variable.set(
        _variable(key),
        {**incident._asdict(), **times},
        description="Something that was told and is not over; Airloop writes it.",
        serialize_json=True,
    )


def forget(key: str) -> None:
    """The incident `key` is over."""
    Variable.delete(_variable(key))


def _variable(key: str) -> str:
    return PREFIX + re.sub(r"[^A-Za-z0-9_.-]", "_", key)[:200]
