"""The evaluation gate, as Airflow sees it: a rejected candidate ends the run here; what came of it is told.

Belongs here: turning a verdict into the run's course. Does not belong here: the verdict's rules
(`airloop.verdict`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlparse

from airflow.sdk import get_current_context
from pydantic import ValidationError

from airloop.verdict import Verdict
from airloop.verdict_message import message_of
from airloop_airflow.addresses import ui_url
from airloop_airflow.alert_kinds import CANDIDATE_REGISTERED, CANDIDATE_REJECTED
from airloop_airflow.alerts import Alert, alert_of_run, send
from airloop_airflow.reports import report_path
from airloop_airflow.retraining import why

log = logging.getLogger(__name__)


def accepted(evaluated: Mapping[str, Any]) -> bool:
    """Whether the candidate may be registered; only an explicit `true` opens the gate."""
    if evaluated.get("accepted") is True:
        return True
    context = get_current_context()
    instance = context["ti"]
    failed = "; ".join(evaluated.get("failed") or ("not known",))
    send(
        Alert(
            kind=CANDIDATE_REJECTED,
            title=f"{instance.dag_id}: candidate rejected",
            owner=context["dag"].owner,
            dag_id=instance.dag_id,
            run_id=instance.run_id,
            detail=f"{_figures(evaluated)}. Failed rules: {failed}. "
            f"The verdict: {evaluated.get('verdict_uri')}. What serves is unchanged.",
            blocks=_message(evaluated, f"{instance.dag_id}/runs/{instance.run_id}"),
        )
    )
    return False


def tell_registered(registered: Mapping[str, Any], evaluated: Mapping[str, Any]) -> str:
    """Send that a candidate is registered, why it was trained and how good it is; returns what was said."""
    context = get_current_context()
    reason = why(context.get("triggering_asset_events")) or "by hand or by the schedule"
    said = f"trained because: {reason}. {_figures(evaluated)}. Its rollout begins."
    name = registered["name"]
    send(
        alert_of_run(
            context,
            kind=CANDIDATE_REGISTERED,
            title=f"{name}: version {registered['version']} is a candidate",
            detail=said,
        )
    )
    return said


def _figures(evaluated: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in (evaluated.get("figures") or {}).items())


def _message(evaluated: Mapping[str, Any], run: str) -> tuple[dict[str, Any], ...]:
    """The verdict as Slack blocks; empty when its report is not here: the alert's text is left then."""
    page = evaluated.get("page_uri") or ""
    try:
        text = Path(unquote(urlparse(page).path)).with_name("verdict.json").read_text("utf-8")
        verdict = Verdict.model_validate_json(text)
    except (OSError, ValueError, ValidationError):
        log.warning("the verdict beside %r could not be read", page, exc_info=True)
        return ()
    path = report_path(page)
    blocks = message_of(
        verdict, report_url=urljoin(ui_url(), path) if path else None, run_url=f"{ui_url()}/dags/{run}"
    )
    return tuple(blocks)
