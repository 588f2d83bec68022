"""Findings of cdk-nag that stand, each with its reason; any other ends the synthesis.

Belongs here: a finding, where it stands and why. Does not belong here: a rule switched off altogether.
"""

from __future__ import annotations

from collections.abc import Iterator

from aws_cdk import Acknowledgment, Validations
from constructs import IConstruct

from infrastructure.deployment import Deployment
from infrastructure.permissions import NAMESPACES, SECRETS

_NO_NARROWER = "AWS has no resource that these actions could be limited to"


def acknowledge(app: IConstruct, deployment: Deployment) -> None:
    """Put each reason where its finding is."""
    for place, rule, reason in (*_resources(deployment), *_of_parts(deployment)):
        for construct in [app] if place == "" else _at(app, f"{deployment.name}-{place}"):
            Validations.of(construct).acknowledge(
                Acknowledgment(id=f"AwsSolutions::AwsSolutions-{rule}", reason=reason)
            )


def _at(app: IConstruct, path: str) -> list[IConstruct]:
    found = [construct for construct in app.node.find_all() if construct.node.path == path]
    if not found:
        raise LookupError(f"expected a construct {path}; found none. Next: correct acknowledged.py.")
    return found


def _resources(deployment: Deployment) -> Iterator[tuple[str, str, str]]:
    """Wildcards within a resource of ours: the same reason wherever they stand."""

    def arn(service: str, rest: str) -> str:
        return f"IAM5[Resource::arn:<AWS::Partition>:{service}:{deployment.region}:<AWS::AccountId>:{rest}]"

    for kind in ("warehouse", "jobs", "artifacts"):
        bucket = f"{deployment.name}-{kind}-<AWS::AccountId>-{deployment.region}"
        yield (
            "",
            f"IAM5[Resource::arn:<AWS::Partition>:s3:::{bucket}/*]",
            "every object of one bucket of ours",
        )
    for name in NAMESPACES:
        yield (
            "",
            arn("glue", f"table/{name}/*"),
            "jobs make the tables of this namespace; their names are theirs",
        )
    for group in ("/airloop/batch", "/airloop/emr-serverless", "/aws/sagemaker/TrainingJobs"):
        yield "", arn("logs", f"log-group:{group}:*"), "streams are named after job runs"
    yield "", arn("ec2", "network-interface/*"), "an interface has no name before SageMaker made it"
    for kind in ("connections", "variables"):
        yield (
            "",
            arn("secretsmanager", f"secret:{SECRETS}/{kind}/*"),
            "people add Airflow's secrets under this prefix",
        )
    yield (
        "",
        arn("sagemaker", "training-job/*"),
        "a job is named when it is started; its tag must be this deployment's",
    )
    yield "", arn("batch", "job/*"), "a job's id is random; its tag must be this deployment's"
    yield "", arn("batch", f"job-definition/{deployment.name}-training:*"), "each change is a new revision"
    # The logical id is the CDK's name for the application.
    yield (
        "",
        f"IAM5[Resource::{deployment.name}-jobs:ExportsOutputFnGetAttSparkArnCD2062BC/jobruns/*]",
        "a run's id is random; the application is ours",
    )


def _of_parts(deployment: Deployment) -> Iterator[tuple[str, str, str]]:
    anything = "IAM5[Resource::*]"
    for part in (
        "scheduler",
        "dag-processor",
        "triggerer",
        "api-server",
        "setup",
        "mlflow",
        "model-server",
        "gateway",
    ):
        yield (
            f"services/Execution-{part}",
            anything,
            "ecr:GetAuthorizationToken: a token is for the whole registry",
        )
        if part != "model-server":
            reason = "settings and addresses only; every secret is a secret of ECS"
            yield f"services/Task-{part}", "ECS2", reason
    yield "services/Role-scheduler", anything, f"lists of jobs, and what Batch's are doing: {_NO_NARROWER}"
    yield "services/Role-triggerer", anything, f"batch:DescribeJobs: {_NO_NARROWER}"
    for part in ("TrainingJob", "BatchJob", "SparkJob"):
        reason = (
            f"lists of log groups and of the network, metrics (of our namespace), the token: {_NO_NARROWER}"
        )
        yield f"jobs/{part}", anything, reason
    yield "jobs/BatchExecution", anything, "ecr:GetAuthorizationToken: a token is for the whole registry"
    yield (
        "jobs/BatchHost",
        anything,
        "ECS's agent: Batch makes the cluster and names it; and the registry's token",
    )
    yield "base/Deployer", anything, "ecr:GetAuthorizationToken: a token is for the whole registry"
    reason = "rotated by hand (docs/how-to/run-on-aws.md): its readers must be restarted to see it"
    for construct in _SECRETS:
        yield f"stores/Secret-{construct}", "SMG4", reason
    yield "stores/Stream", "KDS3", "our own key, so that the jobs' roles can be limited to it"
    yield "stores/Database", "RDS11", "the port is no secret; only the parts' groups reach it"
    yield "stores/Cache", "AEC5", "the port is no secret; only the parts' groups reach it"
    if not deployment.database_multi_zone:
        yield (
            "stores/Database",
            "RDS3",
            "deployment.toml says one zone: half the price, minutes to hours when it fails",
        )


_SECRETS = (
    *("airflow-admin", "airflow-api", "airflow-fernet", "airflow-jwt", "cache"),
    *("connection-airloop_pseudonym_key", "connection-aws_default"),
    *("database-airflow", "database-feast", "database-master", "database-mlflow", "database-tuning"),
    *("gateway-keys", "signing-key", "tls", "verification-key"),
    *("database-passwords", "settings-redis_connection"),
)
