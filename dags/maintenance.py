"""`maintenance`: files compacted, old snapshots expired, unknown files removed; daily, beside writers."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow.dependencies import check_first
from airloop_airflow.forms import ask, optional_text
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import platform_arguments, schedule

DOC = """
### Maintenance

Keeps each use case's tables small and quick, within the `retention` of its spec. What `main`, a training
set's tag or a kept snapshot shows never changes, and runs that write go on meanwhile.

| task | what it does | when it fails |
|---|---|---|
| `<use case>` | small files become one, what is past its retention goes, orphan files go | clear it: safe |

By hand, for some tables, or only to be told what it would do:
`airflow dags trigger maintenance --conf '{"dry_run": true, "tables": "clean.<table>"}'`.
Runbook: `docs/runbooks/maintenance_failed.md`.
"""


def build(use_cases: tuple[UseCase, ...]) -> DAG:
    """The maintenance DAG of `use_cases`."""
    with DAG(
        "maintenance",
        description="Compaction, snapshot expiry and orphan files, within each use case's retention",
        doc_md=DOC,
        schedule=schedule("30 3 * * *", timedelta(days=1)),
        is_paused_upon_creation=False,
        **platform_arguments("maintenance"),
    ) as dag:
        flags = {
            "as-of": "{{ dag_run.run_after.isoformat() }}",
            "tables": "{{ params.tables or '' }}",
            "dry-run": "{{ params.dry_run | lower }}",
        }
        for spec in use_cases:
            job_task(spec, spec.name, "spark_jobs.maintenance", flags)
    check_first(dag)
    ask(
        dag,
        {
            "use_case": optional_text(
                enum=[None, *(spec.name for spec in use_cases)],
                title="Use case",
                description="only this one's tables; empty for all",
            ),
            "tables": optional_text(
                title="Tables",
                description="only these, comma-separated, such as raw.<feed>; empty for all",
            ),
            "dry_run": Param(False, type="boolean", title="Dry run", description="only count"),
        },
    )
    return dag


maintenance = build(all_use_cases())
