"""A stage of a rollout as an Airflow task: a look, a wait without a worker, a look, until it is decided.

Belongs here: what a look's decision means for the task, and who hears of it. Does not belong here: how it is
decided (the job `serving.stage`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.standard.exceptions import HITLRejectException
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airloop.connections import PREDICTION_LOG
from airloop.use_cases.spec import UseCase
from airloop_airflow.alert_kinds import EXPERIMENT, ROLLBACK, ROLLOUT
from airloop_airflow.alerts import Alert, alert_of_run, alert_on_failure, send
from airloop_airflow.jobs import JobOperator

LAST_STAGE = "watch"
"""After which nothing more is said of a rollout."""
_TITLES = {
    "go_on": "passed",
    "roll_back": "rolled back",
    "superseded": "superseded",
}


class CandidateRolledBack(AirflowFailException):
    """A rollout gave its candidate up, in good order; clients are answered by the version before."""


class StageOperator(JobOperator):
    """Looks at one stage of a rollout until its job decides.

    Between looks the task is deferred: the triggerer waits, no worker does, and a scheduler that is started
    again goes on waiting. A stage that goes on is a success; one that rolls back fails without another try,
    for a rollout that ended so is nothing that a retry mends; one that another rollout supersedes is skipped,
    and what follows it too. Each of these decisions goes to Slack as a notice.
    """

    def execute(self, context: Any) -> dict[str, Any]:
        """The first look."""
        return self._look(context, first=True)

    def look(self, context: Any, event: Any = None, *, begun: bool = True) -> dict[str, Any]:
        """A later look, when the wait is over; `begun` is whether the stage could begin at the one before."""
        return self._look(context, first=not begun)

    def _look(self, context: Any, *, first: bool) -> dict[str, Any]:
        self.flags = {**self.flags, "first": "true" if first else "false"}
        decided = self.run_job(context)
        assert isinstance(decided, dict)
        if decided["decision"] == "hold":
            self.defer(
                trigger=DateTimeTrigger(moment=datetime.fromisoformat(decided["look_again_at"])),
                method_name=self.look.__name__,
                kwargs={"begun": decided["since"] is not None},
            )
        send(_alert(context, decided))
        if decided["decision"] == "roll_back":
            raise CandidateRolledBack(_text(decided))
        if decided["decision"] == "superseded":
            raise AirflowSkipException(_text(decided))
        return decided


def page_unless_rolled_back(context: Any) -> None:
    """Failure callback of a stage: a rollback was told as what it is, and who said no knows; the rest wakes
    somebody."""
    if not isinstance(context.get("exception"), CandidateRolledBack | HITLRejectException):
        alert_on_failure(context)


def tell_rollback(went_back: Mapping[str, Any]) -> str:
    """Send that a person went back to the version before; returns what was said."""
    context = get_current_context()
    lost = f" after version {went_back['given_up']}" if went_back["given_up"] is not None else ""
    title = f"{went_back['name']}: version {went_back['version']} has the traffic again{lost}"
    who = context["dag_run"].triggering_user_name or "somebody"
    detail = f"{who} went back in {went_back['seconds']:.1f} s: {went_back['reason'] or 'no reason given'}"
    send(alert_of_run(context, kind=ROLLBACK, title=title, detail=detail))
    return title


def stage_task(
    use_case: UseCase,
    stage: str,
    flags: Mapping[str, Any],
    *,
    task_id: str | None = None,
    timeout: timedelta = timedelta(minutes=10),
    **kwargs: Any,
) -> StageOperator:
    """The task of `stage`, called so unless it has a `task_id` of its own; `timeout` is of each look."""
    return looking_task(
        use_case, task_id or stage, "serving.stage", {**flags, "stage": stage}, timeout=timeout, **kwargs
    )


def looking_task(
    use_case: UseCase,
    task_id: str,
    module: str,
    flags: Mapping[str, Any],
    *,
    timeout: timedelta = timedelta(minutes=10),
    **kwargs: Any,
) -> StageOperator:
    """The task that looks with `module`, a job that decides as a stage's does, until it is decided."""
    return StageOperator(
        task_id=task_id,
        module=module,
        use_case=use_case.name,
        flags=flags,
        execution_timeout=timeout,
        has_report=True,
        optional_connections=[PREDICTION_LOG],
        on_failure_callback=page_unless_rolled_back,
        **kwargs,
    )


def stages_of(use_case: UseCase) -> Sequence[str]:
    """The stages before a candidate becomes the champion, in order."""
    return ("shadow", *(f"canary_{percent}" for percent in use_case.rollout.canary_percent))


def _alert(context: Any, decided: Mapping[str, Any]) -> Alert:
    instance = context["ti"]
    checks = [
        f"{check['name']} {check['value']:.4g} (champion {_number(check['champion'])}, "
        f"allowed {_number(check['threshold'])}, on {check['requests']})"
        for check in decided["checks"]
        if check["value"] is not None
    ]
    is_experiment = decided["stage"] == "experiment"
    # One thread for each rollout: its last stage, or whatever ends it before, is the end of it.
    ends = is_experiment or decided["stage"] == LAST_STAGE or decided["decision"] != "go_on"
    return Alert(
        kind=EXPERIMENT if is_experiment else ROLLOUT,
        title=f"{instance.dag_id}: version {decided['version']} {_TITLES[decided['decision']]} "
        f"in {decided['stage']}",
        owner=context["dag"].owner,
        dag_id=instance.dag_id,
        run_id=instance.run_id,
        detail=f"{_text(decided)}. {'; '.join(checks)}",
        subject=f"{instance.dag_id}/{instance.run_id}",
        phase="over" if ends else "goes_on",
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _text(decided: Mapping[str, Any]) -> str:
    return (
        f"Version {decided['version']} in {decided['stage']} beside version {decided['champion']}: "
        f"{decided['reason']}"
    )
