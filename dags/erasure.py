"""`erasure`: one subject out of every table, the online store, logs and reports; proved, and written down."""

from __future__ import annotations

from airflow.sdk import DAG, Param, chain, task

from airloop.connections import PSEUDONYM_KEY
from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow import assets, retraining, run_times
from airloop_airflow.dependencies import check_first
from airloop_airflow.erasure import forget_subject, hand_over_subject, tell_done, trainings_to_request
from airloop_airflow.forms import ask
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import owned_by, platform_arguments

DOC = """
### Erasure

Takes everything about one subject out: rows of every table on every branch and tag, the snapshots and files
that held them, the online store, logs and reports. **By default a dry run**, which ends with `models_used`.
Started by hand only: `airflow dags trigger erasure --conf '{"subject": "...", "reason": "ticket 7",
"use_case": "...", "dry_run": false}'`.

| task | what it does | when it fails |
|---|---|---|
| `hand_over` | writes the subject to a private file for the jobs | it is unusable, or the reason names it |
| `plan` | counts the subject's rows, entries, training sets | |
| `models_used` | lists the models trained on them | MLflow is down |
| `confirmed` | ends a dry run here | |
| `erase` | keeps the subject out from now on, then erases it | a file may still be written: wait, clear it |
| `prove` | scans every file and the online store | something is left: the message says where |
| `models` | marks the models, revokes them where the spec says so | MLflow is down |
| `write_down` | appends to the audit log | the log was tampered with |
| `keep_list` | keeps the list of the erased beside the backups; skipped where none are made | clear it |
| `tell` | says in Slack that it is done, without the name | never by Slack's fault |
| `decide` | which use cases are to be trained again | |
| `retrain_<use_case>` | requests it, through the Asset that training starts from | |
| `forget` | removes the private file, whatever happened | |

The run's configuration names the subject, and Airflow keeps it: delete the run when it is done, as
`docs/how-to/erase-a-subject.md` says. Runbook: `docs/runbooks/erasure_failed.md`.
"""


WHY = "rows of a subject that was erased were in its training set"


def build(use_cases: tuple[UseCase, ...]) -> DAG:
    """The erasure DAG of `use_cases`, those whose spec says how a subject is erased."""
    hashed = any(feed.has_hashed_columns for spec in use_cases for feed in spec.feeds)
    connections = (PSEUDONYM_KEY,) if hashed else ()
    with DAG(
        "erasure",
        description="Erases one subject everywhere, proves it and writes it down",
        doc_md=DOC,
        schedule=None,
        # A run that on-call triggers on a paused DAG would wait for ever.
        is_paused_upon_creation=False,
        **platform_arguments("erasure"),
    ) as dag:
        handed = task(hand_over_subject, task_id="hand_over")().as_setup()
        subject = {"use-case": "{{ params.use_case }}", "subject-file": handed}
        plan = job_task(
            None, "plan", "spark_jobs.erasure", {**subject, "step": "plan"}, connections=connections
        )
        found = {"plan": plan.output}
        models_used = job_task(None, "models_used", "airloop.erasure.models", found)
        gate = task.short_circuit(run_times.is_no_dry_run, task_id="confirmed")()
        erase = job_task(
            None,
            "erase",
            "spark_jobs.erasure",
            {**subject, "step": "erase", "grace-minutes": "{{ params.grace_minutes }}"},
            connections=connections,
        )
        prove = job_task(
            None,
            "prove",
            "spark_jobs.erasure",
            {**subject, "step": "prove", "accept-similar": "{{ params.accept_similar | lower }}"},
            connections=connections,
        )
        models = job_task(None, "models", "airloop.erasure.models", {"done": erase.output})
        write_down = job_task(
            None,
            "write_down",
            "airloop.erasure.record",
            {
                **found,
                "done": erase.output,
                "proof": prove.output,
                "models": models.output,
                "reason": "{{ params.reason }}",
                "who": "{{ dag_run.triggering_user_name or '' }}",
            },
        )
        keep_list = job_task(None, "keep_list", "airloop.backup.erasures", {})
        told = task(tell_done, task_id="tell")(prove.output, models.output, write_down.output)
        decision = task.branch(trainings_to_request, task_id="decide")(models.output)
        requests = [
            task(
                retraining.request,
                task_id=f"retrain_{spec.name}",
                outlets=[assets.retrain_request(spec)],
                **owned_by(spec),
            )(assets.retrain_request(spec), WHY)
            for spec in use_cases
        ]
        forgotten = task(forget_subject, task_id="forget")(handed).as_teardown(setups=handed)
        chain(told, forgotten)
        chain(write_down, keep_list)
        chain(plan, models_used, gate, erase, prove, models, write_down, decision, requests, forgotten)
    check_first(dag)
    ask(
        dag,
        {
            "subject": Param(
                type="string",
                minLength=3,
                maxLength=256,
                title="Subject",
                description="exactly as the source writes it",
            ),
            "use_case": Param(
                use_cases[0].name,
                type="string",
                enum=[spec.name for spec in use_cases],
                title="Use case",
                description="whose spec says what a subject is",
            ),
            "reason": Param(
                type="string",
                minLength=3,
                title="Reason",
                description="for the audit log; a ticket number, never the subject",
            ),
            "dry_run": Param(
                True, type="boolean", title="Dry run", description="only say what would be done"
            ),
            "accept_similar": Param(
                False,
                type="boolean",
                title="Accept similar names",
                description="longer names that contain the subject's were looked at and are others'",
            ),
            "grace_minutes": Param(
                180,
                type="integer",
                minimum=0,
                title="Grace",
                description="minutes after which a file that no table knows has no writer any more",
            ),
        },
    )
    return dag


if _use_cases := tuple(spec for spec in all_use_cases() if spec.erasure is not None):
    erasure = build(_use_cases)
