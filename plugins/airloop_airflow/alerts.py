"""On-call alerts: one builder, one way out.

Belongs here: what an alert says and where it goes. Does not belong here: deciding that something is wrong.
A task alerts once per run, when its last try has failed, so a retry wakes nobody. Without the connection
`slack_oncall` (development, the laptop's default) the alert is a warning in the task's log.
"""

from __future__ import annotations

import logging
from typing import Any, Literal, NamedTuple

from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook
from airflow.sdk.exceptions import AirflowNotFoundException

from airloop.settings import load_settings

log = logging.getLogger(__name__)

CONNECTION_ID = "slack_oncall"
Severity = Literal["page", "notice"]
MARKS: dict[Severity, str] = {"page": ":rotating_light:", "notice": ":information_source:"}
LONGEST_DETAIL = 1500
"""Slack refuses a block of more than 3,000 characters."""


class Alert(NamedTuple):
    """What on-call is told."""

    severity: Severity
    title: str
    owner: str
    dag_id: str
    run_id: str
    detail: str
    runbook: str
    """Path of the runbook in the repository."""
    blocks: tuple[dict[str, Any], ...] = ()
    """The detail as Slack blocks, where it has any; Slack shows them in the text's place."""

    @property
    def text(self) -> str:
        """The message, in Slack's markup; readable as plain text too."""
        run = f"{load_settings().airflow_url}/dags/{self.dag_id}/runs/{self.run_id}"
        return (
            f"{MARKS[self.severity]} *{self.title}* ({self.severity}, owner {self.owner})\n"
            f"{self.detail[:LONGEST_DETAIL]}\nRun: {run}\nRunbook: {self.runbook}"
        )


def send(alert: Alert) -> None:
    """Post `alert` to Slack, or log it where no `slack_oncall` connection exists.

    Never raises: an alert that cannot be sent must not change the outcome of a run. The failure is logged.
    """
    try:
        hook = SlackWebhookHook(slack_webhook_conn_id=CONNECTION_ID, timeout=10)
        hook.send(text=alert.text, blocks=[*alert.blocks, *_signature(alert)] if alert.blocks else None)
    except AirflowNotFoundException:
        log.warning("alert (no connection %s, so it stays here): %s", CONNECTION_ID, alert.text)
    except Exception:
        log.exception("alert could not be sent: %s", alert.text)


def _signature(alert: Alert) -> list[dict[str, Any]]:
    """What every alert says at its end, as a block."""
    text = f"{MARKS[alert.severity]} {alert.severity}, owner {alert.owner}. Runbook: {alert.runbook}"
    return [{"type": "context", "elements": [{"type": "mrkdwn", "text": text}]}]


def alert_on_failure(context: Any) -> None:
    """Failure callback of every task."""
    instance, dag = context["ti"], context["dag"]
    kind = dag.dag_id.rsplit("_", maxsplit=1)[-1]
    send(
        Alert(
            severity="page",
            title=f"{instance.dag_id}.{instance.task_id} failed",
            owner=dag.owner,
            dag_id=instance.dag_id,
            run_id=instance.run_id,
            detail=str(context.get("exception") or "no exception was recorded; see the task's log"),
            runbook=f"docs/runbooks/{kind}_failed.md",
        )
    )
