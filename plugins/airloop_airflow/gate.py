"""The evaluation gate, as Airflow sees it: a rejected candidate ends the run here, and on-call hears of it.

Belongs here: turning a verdict into the run's course. Does not belong here: the verdict's rules
(`airloop.verdict`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from airflow.sdk import get_current_context

from airloop_airflow.alerts import Alert, send

log = logging.getLogger(__name__)


def accepted(evaluated: Mapping[str, Any]) -> bool:
    """Whether the candidate may be registered; only an explicit `true` opens the gate."""
    if evaluated.get("accepted") is True:
        return True
    context = get_current_context()
    instance = context["ti"]
    found = ", ".join(
        f"{name} {value}" for name, value in evaluated.items() if name.startswith(("test", "base"))
    )
    send(
        Alert(
            severity="notice",
            title=f"{instance.dag_id}: candidate rejected",
            owner=context["dag"].owner,
            dag_id=instance.dag_id,
            run_id=instance.run_id,
            detail=f"{found}. The verdict: {evaluated.get('verdict_uri')}. What serves is unchanged.",
            runbook="docs/runbooks/candidate_rejected.md",
        )
    )
    return False
