"""The subject of an erasure run: from the trigger form to the jobs, and out of the way afterwards.

Belongs here: what the erasure DAG's tasks call. Does not belong here: erasing (the jobs do), or the wiring.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import get_current_context

from airloop.erasure.subject import hand_over
from airloop.settings import load_settings
from airloop_airflow.alert_kinds import ERASURE_DONE
from airloop_airflow.alerts import alert_of_run, send


def hand_over_subject() -> str:
    """Write the subject of this run where its jobs read it; returns the file's path."""
    context = get_current_context()
    params, run = context["params"], context["dag_run"]
    path = hand_over(load_settings(), f"{run.dag_id}/{run.run_id}", params["subject"], params["reason"])
    return str(path)


def forget_subject(path: str) -> None:
    """Remove the file that `hand_over_subject` wrote."""
    Path(path).unlink(missing_ok=True)


def tell_done(proof: Mapping[str, Any], models: Mapping[str, Any], audited: Mapping[str, Any]) -> str:
    """Send that the subject is erased, without naming it, and what is left to do; returns what was said."""
    context = get_current_context()
    said = (
        f"{proof['files_scanned']:,} files, {proof['values_scanned']:,} values and "
        f"{proof['online_entries_scanned']:,} online entries were searched and nothing was found; record "
        f"{audited['sequence']} of the audit log. Next: {models['next_step']}"
    )
    send(
        alert_of_run(
            context,
            kind=ERASURE_DONE,
            title=f"erasure of {proof['subject']} is done",
            detail=said,
        )
    )
    return said


def trainings_to_request(models: Mapping[str, Any]) -> list[str]:
    """The tasks that request a training, by what the models job found."""
    return [f"retrain_{name}" for name in models["retrain"]]
