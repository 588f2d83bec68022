"""A task that asks a person as a rollout does, and what becomes of a job's flag that has the answer."""

from __future__ import annotations

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

from airloop_airflow.approval import APPROVED_BY, TASK_ID, PersonApproves

with DAG("asks", schedule=None):
    ask = PersonApproves(task_id=TASK_ID, subject="Shall it?", fail_on_reject=True)
    told = f"printf '%s' \"{APPROVED_BY}\" > {{{{ dag_run.conf['file'] }}}}"
    ask >> BashOperator(task_id="promote", bash_command=told)
