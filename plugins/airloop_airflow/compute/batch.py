"""Jobs on AWS Batch; one that several hosts can share as a multi-node parallel job.

Belongs here: what its requests and answers look like. Does not belong here: the way of a job (`elsewhere`).

Image, role, sizes and log group are the job definition's. That of a multi-node job must have node 0 as its
main node: it writes the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from airflow.providers.amazon.aws.hooks.batch_client import BatchClientHook
from airflow.providers.amazon.aws.operators.batch import BatchOperator
from airflow.providers.amazon.aws.triggers.batch import BatchJobTrigger
from asgiref.sync import sync_to_async

from airloop.compute import Batch
from airloop.settings import Settings
from airloop_airflow.compute import service
from airloop_airflow.compute.service import CONNECTION, Asked, Live, Service, Used

LIVE: Final = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
REASON: Final = "its task in Airflow was stopped"
QUEUE_SECONDS: Final = 12 * 3600
"""How long a job may wait for machines, beside its time of computing."""


class StoppingTrigger(BatchJobTrigger):
    """The provider's, which leaves the job alone when a person stops the task."""

    async def on_kill(self) -> None:
        """Stop the job."""
        client = self.hook().conn
        await sync_to_async(client.terminate_job)(jobId=self.serialized_fields["job_id"], reason=REASON)


class OnBatch(Service):
    """A queue of AWS Batch."""

    title = "AWS Batch"
    needs_checkpoint_copies = True

    def __init__(self, place: Batch, settings: Settings) -> None:
        self._place, self._settings = place, settings
        self._client = BatchClientHook(aws_conn_id=CONNECTION, region_name=settings.aws_region).conn

    def live(self, stem: str) -> list[Live]:
        pages = self._client.get_paginator("list_jobs").paginate(
            jobQueue=self._place.job_queue, filters=[{"name": "JOB_NAME", "values": [f"{stem}*"]}]
        )
        found = [item for page in pages for item in page["jobSummaryList"] if item["status"] in LIVE]
        found.sort(key=lambda item: item["createdAt"], reverse=True)
        return [Live(item["jobName"], item["jobId"]) for item in found]

    def operator(self, task_id: str, asked: Asked) -> BatchOperator:
        place = self._place
        command = {"command": ["python", "-m", "airloop.remote_job", asked.folder.uri]}
        # A definition for several nodes takes overrides of nodes only, also for a job that needs one.
        if place.nodes > 1:
            overrides: dict[str, Any] = {
                "node_overrides": {
                    "numNodes": place.nodes if asked.several_hosts else 1,
                    "nodePropertyOverrides": [{"targetNodes": "0:", "containerOverrides": command}],
                }
            }
        else:
            overrides = {"container_overrides": command}
        return BatchOperator(
            task_id=task_id,
            job_name=asked.name,
            job_queue=place.job_queue,
            job_definition=place.job_definition,
            tags=dict(asked.tags),
            submit_job_timeout=place.longest_seconds,
            poll_interval=service.POLL_SECONDS,
            max_retries=self._attempts(),
            deferrable=True,
            aws_conn_id=CONNECTION,
            region_name=self._settings.aws_region,
            do_xcom_push=False,
            **overrides,
        )

    def job_id(self, operator: Any) -> str | None:
        found: str | None = operator.job_id
        return found

    def trigger(self, job_id: str) -> StoppingTrigger:
        return StoppingTrigger(
            job_id=job_id,
            waiter_delay=service.POLL_SECONDS,
            waiter_max_attempts=self._attempts(),
            aws_conn_id=CONNECTION,
            region_name=self._settings.aws_region,
        )

    def event(self, job_id: str) -> Mapping[str, Any]:
        return {"status": "success", "job_id": job_id}

    def stop(self, job_id: str) -> None:
        job = self._job(job_id)
        if job is not None and job["status"] in LIVE:
            self._client.terminate_job(jobId=job_id, reason=REASON)

    def used(self, job_id: str) -> Used | None:
        job = self._job(job_id)
        if job is None or not job.get("startedAt"):
            return None
        began = datetime.fromtimestamp(job["startedAt"] / 1000, UTC)
        ended = datetime.fromtimestamp(job.get("stoppedAt", job["startedAt"]) / 1000, UTC)
        return Used(began, max((ended - began).total_seconds(), 0.0))

    def _job(self, job_id: str) -> Mapping[str, Any] | None:
        found = self._client.describe_jobs(jobs=[job_id])["jobs"]
        return found[0] if found else None

    def _attempts(self) -> int:
        return (self._place.longest_seconds + QUEUE_SECONDS) // service.POLL_SECONDS
