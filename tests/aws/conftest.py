"""AWS on loopback: moto's server, an Airflow connection that leads there, and every call written down.

moto runs no jobs: those of EMR Serverless and SageMaker have ended well as soon as they are there, those of
Batch want Docker. Here all run until a test ends them, and `Aws.play` does what they would.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

HOME = tempfile.mkdtemp(prefix="airloop-aws-")
os.environ.setdefault("AIRFLOW_HOME", HOME)
os.environ.setdefault("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{HOME}/airflow.db")
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")

import boto3  # noqa: E402 - Airflow's home is set first
from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook  # noqa: E402
from airflow.sdk.exceptions import TaskDeferred  # noqa: E402
from moto.backends import get_backend  # noqa: E402
from moto.batch_simple.models import BatchSimpleBackend  # noqa: E402
from moto.core.config import default_user_config  # noqa: E402
from moto.emrserverless import models as emr_models  # noqa: E402
from moto.emrserverless.responses import EMRServerlessResponse  # noqa: E402
from moto.sagemaker.models import FakeTrainingJob  # noqa: E402
from moto.sagemaker.responses import SageMakerResponse  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402

from airloop import compute  # noqa: E402
from airloop.settings import REPOSITORY, Settings, load_settings  # noqa: E402
from airloop_airflow.compute import service  # noqa: E402
from airloop_airflow.jobs import JobOperator  # noqa: E402
from tests.aws.recorder import Recorder  # noqa: E402

REGION = "eu-west-1"
ACCOUNT = "123456789012"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/5d2f1c1e-0000-4000-8000-000000000001"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/airloop-jobs"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/airloop-training:1"
BUCKET = "airloop-jobs"
MODULE = "tests.aws.small_job"
PASSWORD = "o'hare-secret"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}
CALLS: list[tuple[str, str, str]] = []
"""Service, operation, and the test in which it was called."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """moto's server, whose jobs run until they are ended."""
    begun, get_parameter = FakeTrainingJob.__init__, EMRServerlessResponse._get_param

    def running(self: FakeTrainingJob, *arguments: Any, **names: Any) -> None:
        begun(self, *arguments, **names)
        self.training_job_status = self.secondary_status = "InProgress"

    def stop_training_job(self: SageMakerResponse) -> str:
        job = self.sagemaker_backend.training_jobs[self._get_param("TrainingJobName")]
        job.training_job_status = "Stopped"
        return "{}"

    def submitted(self: BatchSimpleBackend, include_start_attempt: bool, job: Any) -> None:
        self.backend._jobs[job.job_id] = job
        job.status, job.job_started_at = "RUNNING", datetime.now()
        job.log_stream_name = job._stream_name
        job.terminate = lambda reason: job._mark_stopped(success=False)

    def parameter(self: EMRServerlessResponse, name: str, default: Any = None) -> Any:
        # moto looks at the first of several states.
        if name == "states":
            return self.querystring.get(name, default)
        return get_parameter(self, name, default)

    patch = pytest.MonkeyPatch()
    # For its user agent the provider reads the source of each frame of the stack: half of the tests' time.
    patch.setattr(AwsGenericHook, "_get_caller", staticmethod(lambda *_, **__: "Unknown"))
    patch.setattr(emr_models, "JOB_STATUS", "RUNNING")
    patch.setattr(EMRServerlessResponse, "_get_param", parameter)
    patch.setattr(FakeTrainingJob, "__init__", running)
    patch.setattr(SageMakerResponse, "stop_training_job", stop_training_job, raising=False)
    patch.setattr(BatchSimpleBackend, "_mark_job_as_finished", submitted)
    patch.setitem(default_user_config, "batch", {"use_docker": False})
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()
    patch.undo()


