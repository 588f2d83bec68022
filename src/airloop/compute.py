"""Where the jobs of a dependency group run when not as processes of the Airflow worker.

Belongs here: what a deployment says about each such place. Does not belong here: starting a job there (see
`airloop_airflow.compute`), or what a job does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Group = Literal["spark", "training", "serving"]
"""The dependency group whose packages a job needs, and so the image and the queue that it runs with."""

_ARN = r"^arn:aws[a-z-]*:"
_GROUPS: Mapping[str, Group] = {
    "spark_jobs": "spark",
    "feature_repo": "spark",
    "airloop.training": "training",
    "serving": "serving",
}


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


def group_of(module: str) -> Group:
    """The dependency group of the job `module`; what names none runs with the training group's packages."""
    for prefix, group in _GROUPS.items():
        if module == prefix or module.startswith(f"{prefix}."):
            return group
    return "training"
