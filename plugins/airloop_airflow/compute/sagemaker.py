"""Jobs as SageMaker trainings, on spot machines where the deployment says so.

Belongs here: what its requests and answers look like. Does not belong here: the way of a job (`elsewhere`).

SageMaker copies `/opt/ml/checkpoints` to S3 while a job runs, and back when it starts again: after a spot
machine was taken away by itself, after a failed try because every try of a task has the same place there. It
encrypts the copies as their bucket does by default, and has no key of its own for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook
from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTrainingOperator
from airflow.providers.amazon.aws.triggers.sagemaker import SageMakerTrigger
from asgiref.sync import sync_to_async

from airloop.compute import SageMaker
from airloop.settings import Settings
from airloop_airflow.compute import service
from airloop_airflow.compute.service import CONNECTION, Asked, Live, Service, Used

CHECKPOINTS: Final = "/opt/ml/checkpoints"
LIVE: Final = "InProgress"
_HAS_OWN_DISK: Final = re.compile(r"^ml\.(g\d|p[45]|trn|[a-z]\d+[a-z]*d[a-z]*\.)")
"""Machines with a disk of their own, which encrypts itself: for those SageMaker refuses a volume's key."""


class StoppingTrigger(SageMakerTrigger):
    """The provider's, which leaves the job alone when a person stops the task."""

    async def on_kill(self) -> None:
        """Stop the job."""
        client = self.hook().conn
        await sync_to_async(client.stop_training_job)(TrainingJobName=self.job_name)


class OnSageMaker(Service):
    """SageMaker's trainings."""

    title = "SageMaker"

    def __init__(self, place: SageMaker, settings: Settings) -> None:
        self._place, self._settings = place, settings
        self._client = SageMakerHook(  # type: ignore[no-untyped-call]
            aws_conn_id=CONNECTION, region_name=settings.aws_region
        ).conn

    def live(self, stem: str) -> list[Live]:
        pages = self._client.get_paginator("list_training_jobs").paginate(
            NameContains=stem, StatusEquals=LIVE, SortBy="CreationTime", SortOrder="Descending"
        )
        found = [item["TrainingJobName"] for page in pages for item in page["TrainingJobSummaries"]]
        return [Live(name, name) for name in found if name.startswith(stem)]

    def has_had(self, name: str) -> bool:
        return self._job(name) is not None

    def operator(self, task_id: str, asked: Asked) -> SageMakerTrainingOperator:
        place, key = self._place, self._settings.kms_key
        hosts = place.instance_count if asked.several_hosts else 1
        stopping = {"MaxRuntimeInSeconds": place.longest_seconds}
        if place.spot:
            # Longer than the computing that it includes, or SageMaker refuses it.
            stopping["MaxWaitTimeInSeconds"] = max(place.longest_wait_seconds, place.longest_seconds)
        resources = {
            "InstanceType": place.instance_type,
            "InstanceCount": hosts,
            "VolumeSizeInGB": place.volume_gib,
        }
        if key is not None and not _HAS_OWN_DISK.match(place.instance_type):
            resources["VolumeKmsKeyId"] = key
        config: dict[str, Any] = {
            "TrainingJobName": asked.name,
            "AlgorithmSpecification": {
                "TrainingImage": place.image,
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["python", "-m", "airloop.remote_job"],
                "ContainerArguments": [asked.folder.uri],
            },
            "RoleArn": place.execution_role,
            "OutputDataConfig": {
                "S3OutputPath": f"{asked.folder.uri}/output",
                **({} if key is None else {"KmsKeyId": key}),
            },
            "ResourceConfig": resources,
            "StoppingCondition": stopping,
            "EnableManagedSpotTraining": place.spot,
            "CheckpointConfig": {"S3Uri": asked.checkpoints_uri, "LocalPath": CHECKPOINTS},
            "EnableNetworkIsolation": False,
            "EnableInterContainerTrafficEncryption": hosts > 1,
            "Environment": {"AIRLOOP_TRAINING_CHECKPOINTS_DIR": CHECKPOINTS, "PYTHONUNBUFFERED": "1"},
            "Tags": [{"Key": name, "Value": value} for name, value in asked.tags.items()],
        }
        if place.subnets:
            config["VpcConfig"] = {
                "Subnets": list(place.subnets),
                "SecurityGroupIds": list(place.security_groups),
            }
        return SageMakerTrainingOperator(
            task_id=task_id,
            config=config,
            print_log=False,
            # Whether there is a job of the name is asked before, and one that runs is adopted.
            check_if_job_exists=False,
            check_interval=service.POLL_SECONDS,
            max_attempts=self._attempts(),
            deferrable=True,
            aws_conn_id=CONNECTION,
            region_name=self._settings.aws_region,
            do_xcom_push=False,
        )

    def job_id(self, operator: Any) -> str | None:
        found: str = operator.config["TrainingJobName"]
        return found

    def trigger(self, job_id: str) -> StoppingTrigger:
        return StoppingTrigger(
            job_name=job_id,
            job_type="Training",
            waiter_delay=service.POLL_SECONDS,
            waiter_max_attempts=self._attempts(),
            aws_conn_id=CONNECTION,
            region_name=self._settings.aws_region,
        )

    def event(self, job_id: str) -> Mapping[str, Any]:
        return {"status": "success", "job_name": job_id}

    def stop(self, job_id: str) -> None:
        job = self._job(job_id)
        if job is not None and job["TrainingJobStatus"] == LIVE:
            self._client.stop_training_job(TrainingJobName=job_id)

    def used(self, job_id: str) -> Used | None:
        job = self._job(job_id)
        if job is None or "TrainingStartTime" not in job:
            return None
        ended = job.get("TrainingEndTime", job["TrainingStartTime"])
        lasted = (ended - job["TrainingStartTime"]).total_seconds()
        # With spot machines fewer than it lasted: what they were cheaper by is left out.
        billed = job.get("BillableTimeInSeconds")
        return Used(job["TrainingStartTime"], float(lasted if billed is None else billed))

    def _job(self, name: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self._client.describe_training_job(TrainingJobName=name)
        except self._client.exceptions.ClientError as error:
            # The service's way to say that there is none.
            if error.response["Error"]["Code"] == "ValidationException":
                return None
            raise
        return found

    def _attempts(self) -> int:
        longest = max(self._place.longest_seconds, self._place.longest_wait_seconds)
        return longest // service.POLL_SECONDS + 60