class Aws:
    """What tests do with AWS, and what AWS would do by itself."""

    def __init__(self, url: str, recorder: Recorder, player: subprocess.Popen[str]) -> None:
        self.url, self.recorder, self._player = url, recorder, player
        self.places: dict[str, dict[str, Any]] = {}

    def client(self, name: str) -> Any:
        """A client whose calls are nobody's but the test's."""
        if name not in _CLIENTS:
            _CLIENTS[name] = _SESSION.client(name, endpoint_url=self.url)
        return _CLIENTS[name]

    def prepare(self) -> None:
        """The account as the infrastructure makes it."""
        s3 = self.client("s3")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        secret = json.dumps({"conn_type": "postgres", "host": "db", "password": PASSWORD})
        secrets = self.client("secretsmanager")
        secrets.create_secret(Name="airloop/connections/departures", SecretString=secret)
        secrets.create_secret(Name="airloop/database-passwords", SecretString=f"db:5432:*:reader:{PASSWORD}")
        application = self.client("emr-serverless").create_application(
            name="airloop", releaseLabel="emr-7.9.0", type="SPARK", clientToken="1"
        )["applicationId"]
        self.client("iam").create_role(RoleName="airloop-jobs", AssumeRolePolicyDocument="{}")
        batch = self.client("batch")
        environment = batch.create_compute_environment(
            computeEnvironmentName="gpus", type="UNMANAGED", state="ENABLED", serviceRole=ROLE
        )["computeEnvironmentArn"]
        queue = batch.create_job_queue(
            jobQueueName="airloop",
            state="ENABLED",
            priority=1,
            computeEnvironmentOrder=[{"order": 1, "computeEnvironment": environment}],
        )["jobQueueArn"]
        container = {"image": IMAGE, "vcpus": 4, "memory": 8192}
        one = batch.register_job_definition(
            jobDefinitionName="training", type="container", containerProperties=container
        )["jobDefinitionArn"]
        several = batch.register_job_definition(
            jobDefinitionName="training-hosts",
            type="multinode",
            nodeProperties={
                "numNodes": 2,
                "mainNode": 0,
                "nodeRangeProperties": [{"targetNodes": "0:", "container": container}],
            },
        )["jobDefinitionArn"]
        self.places = {
            "emr_serverless": {"application_id": application, "execution_role": ROLE},
            "sagemaker": {"execution_role": ROLE, "image": IMAGE},
            "batch": {"job_queue": queue, "job_definition": one},
            "batch_hosts": {"kind": "batch", "job_queue": queue, "job_definition": several, "nodes": 2},
        }

    def jobs(self, kind: str) -> list[Any]:
        """moto's own objects of the jobs of a service, the oldest first."""
        if kind == "emr_serverless":
            runs = get_backend("emr-serverless")[ACCOUNT][REGION].job_runs.values()
            return [run for of_application in runs for run in of_application]
        if kind == "sagemaker":
            return list(get_backend("sagemaker")[ACCOUNT][REGION].training_jobs.values())
        return list(get_backend("batch")[ACCOUNT][REGION]._jobs.values())

    def states(self, kind: str) -> list[str]:
        """How each job is, in the service's words."""
        names = {"emr_serverless": "state", "sagemaker": "training_job_status", "batch": "status"}
        return [getattr(job, names[kind]) for job in self.jobs(kind)]

    def end(self, kind: str, *, well: bool = True) -> None:
        """Have the newest job end as the service would say it."""
        job = self.jobs(kind)[-1]
        if kind == "emr_serverless":
            job.state = "SUCCESS" if well else "FAILED"
            job.total_execution_duration_seconds = 120
            job.billed_resource_utilization = {"vCPUHour": 0.5, "memoryGBHour": 2.0, "storageGBHour": 0.1}
        elif kind == "sagemaker":
            job.training_job_status = "Completed" if well else "Failed"
            job.training_end_time = job.training_start_time + timedelta(seconds=200)
            job.billable_time_in_seconds = 60
        else:
            job._mark_stopped(success=well)
            job.job_stopped_at = job.job_started_at + timedelta(seconds=90)

    def folders(self) -> dict[str, set[str]]:
        """The objects in each job's folder."""
        found: dict[str, set[str]] = {}
        for item in self.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", ()):
            _, job, name = item["Key"].split("/", 2)
            found.setdefault(job, set()).add(name)
        return found

    def read(self, key: str) -> bytes:
        """An object of the bucket."""
        found: bytes = self.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return found

    def play(self, name: str, **environment: str) -> int:
        """Do what the job `name` does on its machine; returns its exit status."""
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("AIRLOOP_", "AIRFLOW"))
        }
        log = self.recorder.file.with_name("played.log")
        asked = {
            "uri": f"s3://{BUCKET}/jobs/{name}",
            "environment": {**kept, **CREDENTIALS, "AWS_ENDPOINT_URL": self.url, **environment},
            "calls": str(self.recorder.file),
            "log": str(log),
        }
        assert self._player.stdin is not None
        assert self._player.stdout is not None
        self._player.stdin.write(json.dumps(asked) + "\n")
        self._player.stdin.flush()
        status = int(self._player.stdout.readline())
        assert PASSWORD not in log.read_text()
        assert status in (0, 1, 2, 65), log.read_text()[-3000:]
        return status


_KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
_SESSION = boto3.Session(**_KEYS, region_name=REGION)
_CLIENTS: dict[str, Any] = {}


