"""On-call alerts: one builder, one way out.

Belongs here: what a message says, and how it gets to Slack. Does not belong here: which alerts there are
(`alert_kinds`), what is going on (`incidents`), or deciding that something is wrong.

A task alerts once per run, when its last try has failed, so a retry wakes nobody. The connection
`slack_oncall` says where to: Slack's API (with a token and a channel) has a thread for each incident, whose
first message says how it stands; an incoming webhook has a message each. Without the connection (development,
the laptop's default) the alert is a warning in the task's log.
"""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

from airflow.providers.slack.hooks.slack import SlackHook
from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import redact
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_handlers import ConnectionErrorRetryHandler, RateLimitErrorRetryHandler

from airloop.errors import AuditError
from airloop.settings import load_settings
from airloop.use_cases.catalogue import all_use_cases
from airloop_airflow import incidents
from airloop_airflow.addresses import ui_url
from airloop_airflow.alert_kinds import (
    AUDIT_FAILED,
    DEPENDENCY_DOWN,
    DRILL_FAILED,
    TASK_FAILED,
    AlertKind,
    Severity,
)
from airloop_airflow.dependencies import DependencyDown
from airloop_airflow.failures import PermanentFailure
from airloop_airflow.incidents import Incident

log = logging.getLogger(__name__)

CONNECTION_ID: Final = "slack_oncall"
MARKS: Final[dict[Severity, str]] = {"page": ":rotating_light:", "notice": ":information_source:"}
OVER: Final = ":white_check_mark:"
LONGEST_DETAIL: Final = 1500
"""Slack refuses a block of more than 3,000 characters."""
LONGEST_HEADER: Final = 150
TIMEOUT_SECONDS: Final = 10
QUIET: Final = timedelta(minutes=5)
"""Of a kind that comes one at a time, what follows sooner is counted and not sent."""
Phase = Literal["event", "began", "goes_on", "over"]
Block = dict[str, Any]


class Alert(NamedTuple):
    """What on-call is told."""

    kind: AlertKind
    title: str
    owner: str
    """Who is mentioned, if the connection knows how."""
    dag_id: str
    run_id: str
    detail: str
    subject: str = ""
    """What it is about: with the kind, it names the incident. Empty for an event by itself."""
    about: str = ""
    """The use case, where the DAG is the platform's."""
    phase: Phase = "event"
    blocks: tuple[Block, ...] = ()
    """The detail as Slack blocks, where it has any; Slack shows them in the text's place."""

    @property
    def use_case(self) -> str:
        """The use case that it is about, or the platform's DAG."""
        if self.about:
            return self.about
        # A DAG's kind is one word; one use case's name may begin with another's.
        name = self.dag_id.rpartition("_")[0]
        return name if name in {spec.name for spec in all_use_cases()} else self.dag_id

    @property
    def incident(self) -> str:
        """The incident's name; empty for an event by itself."""
        return f"{self.kind.name}.{self.subject}" if self.subject else ""

    @property
    def runbook(self) -> str:
        """Path of the runbook in the repository."""
        return self.kind.runbook.format(dag_kind=self.dag_id.rsplit("_", maxsplit=1)[-1])

    @property
    def severity(self) -> Severity:
        """How urgent it is: nobody is woken because something is over."""
        return "notice" if self.phase == "over" else self.kind.severity

    @property
    def run_url(self) -> str:
        """The run in Airflow's UI."""
        return f"{ui_url()}/dags/{self.dag_id}/runs/{quote(self.run_id, safe='')}"

    @property
    def mark(self) -> str:
        """The emoji that it begins with."""
        return OVER if self.phase == "over" else MARKS[self.severity]

    @property
    def text(self) -> str:
        """The message, in Slack's markup; readable as plain text too."""
        return (
            f"{self.mark} *{_escaped(self.title)}* ({self.severity}, owner {self.owner})\n"
            f"{_escaped(self.detail, LONGEST_DETAIL)}\nRun: {self.run_url}\nRunbook: {self.runbook}"
        )


def alert_of_run(
    context: Any,
    kind: AlertKind,
    title: str,
    detail: str,
    *,
    subject: str = "",
    phase: Phase = "event",
    about: str = "",
) -> Alert:
    """An alert about what a task of the run of `context` found; `about` a use case, for its owner, where the
    DAG is the platform's."""
    owners = {spec.name: spec.owner for spec in all_use_cases()}
    return Alert(
        kind=kind,
        title=title,
        about=about,
        owner=owners.get(about, context["task"].owner),
        dag_id=context["dag"].dag_id,
        run_id=context["dag_run"].run_id,
        detail=detail,
        subject=subject,
        phase=phase,
    )


