"""What jobs and clients talk to: MLflow, the model server, the gateway, Airflow, streams, remote compute.

Belongs here: asking each whether it is well. Does not belong here: stores of data (`stores`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from airloop.compute import Batch, EmrServerless, SageMaker
from airloop.connections import Connection
from airloop.doctor.examination import Failure
from airloop.settings import Settings

TIMEOUT_SECONDS = 5.0


def mlflow(settings: Settings) -> str:
    """It is well, and its registry answers."""
    answer = httpx.get(f"{settings.tracking_uri}/health", timeout=TIMEOUT_SECONDS)
    _well(answer)
    models = httpx.get(
        f"{settings.tracking_uri}/api/2.0/mlflow/registered-models/search",
        params={"max_results": 1},
        timeout=TIMEOUT_SECONDS,
    )
    _well(models)
    return settings.tracking_uri


def model_server(settings: Settings) -> str:
    """Its ModelService answers, be it that it has no such model."""
    import grpc  # type: ignore[import-untyped]  # its stubs are a package of their own

    if settings.model_server_authority is not None:
        credentials = grpc.ssl_channel_credentials(settings.model_server_authority.read_bytes())
        channel = grpc.secure_channel(settings.model_server_address, credentials)
    else:
        channel = grpc.insecure_channel(settings.model_server_address)
    # A GetModelStatusRequest for the model "doctor", written out: its classes come with TensorFlow.
    request = b"\x0a\x08\x0a\x06doctor"
    with channel:
        ask = channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")
        try:
            ask(request, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise Failure(f"{settings.model_server_address}: {error.code().name}") from None
    return settings.model_server_address


def gateway(settings: Settings) -> str:
    """It is ready to answer clients."""
    # Its certificate is for its clients, under whatever name they know it by.
    answer = httpx.get(
        f"{settings.gateway_url}/readyz",
        timeout=TIMEOUT_SECONDS,
        verify=False,  # noqa: S501  # nothing is told to it, and of its answer only the status counts
    )
    if answer.status_code == 503:
        raise Failure(
            f"{settings.gateway_url} lives and is not ready: {answer.text[:300]}",
            "see what it lacks; a new deployment has no model yet: make run",
        )
    _well(answer)
    return settings.gateway_url


def airflow(settings: Settings) -> str:
    """Its API answers, and each of its parts says that it lives."""
    answer = httpx.get(f"{settings.airflow_url}/api/v2/monitor/health", timeout=TIMEOUT_SECONDS)
    _well(answer)
    parts: dict[str, Any] = answer.json()
    ill = [name for name, part in parts.items() if part and part.get("status") not in ("healthy", None)]
    if ill:
        raise Failure(f"{settings.airflow_url}: {', '.join(ill)} not healthy")
    return settings.airflow_url


def kafka(connection: Connection) -> Callable[[Settings], str]:
    """The check of one broker: it tells its topics."""

    def look(settings: Settings) -> str:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        from airloop.sources.kafka_connection import client_options

        # Of its own complaints there are too many; the one that counts is raised.
        options = client_options(connection)
        quiet: dict[str, Any] = {"log_level": 0, "socket.timeout.ms": 5000, "error_cb": lambda _: None}
        client = AdminClient({**options, **quiet})
        try:
            found = client.list_topics(timeout=TIMEOUT_SECONDS)
        except KafkaException as error:
            raise Failure(f"{options['bootstrap.servers']}: {error.args[0].str()}") from None
        return f"{len(found.brokers)} brokers, {len(found.topics)} topics"

    return look


def kinesis(connection: Connection, streams: tuple[str, ...]) -> Callable[[Settings], str]:
    """The check of Kinesis: each of `streams` is active."""

    def look(settings: Settings) -> str:
        from airloop.sources.kinesis_connection import kinesis_client

        client = kinesis_client(connection)
        states = {
            name: client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"]
            for name in streams
        }
        bad = [f"{name} is {state}" for name, state in states.items() if state not in ("ACTIVE", "UPDATING")]
        if bad:
            raise Failure("; ".join(bad))
        return ", ".join(states)

    return look


def emr_serverless(place: EmrServerless) -> Callable[[Settings], str]:
    """The check of the application that Spark jobs are sent to."""

    def look(settings: Settings) -> str:
        client = _client(settings, "emr-serverless")
        state = client.get_application(applicationId=place.application_id)["application"]["state"]
        if state not in ("CREATED", "STARTING", "STARTED", "STOPPING", "STOPPED"):
            raise Failure(f"application {place.application_id} is {state}", "create it again")
        return f"application {place.application_id} is {state}; a job starts it"

    return look


def sagemaker(place: SageMaker) -> Callable[[Settings], str]:
    """The check of SageMaker: training jobs can be listed."""

    def look(settings: Settings) -> str:
        _client(settings, "sagemaker").list_training_jobs(MaxResults=1)
        return f"training jobs can be listed; they run on {place.instance_count} x {place.instance_type}"

    return look


def batch(place: Batch) -> Callable[[Settings], str]:
    """The check of the queue and the definition of jobs of AWS Batch."""

    def look(settings: Settings) -> str:
        client = _client(settings, "batch")
        queues = client.describe_job_queues(jobQueues=[place.job_queue])["jobQueues"]
        if not queues:
            raise Failure(f"no job queue {place.job_queue}")
        (queue,) = queues
        if (queue["state"], queue["status"]) != ("ENABLED", "VALID"):
            raise Failure(f"job queue {place.job_queue} is {queue['state']}, {queue['status']}")
        name, _, revision = place.job_definition.rpartition("/")[2].partition(":")
        found = client.describe_job_definitions(jobDefinitionName=name, status="ACTIVE")["jobDefinitions"]
        if not any(revision in ("", str(item["revision"])) for item in found):
            raise Failure(f"no active job definition {place.job_definition}")
        return f"job queue {place.job_queue} is ENABLED"

    return look


def _client(settings: Settings, service: str) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 1})
    return boto3.client(service, region_name=settings.aws_region, config=config)


def _well(answer: httpx.Response) -> None:
    if answer.status_code >= 400:
        raise Failure(f"{answer.request.url.copy_with(query=None)}: status {answer.status_code}")