@pytest.fixture(scope="session")
def player() -> Any:
    """The process that plays jobs."""
    paths = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), str(REPOSITORY / "src"), str(REPOSITORY)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.aws.played_job"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def aws(
    server: str, player: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Any:
    """An account with all that jobs need and no job, and settings that lead there."""
    recorder = Recorder(tmp_path / "calls.jsonl")
    found = Aws(server, recorder, player)
    for backend in ("s3", "secretsmanager", "emr-serverless", "iam", "batch", "sagemaker"):
        get_backend(backend).reset()
    found.prepare()
    recorder.listen()
    extra = {"region_name": REGION, "endpoint_url": server}
    connection = {"conn_type": "aws", "login": "testing", "password": "testing", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    departures = {"conn_type": "postgres", "host": "db", "password": PASSWORD}
    monkeypatch.setenv("AIRFLOW_CONN_DEPARTURES", json.dumps(departures))
    prices = tmp_path / "prices.toml"
    prices.write_text("currency = 'EUR'")
    given = {
        "STATE_DIR": str(tmp_path / "state"),
        "WAREHOUSE_URI": "s3://airloop-warehouse/tables",
        "CATALOG_URI": "postgresql://reader@db/airloop",
        "AWS_REGION": REGION,
        "KMS_KEY": KEY,
        "JOBS_URI": f"s3://{BUCKET}/jobs",
        "SECRETS_PREFIX": "airloop",
        "PRICES": str(prices),
    }
    for name, value in given.items():
        monkeypatch.setenv(f"AIRLOOP_{name}", value)
    needs = compute.Needs(("warehouse_uri", "catalog_uri"), files=("prices",), several_hosts=True)
    monkeypatch.setitem(compute.RUNS_ELSEWHERE, MODULE, needs)
    monkeypatch.setattr(service, "POLL_SECONDS", 1)
    yield found
    recorder.stop()
    test = request.node.nodeid.rpartition("/")[2].partition("[")[0]
    CALLS.extend((call.service, call.operation, test) for call in recorder.calls())


class Task:
    """A task of a run that Airflow runs, tries again, and goes on with."""

    def __init__(self, aws: Aws, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        self.aws, self.kind = aws, kind
        self.pushed: dict[str, Any] = {}
        place = {"kind": kind, **aws.places[kind]}
        monkeypatch.setenv("AIRLOOP_COMPUTE", json.dumps({"training": place}))
        self._monkeypatch = monkeypatch

    @property
    def settings(self) -> Settings:
        """Of this process."""
        return load_settings()

    def operator(self, **flags: Any) -> JobOperator:
        """As each of Airflow's processes makes it anew."""
        return JobOperator(
            task_id="train",
            module=MODULE,
            use_case="any",
            flags=flags,
            connections=("departures",),
            execution_timeout=timedelta(hours=1),
        )

    def context(self, try_number: int = 1) -> dict[str, Any]:
        """Airflow's, as far as jobs use it."""
        instance = SimpleNamespace(
            dag_id="any_training",
            run_id="scheduled__2026-11-20T00:00:00+00:00",
            task_id="train",
            map_index=-1,
            try_number=try_number,
            max_tries=3,
            xcom_push=lambda key, value: self.pushed.update({key: value}),
        )
        return {"ti": instance}

    def begin(self, try_number: int = 1, **flags: Any) -> TaskDeferred:
        """Run a try until it waits."""
        with pytest.raises(TaskDeferred) as caught:
            self.operator(**flags).execute(self.context(try_number))
        return caught.value

    def fire(self, deferred: TaskDeferred) -> dict[str, Any]:
        """Wait as the triggerer does, with the trigger as it comes out of the database."""
        path, arguments = deferred.trigger.serialize()
        module, _, name = path.rpartition(".")
        trigger = getattr(__import__(module, fromlist=[name]), name)(**json.loads(json.dumps(arguments)))

        async def first() -> Any:
            async for event in trigger.run():
                return event.payload

        found: dict[str, Any] = asyncio.run(first())
        return found

    def resume(self, deferred: TaskDeferred, try_number: int = 1, **flags: Any) -> Any:
        """Wait, and go on."""
        event = self.fire(deferred)
        return self.operator(**flags).resume_execution(
            deferred.method_name, {**(deferred.kwargs or {}), "event": event}, self.context(try_number)
        )


@pytest.fixture
def task_on(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The task on the service of a kind."""
    return lambda kind: Task(aws, monkeypatch, kind)


@pytest.fixture
def now() -> datetime:
    """This moment."""
    return datetime.now(UTC)
