"""`backup`: what cannot be rebuilt, to where `AIRLOOP_BACKUP_URI` says; daily, beside all that runs."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, chain

from airloop_airflow.dependencies import check_first
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import platform_arguments, schedule

DOC = """
### Backup

Copies what nothing makes again as it was: the databases of Airflow, MLflow, tuning and Feast, the catalog and
its tables, artifacts of registered models, spools, the audit log and the list of the erased. Contents that an
earlier backup has are not written again. Backups that are older than `AIRLOOP_BACKUP_DAYS` are given up.
Without `AIRLOOP_BACKUP_URI` it is skipped.

| task | what it does | when it fails |
|---|---|---|
| `create` | one backup, whole or not at all | clear it: safe |
| `verify` | reads what it wrote back | a byte is not what was written: the message says where |

Runbook: `docs/runbooks/backup_failed.md`; restoring: `docs/how-to/back-up-and-restore.md`.
"""


def build() -> DAG:
    """The backup DAG of the platform."""
    with DAG(
        "backup",
        description="What cannot be rebuilt, copied elsewhere and read back; daily",
        doc_md=DOC,
        schedule=schedule("15 2 * * *", timedelta(days=1)),
        is_paused_upon_creation=False,
        **platform_arguments("backup"),
    ) as dag:
        timeout = timedelta(hours=6)
        create = job_task(
            None,
            "create",
            "airloop.backup.create",
            {"if-configured": "true"},
            timeout=timeout,
            multiple_outputs=True,
        )
        verify = job_task(
            None,
            "verify",
            "airloop.backup.verify",
            {"backup": create.output["name"], "only-new": "true"},
            timeout=timeout,
        )
        chain(create, verify)
    check_first(dag)
    return dag


backup = build()