def send(alert: Alert) -> None:
    """Post `alert` to Slack, or log it where no `slack_oncall` connection exists.

    Never raises: an alert that cannot be sent must not change the outcome of a run. The failure is logged.
    What Airflow knows as a secret is masked.
    """
    clean = alert._replace(title=str(redact(alert.title)), detail=str(redact(alert.detail)))
    try:
        connection = BaseHook.get_connection(CONNECTION_ID)
        if connection.conn_type == SlackHook.conn_type:
            _to_channel(clean, connection.extra_dejson)
        else:
            _to_webhook(clean, connection.extra_dejson)
    except AirflowNotFoundException:
        log.warning("alert (no connection %s, so it stays here): %s", CONNECTION_ID, clean.text)
        now = datetime.now(UTC)
        _keep_without_thread(clean, _heard_again(clean, now), now)
    except Exception:
        log.exception("alert could not be sent: %s", clean.text)


def is_going_on(kind: AlertKind, subject: str) -> bool:
    """Whether `subject` was told as `kind` and is not over; not known is no."""
    try:
        remembered = timedelta(days=kind.remembered_days)
        return incidents.known(f"{kind.name}.{subject}", datetime.now(UTC), remembered) is not None
    except Exception:
        log.warning("whether %s of %s goes on is not known", kind.name, subject, exc_info=True)
        return False


def alert_on_failure(context: Any) -> None:
    """Failure callback of every task."""
    instance, exception = context["ti"], context.get("exception")
    kind, detail = TASK_FAILED, str(exception or "no exception was recorded; see the task's log")
    title = subject = f"{instance.dag_id}.{instance.task_id}"
    title += " failed"
    if isinstance(exception, PermanentFailure) and exception.type == AuditError.__name__:
        kind, detail = AUDIT_FAILED, exception.said
    elif isinstance(exception, DependencyDown):
        # One incident, however many DAGs find it.
        kind, subject = DEPENDENCY_DOWN, ", ".join(exception.names)
        title = f"{subject}: no answer"
    elif instance.dag_id.endswith("_drill"):
        kind = DRILL_FAILED
    send(
        Alert(
            kind=kind,
            title=title,
            owner=context["task"].owner,
            dag_id=instance.dag_id,
            run_id=instance.run_id,
            detail=detail,
            subject=subject,
            phase="began",
        )
    )


def blocks_of(alert: Alert, extra: dict[str, Any], incident: Incident | None = None) -> list[Block]:
    """The message in Block Kit; of what is known of the `incident`, since when and how often."""
    mention = (extra.get("mentions") or {}).get(alert.owner)
    facts = [
        f"*Use case*\n{alert.use_case}",
        f"*Severity*\n{alert.severity}",
        f"*Owner*\n{mention or alert.owner}",
    ]
    if incident is not None:
        times = f", {incident.times} times" if incident.times > 1 else ""
        facts.append(f"*Since*\n{incident.began:%Y-%m-%d %H:%M} UTC{times}")
    title = f"{alert.mark} {alert.title}"
    said = alert.blocks or (
        {"type": "header", "text": {"type": "plain_text", "text": title[:LONGEST_HEADER]}},
        {
            "type": "section",
            "text": {"type": "mrkdwn", "text": _escaped(alert.detail, LONGEST_DETAIL) or "no detail"},
        },
    )
    runbook_url = _runbook_url(alert.runbook)
    # Blocks of its own lead to the run already.
    buttons = {} if alert.blocks else {"Run": alert.run_url}
    buttons |= {"Runbook": runbook_url} if runbook_url else {}
    actions = {
        "type": "actions",
        "elements": [
            {"type": "button", "text": {"type": "plain_text", "text": name}, "url": url}
            for name, url in buttons.items()
        ],
    }
    return [
        *said,
        {"type": "section", "fields": [{"type": "mrkdwn", "text": fact} for fact in facts]},
        *([actions] if buttons else []),
        {
            "type": "context",
            "elements": [{"type": "mrkdwn", "text": f"`{alert.kind.name}`, runbook {alert.runbook}"}],
        },
    ]


