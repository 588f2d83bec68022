"""Jobs on EMR Serverless.

Belongs here: what its requests and answers look like. Does not belong here: the way of a job (`elsewhere`).

The application's image is ours (group `spark`), made on EMR's own: code in `/airloop`, environment in
`/venv`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Final

from airflow.providers.amazon.aws.hooks.emr import EmrServerlessHook
from airflow.providers.amazon.aws.operators.emr import EmrServerlessStartJobOperator
from airflow.providers.amazon.aws.triggers.emr import EmrServerlessStartJobTrigger

from airloop.compute import EmrServerless
from airloop.settings import Settings
from airloop_airflow.compute import service
from airloop_airflow.compute.service import CONNECTION, Asked, Live, Service, Used

IMAGE_CODE: Final = "/airloop"
IMAGE_JARS: Final = "file:///airloop/.airloop/jars/*.jar"
IMAGE_PYTHON: Final = "/venv/bin/python"
ENTRY_POINT: Final = f"local://{IMAGE_CODE}/spark_jobs/submitted.py"
LIVE: Final = ("SUBMITTED", "PENDING", "SCHEDULED", "QUEUED", "RUNNING")
LONGEST_MINUTES: Final = 12 * 60
HOUR_SECONDS: Final = 3600


class OnEmrServerless(Service):
    """An application of EMR Serverless."""

    title = "EMR Serverless"

    def __init__(self, place: EmrServerless, settings: Settings) -> None:
        self._place, self._settings = place, settings
        self._client = EmrServerlessHook(aws_conn_id=CONNECTION, region_name=settings.aws_region).conn

    def live(self, stem: str) -> list[Live]:
        found = []
        pages = self._client.get_paginator("list_job_runs").paginate(
            applicationId=self._place.application_id, states=list(LIVE)
        )
        try:
            for page in pages:
                found += [item for item in page["jobRuns"] if item.get("name", "").startswith(stem)]
        except self._client.exceptions.ResourceNotFoundException:
            # Starting says what is wrong with the application, if anything is.
            return []
        found.sort(key=lambda item: item["createdAt"], reverse=True)
        return [Live(item["name"], item["id"]) for item in found]

    def operator(self, task_id: str, asked: Asked) -> EmrServerlessStartJobOperator:
        place, key = self._place, self._settings.kms_key
        encrypted = {} if key is None else {"encryptionKeyArn": key}
        return EmrServerlessStartJobOperator(
            task_id=task_id,
            application_id=place.application_id,
            execution_role_arn=place.execution_role,
            name=asked.name,
            # The service starts one job for a token, however often it is asked.
            client_request_token=asked.name,
            job_driver={
                "sparkSubmit": {
                    "entryPoint": ENTRY_POINT,
                    "entryPointArguments": [asked.folder.uri],
                    "sparkSubmitParameters": self._submit_parameters(),
                }
            },
            configuration_overrides={
                "monitoringConfiguration": {
                    "cloudWatchLoggingConfiguration": {
                        "enabled": True,
                        "logGroupName": place.log_group,
                        "logStreamNamePrefix": asked.name,
                        **encrypted,
                    },
                    "managedPersistenceMonitoringConfiguration": {"enabled": True, **encrypted},
                }
            },
            config={"tags": dict(asked.tags), "executionTimeoutMinutes": LONGEST_MINUTES},
            deferrable=True,
            waiter_delay=service.POLL_SECONDS,
            waiter_max_attempts=_attempts(),
            openlineage_inject_parent_job_info=False,
            openlineage_inject_transport_info=False,
            aws_conn_id=CONNECTION,
            region_name=self._settings.aws_region,
            do_xcom_push=False,
        )

    def _submit_parameters(self) -> str:
        place = self._place
        # EMR reads no environment of the image.
        options = {
            # Of a running driver's, only executors get more.
            "spark.jars": IMAGE_JARS,
            "spark.driver.cores": place.driver_cores,
            "spark.driver.memory": f"{place.driver_memory_gib}g",
            "spark.executor.cores": place.executor_cores,
            "spark.executor.memory": f"{place.executor_memory_gib}g",
            "spark.dynamicAllocation.enabled": "true",
            "spark.dynamicAllocation.maxExecutors": place.most_executors,
            "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON": IMAGE_PYTHON,
            "spark.emr-serverless.driverEnv.PYSPARK_PYTHON": IMAGE_PYTHON,
            "spark.emr-serverless.driverEnv.PYTHONPATH": f"{IMAGE_CODE}/src:{IMAGE_CODE}",
            "spark.emr-serverless.driverEnv.AIRLOOP_REPOSITORY": IMAGE_CODE,
            "spark.emr-serverless.driverEnv.AIRLOOP_SPARK_MASTER": "submitted",
            "spark.executorEnv.PYSPARK_PYTHON": IMAGE_PYTHON,
            "spark.executorEnv.PYTHONPATH": f"{IMAGE_CODE}/src:{IMAGE_CODE}",
        }
        return " ".join(f"--conf {shlex.quote(f'{name}={value}')}" for name, value in options.items())

    def job_id(self, operator: Any) -> str | None:
        found: str | None = operator.job_id
        return found

    def trigger(self, job_id: str) -> EmrServerlessStartJobTrigger:
        # The provider's stops the job by itself when a person stops the task.
        return EmrServerlessStartJobTrigger(
            application_id=self._place.application_id,
            job_id=job_id,
            waiter_delay=service.POLL_SECONDS,
            waiter_max_attempts=_attempts(),
            aws_conn_id=CONNECTION,
            region_name=self._settings.aws_region,
        )

    def event(self, job_id: str) -> Mapping[str, Any]:
        details = {"application_id": self._place.application_id, "job_id": job_id}
        return {"status": "success", "job_details": details}

    def stop(self, job_id: str) -> None:
        if self._job(job_id)["state"] in LIVE:
            self._client.cancel_job_run(applicationId=self._place.application_id, jobRunId=job_id)

    def used(self, job_id: str) -> Used | None:
        job = self._job(job_id)
        billed = job.get("billedResourceUtilization", {})
        return Used(
            began=job.get("startedAt") or job["createdAt"],
            billed_seconds=float(job.get("totalExecutionDurationSeconds") or 0),
            cpu_seconds=billed.get("vCPUHour", 0.0) * HOUR_SECONDS,
            memory_gib_seconds=billed.get("memoryGBHour", 0.0) * HOUR_SECONDS,
        )

    def _job(self, job_id: str) -> Mapping[str, Any]:
        answer = self._client.get_job_run(applicationId=self._place.application_id, jobRunId=job_id)
        found: Mapping[str, Any] = answer["jobRun"]
        return found


def _attempts() -> int:
    return LONGEST_MINUTES * 60 // service.POLL_SECONDS + 1
