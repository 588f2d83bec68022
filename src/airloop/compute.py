"""Where the jobs of a dependency group run when not as processes of the Airflow worker.

Belongs here: what a deployment says about each such place. Does not belong here: starting a job there (see
`airloop_airflow.compute`), or what a job does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Group = Literal["spark", "training", "serving"]
"""The dependency group whose packages a job needs, and so the image and the queue that it runs with."""

_ARN = r"^arn:aws[a-z-]*:"
_GROUPS: Mapping[str, Group] = {
    "spark_jobs": "spark",
    "feature_repo": "spark",
    # The log by way of Kafka needs its client, which the training group does not have.
    "airloop.prediction_log": "serving",
    "serving": "serving",
}


class Needs(NamedTuple):
    """What a job must have where it runs, when that is not on the shared folder."""

    settings: tuple[str, ...] = ()
    """Fields that must name something that answers from there."""
    files: tuple[str, ...] = ()
    """Fields that name a small file, which goes along."""
    several_hosts: bool = False
    """Whether several hosts can share the job."""


_TABLES = ("warehouse_uri", "catalog_uri")
_FEATURES = (*_TABLES, "feast_registry")
_MLFLOW = (*_TABLES, "mlflow_uri")
RUNS_ELSEWHERE: Mapping[str, Needs] = {
    "spark_jobs.clean": Needs(_TABLES),
    "spark_jobs.audit": Needs(_TABLES),
    "spark_jobs.features": Needs(_TABLES),
    "spark_jobs.training_set": Needs(_FEATURES),
    "spark_jobs.scoring_set": Needs(_FEATURES),
    "spark_jobs.count_predictions": Needs(_TABLES),
    "spark_jobs.count_scores": Needs(_TABLES),
    "spark_jobs.count_skew": Needs(_FEATURES),
    "spark_jobs.push": Needs((*_FEATURES, "redis_connection")),
    "feature_repo.materialise": Needs((*_FEATURES, "redis_connection")),
    "airloop.training.train": Needs(_MLFLOW, files=("prices",), several_hosts=True),
    "airloop.training.fold": Needs(_MLFLOW),
    "airloop.training.trial": Needs((*_MLFLOW, "tuning_storage")),
}
"""The jobs that may run elsewhere: they compute much, and read and write nothing of the shared folder but
what `airloop.job_folder.BROUGHT_HOME` names."""

STAYS: Mapping[str, str] = {
    "spark_jobs.ingest": "executors read what it fetched in the scratch folder",
    "spark_jobs.stream_ingest": "one run of a stream at a time is known by a lock in the shared folder",
    "spark_jobs.maintenance": "removes old files of the shared folder",
    "spark_jobs.erasure": "reads and rewrites the files of the shared folder",
    "airloop.training.study": "a row in a database",
    "airloop.training.tuned": "a row in a database, and a report",
    "airloop.training.folds": "a moment's work",
    "airloop.training.cross_validated": "a moment's work",
    "airloop.training.evaluate": "loads signed models, and writes the verdict's page beside others",
    "airloop.training.override": "writes the audit log",
    "airloop.training.register": "signs with the private key",
}
"""Jobs of the groups `spark` and `training` that stay processes of their worker, and why. So does every job
that stands in neither table."""


class Process(BaseModel):
    """A process of the worker that the task runs on; the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["process"] = "process"


class EmrServerless(BaseModel):
    """A job run of an EMR Serverless application (Spark)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["emr_serverless"]
    application_id: str = Field(min_length=1)
    execution_role: str = Field(pattern=_ARN)
    log_group: str = "/airloop/emr-serverless"
    """CloudWatch's log group that drivers and executors write to."""
    driver_cores: int = Field(2, ge=1)
    driver_memory_gib: int = Field(8, ge=1)
    executor_cores: int = Field(4, ge=1)
    executor_memory_gib: int = Field(16, ge=1)
    most_executors: int = Field(8, ge=1)


class SageMaker(BaseModel):
    """A SageMaker training job, with managed spot capacity and checkpoints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["sagemaker"]
    execution_role: str = Field(pattern=_ARN)
    image: str = Field(min_length=1)
    instance_type: str = "ml.m7i.xlarge"
    instance_count: int = Field(1, ge=1)
    volume_gib: int = Field(50, ge=1)
    spot: bool = True
    longest_seconds: int = Field(6 * 3600, ge=60)
    """Of computing."""
    longest_wait_seconds: int = Field(12 * 3600, ge=60)
    """For spot capacity and computing together."""
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()


class Batch(BaseModel):
    """An AWS Batch job; with several nodes, a multi-node parallel one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["batch"]
    job_queue: str = Field(min_length=1)
    job_definition: str = Field(min_length=1)
    nodes: int = Field(1, ge=1)
    longest_seconds: int = Field(6 * 3600, ge=60)


Compute = Annotated[Process | EmrServerless | SageMaker | Batch, Field(discriminator="kind")]


def place_of(places: Mapping[Group, Compute], module: str) -> Compute:
    """Where the job `module` runs: where its group does, if it is one that may run elsewhere."""
    place = places.get(group_of(module))
    return place if place is not None and module in RUNS_ELSEWHERE else Process()


def group_of(module: str) -> Group:
    """The dependency group of the job `module`; what names none runs with the training group's packages."""
    for prefix, group in _GROUPS.items():
        if module == prefix or module.startswith(f"{prefix}."):
            return group
    return "training"
