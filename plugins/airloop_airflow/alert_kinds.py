"""Every kind of alert that there is, each once: the catalogue.

    PYTHONPATH=src:plugins python -m airloop_airflow.alert_kinds > docs/alerts.md

Belongs here: what each kind means, how urgent it is and which runbook answers it. Does not belong here: when
one is sent (the modules that see it), or what a message looks like (`alerts`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["page", "notice"]


class AlertKind(NamedTuple):
    """One kind of alert."""

    name: str
    severity: Severity
    when: str
    """In words, for who reads the catalogue."""
    runbook: str
    """Path in the repository; `{dag_kind}` stands for the kind of the DAG that it comes from."""
    remembered_days: int = 90
    """How long after it was heard of last something belongs to the same incident, unless that was over."""
    one_at_a_time: bool = False
    """Whether many may come at once about the same thing, of which one message is enough."""


TASK_FAILED = AlertKind(
    "task_failed",
    "page",
    "the last try of a task failed; a task's earlier tries wake nobody",
    "docs/runbooks/{dag_kind}_failed.md",
    remembered_days=1,
    one_at_a_time=True,
)
DEPENDENCY_DOWN = AlertKind(
    "dependency_down",
    "page",
    "runs cannot begin, because something that they need does not answer; one message for all DAGs",
    "docs/runbooks/dependency_down.md",
    remembered_days=1,
    one_at_a_time=True,
)
AUDIT_FAILED = AlertKind(
    "audit_failed",
    "page",
    "data broke expectations, which the message names; nothing of them was published",
    "docs/runbooks/features_failed.md",
    remembered_days=1,
    one_at_a_time=True,
)
DRILL_FAILED = AlertKind(
    "drill_failed",
    "page",
    "the version that a rollback would go to does not load or answer",
    "docs/runbooks/drill_failed.md",
    remembered_days=8,
    one_at_a_time=True,
)
MISSED_SCHEDULE = AlertKind(
    "missed_schedule",
    "page",
    "a run that was due is not there, one does not end, or a DAG is gone, and when they run as due again",
    "docs/runbooks/missed_schedule.md",
)
DAG_PAUSED = AlertKind(
    "dag_paused",
    "notice",
    "a DAG that was switched on is off, and when it is on again",
    "docs/runbooks/missed_schedule.md",
)
LATE_DATA = AlertKind(
    "late_data",
    "page",
    "a table lacks the rows of a day after its deadline, or a log was not landed, and when they are there",
    "docs/runbooks/late_data.md",
)
CANDIDATE_REJECTED = AlertKind(
    "candidate_rejected",
    "notice",
    "a candidate did not pass its gate; what serves is unchanged",
    "docs/runbooks/candidate_rejected.md",
)
CANDIDATE_REGISTERED = AlertKind(
    "candidate_registered",
    "notice",
    "a training ended with a candidate that its gate accepted, or a person overrode it; its rollout begins",
    "docs/runbooks/retraining.md",
)
ROLLOUT = AlertKind(
    "rollout",
    "notice",
    "a stage of a rollout passed, was superseded, or gave its candidate up; one thread for each rollout",
    "docs/runbooks/candidate_rolled_back.md",
)
ROLLBACK = AlertKind(
    "rollback",
    "notice",
    "a person took the traffic from a version and gave it to the one before",
    "docs/runbooks/candidate_rolled_back.md",
)
EXPERIMENT = AlertKind(
    "experiment",
    "notice",
    "an experiment ended, was superseded or was given up",
    "docs/runbooks/experiment_failed.md",
)
DRIFT = AlertKind(
    "drift",
    "notice",
    "features or predictions are spread otherwise than in the champion's own window, and when that is over",
    "docs/runbooks/drift.md",
)
LOST_TRAFFIC = AlertKind(
    "lost_traffic",
    "page",
    "a day has fewer than half the requests of the same day a week before, and when they are back",
    "docs/runbooks/drift.md",
)
DECAY = AlertKind(
    "decay",
    "notice",
    "the champion's answers are worse than on its test days, and when they no longer are",
    "docs/runbooks/decay.md",
)
SKEW = AlertKind(
    "skew",
    "notice",
    "served features are not those that training would have had, and when they are again",
    "docs/runbooks/skew.md",
)
RETRAINING_REQUESTED = AlertKind(
    "retraining_requested",
    "notice",
    "drift, decay or new events lead to a training",
    "docs/runbooks/retraining.md",
)
RETRAINING_HELD = AlertKind(
    "retraining_held",
    "notice",
    "there is cause to train, and too many candidates that did not win speak against it",
    "docs/runbooks/retraining.md",
)
BUDGET = AlertKind(
    "budget",
    "notice",
    "a week costs more than the use case's budget, or a training would; and when that is over",
    "docs/runbooks/budget.md",
)
ERASURE_DONE = AlertKind(
    "erasure_done",
    "notice",
    "a subject is erased everywhere and it was proved; what is left for a person is in the message",
    "docs/runbooks/erasure_failed.md",
)
ALERT_KINDS = (
    TASK_FAILED,
    DEPENDENCY_DOWN,
    AUDIT_FAILED,
    DRILL_FAILED,
    MISSED_SCHEDULE,
    DAG_PAUSED,
    LATE_DATA,
    LOST_TRAFFIC,
    DRIFT,
    DECAY,
    SKEW,
    RETRAINING_REQUESTED,
    RETRAINING_HELD,
    BUDGET,
    CANDIDATE_REGISTERED,
    CANDIDATE_REJECTED,
    ROLLOUT,
    ROLLBACK,
    EXPERIMENT,
    ERASURE_DONE,
)


def catalogue() -> str:
    """The catalogue, as Markdown."""
    lines = [
        "# Alerts",
        "",
        "Every alert there is, made from `plugins/airloop_airflow/alert_kinds.py`. A page wakes somebody; a",
        "notice waits until morning. How they get there: [alerts in Slack](how-to/get-alerts-in-slack.md).",
        "",
        "What a failed task says ends with what to do next, also where nobody foresaw the failure: a full",
        "disk, memory that ran out, a right that is missing. For what else there is, it is to ask the",
        "[doctor](how-to/ask-the-doctor.md).",
        "",
        "| alert | severity | when | runbook |",
        "|---|---|---|---|",
    ]
    for kind in ALERT_KINDS:
        name = kind.runbook.removeprefix("docs/")
        runbook = f"`{name}`" if "{" in name else f"[{name.removeprefix('runbooks/')}]({name})"
        runbook = runbook.replace("{dag_kind}", "<kind of DAG>")
        lines.append(f"| `{kind.name}` | {kind.severity} | {kind.when} | {runbook} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(catalogue(), end="")
