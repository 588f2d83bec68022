"""`<use_case>_silence`: a person does not want to hear of a cause until a date, and says why."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.retraining_policy import CAUSES
from airloop.use_cases.spec import UseCase
from airloop_airflow.dependencies import check_first
from airloop_airflow.forms import ask
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import dag_arguments

DOC = """
### Silence

Keeps a cause quiet until a date: no alert of it is sent, and it leads to no training. Started by hand only:
`airflow dags trigger {dag_id} --conf '{"cause": "drift", "until": "2026-12-01T00:00:00Z", "by": "<name>",
"reason": "<why>"}'`. What is silenced is still judged and kept; the log of what would have been said has the
reason. A moment that is past lifts a silence. Name and reason are in the audit log.

| task | what it does | when it fails |
|---|---|---|
| `silence` | to `monitoring.<use case>_silences` and the audit log | it says why |

Runbook: `docs/runbooks/silence_failed.md`; when to, and when not: `docs/runbooks/retraining.md`.
"""


def build(use_case: UseCase) -> DAG:
    """The silence DAG of `use_case`."""
    dag_id = f"{use_case.name}_silence"
    with DAG(
        dag_id,
        description=f"A cause is kept quiet: {use_case.description}",
        doc_md=DOC.replace("{dag_id}", dag_id),
        schedule=None,
        # A run that a person triggers on a paused DAG would wait for ever.
        is_paused_upon_creation=False,
        **dag_arguments(use_case, "silence"),
    ) as dag:
        job_task(
            use_case,
            "silence",
            "airloop.monitoring.silence",
            {
                "cause": "{{ params.cause }}",
                "until": "{{ params.until }}",
                "by": "{{ params.by }}",
                "reason": "{{ params.reason }}",
                "at": "{{ dag_run.run_after.isoformat() }}",
            },
        )
    check_first(dag)
    ask(
        dag,
        {
            "cause": Param(
                type="string",
                minLength=1,
                examples=[*CAUSES, "lost_traffic", "skew"],
                title="Cause",
                description="drift, decay, new_events, lost_traffic, skew, or `drift of <feature>` for one",
            ),
            "until": Param(
                type="string",
                format="date-time",
                title="Until",
                description="UTC, at most 90 days ahead; a moment that is past lifts a silence",
            ),
            "by": Param(
                type="string",
                minLength=1,
                title="Your name",
                description="who silences it; it is recorded",
            ),
            "reason": Param(
                type="string",
                minLength=1,
                title="Reason",
                description="why; who is on call next reads it",
            ),
        },
    )
    return dag


for _use_case in all_use_cases():
    if _use_case.is_online:
        globals()[f"{_use_case.name}_silence"] = build(_use_case)
