"""The settings (`AIRLOOP_*`) of a deployment: what the stacks know, beside `deploy/profiles/aws.toml`.

Belongs here: which setting has which value. Does not belong here: passwords; those are mounted secrets, which
come before what is here.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Final

from infrastructure.jobs import SPARK_LOGS, JobsStack
from infrastructure.network import MODELS
from infrastructure.permissions import SECRETS, bucket_name

PROFILE: Final = Path(__file__).resolve().parents[2] / "profiles" / "aws.toml"
SECRET: Final = ("redis_connection",)
"""With a password in it: mounted as a file, never a variable. PostgreSQL's are in the file of PGPASSFILE."""


def settings_of(jobs: JobsStack) -> dict[str, Any]:
    """Each setting that the stacks know, as the text of its variable; `compute` is JSON."""
    stores, base, deployment = jobs.stores, jobs.base, jobs.deployment
    spark = {
        "kind": "emr_serverless",
        "application_id": jobs.application.attr_application_id,
        "execution_role": jobs.spark_role.role_arn,
        "log_group": SPARK_LOGS,
    }
    one_host = {
        "kind": "sagemaker",
        "execution_role": jobs.training_role.role_arn,
        "image": base.image("training"),
        "subnets": base.network.private,
        "security_groups": [base.network.groups["jobs"].security_group_id],
    }
    several_hosts = {
        "kind": "batch",
        "job_queue": jobs.queue.job_queue_name,
        "job_definition": jobs.definition_name,
        "nodes": deployment.gpu_nodes,
    }
    compute = {
        "spark": spark,
        "training": one_host if deployment.training_on == "sagemaker" else several_hosts,
    }
    return {
        "warehouse_uri": f"s3://{bucket_name(deployment, 'warehouse')}/warehouse",
        "jobs_uri": f"s3://{bucket_name(deployment, 'jobs')}/jobs",
        "environment": deployment.environment,
        "secrets_prefix": SECRETS,
        "aws_region": deployment.region,
        "kms_key": base.key.key_arn,
        "mlflow_uri": f"https://mlflow.{deployment.internal_domain}",
        "airflow_uri": f"https://airflow.{deployment.internal_domain}",
        "gateway_uri": f"https://gateway.{deployment.domain}",
        "model_server_target": f"models.{deployment.internal_domain}:{MODELS}",
        "compute": jobs.to_json_string(compute),
        **stores.addresses,
    }


def variables_of(settings: dict[str, Any]) -> dict[str, str]:
    """The environment of every container: the profile's file and `settings`, without what is secret."""
    profile = tomllib.loads(PROFILE.read_text("utf-8"))
    return {
        f"AIRLOOP_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in {**profile, **settings}.items()
        if name not in SECRET
    }
