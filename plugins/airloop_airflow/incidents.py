"""What is going on: which message on Slack began an incident, so that what follows goes to its thread.

Belongs here: remembering it, in an Airflow Variable that every worker reaches. Does not belong here: sending
(`alerts`).
"""

from __future__ import annotations

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


def known(key: str, now: datetime, remembered: timedelta) -> Incident | None:
    """The incident `key`, if it was heard of within `remembered`: in an older thread nobody would see it."""
    kept: dict[str, Any] | None = Variable.get(_variable(key), default=None, deserialize_json=True)
    if not kept:
        return None
    times = {name: datetime.fromisoformat(kept[name]) for name in ("began", "heard", "told")}
    found = Incident(**{**kept, **times})
    return found if now - found.heard <= remembered else None


def remember(key: str, incident: Incident) -> None:
    """Keep what is known of the incident `key`."""
    times = {name: getattr(incident, name).isoformat() for name in ("began", "heard", "told")}
    Variable.set(
        _variable(key),
        {**incident._asdict(), **times},
        description="An alert on Slack that what follows is told under; Airloop writes it.",
        serialize_json=True,
    )


def forget(key: str) -> None:
    """The incident `key` is over."""
    Variable.delete(_variable(key))


def _variable(key: str) -> str:
    return PREFIX + re.sub(r"[^A-Za-z0-9_.-]", "_", key)[:200]