def _to_channel(alert: Alert, extra: dict[str, Any]) -> None:
    """Slack's API: what follows goes to the incident's thread, and its first message says how it stands."""
    client = SlackHook(
        slack_conn_id=CONNECTION_ID,
        timeout=TIMEOUT_SECONDS,
        retry_handlers=[ConnectionErrorRetryHandler(), RateLimitErrorRetryHandler(max_retry_count=2)],
    ).client
    now = datetime.now(UTC)
    incident = _heard_again(alert, now)
    if _is_enough(alert, incident, now):
        return
    if incident is None or not _in_thread(client, alert, incident, extra):
        answer = client.chat_postMessage(
            channel=extra["channel"], text=alert.text, blocks=blocks_of(alert, extra, incident)
        )
        begun = Incident(str(answer["channel"]), str(answer["ts"]), now, now, now)
        if incident is not None:
            begun = begun._replace(began=incident.began, times=incident.times)
        if alert.incident and (incident is not None or alert.phase != "over"):
            _keep(alert, begun)
        return
    _keep(alert, incident._replace(told=now))
    try:
        client.chat_update(
            channel=incident.channel,
            ts=incident.message,
            text=alert.text,
            blocks=blocks_of(alert, extra, incident),
        )
    except SlackApiError:
        log.warning("the first message of %s could not be changed", alert.incident, exc_info=True)


def _in_thread(client: WebClient, alert: Alert, incident: Incident, extra: dict[str, Any]) -> bool:
    """Whether `alert` could be put into the thread of `incident`: a webhook began none, and channels go."""
    if not incident.message:
        return False
    try:
        client.chat_postMessage(
            channel=incident.channel,
            thread_ts=incident.message,
            text=alert.text,
            blocks=blocks_of(alert, extra, incident),
            # In the channel too, but for what fails again and again.
            reply_broadcast=alert.phase in ("began", "over") and not alert.kind.one_at_a_time,
        )
    except SlackApiError:
        log.warning("%s has no thread any more", alert.incident, exc_info=True)
        return False
    return True


def _to_webhook(alert: Alert, extra: dict[str, Any]) -> None:
    """An incoming webhook: each message stands by itself."""
    now = datetime.now(UTC)
    incident = _heard_again(alert, now)
    if _is_enough(alert, incident, now):
        return
    hook = SlackWebhookHook(slack_webhook_conn_id=CONNECTION_ID, timeout=TIMEOUT_SECONDS)
    hook.send(text=alert.text, blocks=blocks_of(alert, extra, incident))
    _keep_without_thread(alert, incident, now)


def _keep_without_thread(alert: Alert, incident: Incident | None, now: datetime) -> None:
    if incident is not None:
        _keep(alert, incident._replace(told=now))
    elif alert.incident and alert.phase != "over":
        _remember(alert, Incident("", "", now, now, now))


def _heard_again(alert: Alert, now: datetime) -> Incident | None:
    """The incident that `alert` belongs to, counted once more; None where it begins one, or is none."""
    if not alert.incident:
        return None
    try:
        found = incidents.known(alert.incident, now, timedelta(days=alert.kind.remembered_days))
    except Exception:
        log.warning("whether %s goes on already is not known", alert.incident, exc_info=True)
        return None
    return None if found is None else found._replace(heard=now, times=found.times + (alert.phase == "began"))


def _is_enough(alert: Alert, incident: Incident | None, now: datetime) -> bool:
    """Whether this was told a moment ago; it is counted, and said in the log."""
    if incident is None or not alert.kind.one_at_a_time or now - incident.told >= QUIET:
        return False
    _remember(alert, incident)
    log.warning("alert (told %s ago, so it stays here): %s", now - incident.told, alert.text)
    return True


def _keep(alert: Alert, incident: Incident) -> None:
    if alert.phase != "over":
        _remember(alert, incident)
        return
    try:
        incidents.forget(alert.incident)
    except Exception:
        log.warning("%s is over, and could not be forgotten", alert.incident, exc_info=True)


def _remember(alert: Alert, incident: Incident) -> None:
    """What was sent stays sent: the next message begins another thread at worst."""
    now = incident._replace(
        use_case=alert.use_case,
        title=alert.title,
        severity=alert.severity,
        run_url=alert.run_url,
        runbook=_runbook_url(alert.runbook) or alert.runbook,
    )
    try:
        incidents.remember(alert.incident, now)
    except Exception:
        log.warning("%s could not be kept", alert.incident, exc_info=True)


def _runbook_url(runbook: str) -> str | None:
    base = load_settings().runbooks_url
    return None if base is None else re.sub(r"/*$", "/", base) + runbook.removeprefix("docs/runbooks/")


def _escaped(text: str, longest: int = LONGEST_HEADER) -> str:
    """`text` without a meaning to Slack's markup, for it may quote data; cut to `longest` characters."""
    found = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return found if len(found) <= longest else re.sub(r"&[a-z]*$", "", found[:longest])
