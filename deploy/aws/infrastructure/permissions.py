"""What each part may do: one list of statements per role.

Belongs here: IAM statements, with every action written out. Does not belong here: who takes a role on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aws_cdk import Aws, aws_iam, aws_kms

from infrastructure.deployment import Deployment

NAMESPACES: Final = ("clean", "features", "labels", "monitoring", "raw", "serving", "training")
"""Of the Iceberg catalog; in Glue each is a database."""
SECRETS: Final = "airflow"
"""Prefix of the secrets that Airflow's backend and jobs elsewhere read: `connections/`, `variables/`,
`settings/`
and `database-passwords` (`airloop.secrets_manager`)."""


def _allow(
    sid: str,
    actions: Sequence[str],
    resources: Sequence[str],
    conditions: dict[str, dict[str, object]] | None = None,
) -> aws_iam.PolicyStatement:
    return aws_iam.PolicyStatement(
        sid=sid, actions=list(actions), resources=list(resources), conditions=conditions
    )


def _arn(service: str, deployment: Deployment, resource: str, *, region: str | None = None) -> str:
    where = deployment.region if region is None else region
    return f"arn:{Aws.PARTITION}:{service}:{where}:{Aws.ACCOUNT_ID}:{resource}"


def bucket_name(deployment: Deployment, kind: str) -> str:
    """Of the bucket `warehouse`, `jobs`, `artifacts` or `logs`; no two accounts have the same."""
    return f"{deployment.name}-{kind}-{Aws.ACCOUNT_ID}-{deployment.region}"


def write_bucket(deployment: Deployment, kind: str) -> list[aws_iam.PolicyStatement]:
    """List the bucket `kind`; read, write and delete its objects."""
    arn = f"arn:{Aws.PARTITION}:s3:::{bucket_name(deployment, kind)}"
    return [
        _allow(f"{kind.capitalize()}List", ("s3:ListBucket", "s3:GetBucketLocation"), (arn,)),
        _allow(
            f"{kind.capitalize()}Write",
            ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"),
            (f"{arn}/*",),
        ),
    ]


def erase_versions(deployment: Deployment) -> aws_iam.PolicyStatement:
    """Find and remove what the warehouse keeps of files that were deleted or written over."""
    arn = f"arn:{Aws.PARTITION}:s3:::{bucket_name(deployment, 'warehouse')}"
    return _allow(
        "Erase",
        ("s3:DeleteObjectVersion", "s3:GetBucketVersioning", "s3:GetObjectVersion", "s3:ListBucketVersions"),
        (arn, f"{arn}/*"),
    )


def use_key(key: aws_kms.IKey, deployment: Deployment, *services: str) -> aws_iam.PolicyStatement:
    """Encrypt and decrypt with `key`, by way of `services` only."""
    return _allow(
        "Key",
        ("kms:Decrypt", "kms:GenerateDataKey"),
        (key.key_arn,),
        {
            "StringEquals": {
                "kms:ViaService": [f"{name}.{deployment.region}.amazonaws.com" for name in services]
            }
        },
    )


def write_tables(deployment: Deployment) -> aws_iam.PolicyStatement:
    """Read and change the catalog's tables: an Iceberg commit is an update of one."""
    return _allow(
        "Catalog",
        (
            "glue:GetDatabase",
            "glue:GetDatabases",
            "glue:CreateDatabase",
            "glue:GetTable",
            "glue:GetTables",
            "glue:CreateTable",
            "glue:UpdateTable",
            "glue:DeleteTable",
        ),
        (
            _arn("glue", deployment, "catalog"),
            *(_arn("glue", deployment, f"database/{name}") for name in NAMESPACES),
            *(_arn("glue", deployment, f"table/{name}/*") for name in NAMESPACES),
        ),
    )


def read_secrets(deployment: Deployment, sid: str, *prefixes: str) -> aws_iam.PolicyStatement:
    """The secrets under `prefixes`; Secrets Manager puts six characters after each name."""
    return _allow(
        sid,
        ("secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"),
        [_arn("secretsmanager", deployment, f"secret:{prefix}") for prefix in prefixes],
    )


def read_stream(stream_arn: str) -> aws_iam.PolicyStatement:
    """Records of one Kinesis stream."""
    return _allow(
        "Stream",
        (
            "kinesis:DescribeStream",
            "kinesis:DescribeStreamSummary",
            "kinesis:GetRecords",
            "kinesis:GetShardIterator",
            "kinesis:ListShards",
        ),
        (stream_arn,),
    )


def write_logs(deployment: Deployment, *groups: str) -> list[aws_iam.PolicyStatement]:
    """Streams of log `groups`."""
    return [
        _allow(
            "Logs",
            ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"),
            [_arn("logs", deployment, f"log-group:{group}:*") for group in groups],
        ),
        # Listing log groups cannot be limited to some.
        _allow("LogGroups", ("logs:DescribeLogGroups",), ("*",)),
    ]


def read_logs(deployment: Deployment, *groups: str) -> aws_iam.PolicyStatement:
    """Lines of log `groups`, for the task that started the job."""
    return _allow(
        "JobLogs",
        ("logs:DescribeLogStreams", "logs:FilterLogEvents", "logs:GetLogEvents"),
        [_arn("logs", deployment, f"log-group:{group}:*") for group in groups],
    )


def follow_jobs(deployment: Deployment, application_arn: str) -> list[aws_iam.PolicyStatement]:
    """See how a job that was started is, and stop it; what the triggerer does, and every task."""
    ours = {"StringEquals": {"aws:ResourceTag/airloop:environment": deployment.environment}}
    return [
        _allow(
            "FollowSpark",
            (
                "emr-serverless:CancelJobRun",
                "emr-serverless:GetApplication",
                "emr-serverless:GetDashboardForJobRun",
                "emr-serverless:GetJobRun",
                "emr-serverless:ListJobRuns",
            ),
            (application_arn, f"{application_arn}/jobruns/*"),
        ),
        # Asked for names that no job has yet, too, which have no tags.
        _allow(
            "FollowTraining",
            ("sagemaker:DescribeTrainingJob",),
            (_arn("sagemaker", deployment, "training-job/*"),),
        ),
        _allow(
            "StopTraining",
            ("sagemaker:StopTrainingJob",),
            (_arn("sagemaker", deployment, "training-job/*"),),
            ours,
        ),
        # Batch has no narrower resource for it.
        _allow("FollowBatch", ("batch:DescribeJobs",), ("*",)),
        _allow(
            "StopBatch",
            ("batch:CancelJob", "batch:TerminateJob"),
            (_arn("batch", deployment, "job/*"),),
            ours,
        ),
    ]


def start_jobs(
    deployment: Deployment, application_arn: str, queue_arn: str, definition: str, roles: dict[str, str]
) -> list[aws_iam.PolicyStatement]:
    """Start and tag jobs; what Airflow's tasks do. `roles` are the jobs' own, by the service they go to.

    A job without this deployment's tag cannot be started: its cost would be nobody's, and nobody could
    stop it.
    """
    tagged = {"StringEquals": {"aws:RequestTag/airloop:environment": deployment.environment}}
    return [
        _allow(
            "StartSpark",
            ("emr-serverless:StartApplication", "emr-serverless:StartJobRun", "emr-serverless:TagResource"),
            (application_arn, f"{application_arn}/jobruns/*"),
        ),
        _allow(
            "StartTraining",
            ("sagemaker:AddTags", "sagemaker:CreateTrainingJob"),
            (_arn("sagemaker", deployment, "training-job/*"),),
            tagged,
        ),
        # Neither list can be limited to some.
        _allow("FindJobs", ("batch:ListJobs", "sagemaker:ListTrainingJobs"), ("*",)),
        _allow(
            "StartBatch",
            ("batch:SubmitJob",),
            (
                queue_arn,
                _arn("batch", deployment, f"job-definition/{definition}"),
                _arn("batch", deployment, f"job-definition/{definition}:*"),
                _arn("batch", deployment, "job/*"),
            ),
            tagged,
        ),
        _allow("TagBatch", ("batch:TagResource",), (_arn("batch", deployment, "job/*"),), tagged),
        *(
            _allow(
                f"Pass{service.split('.')[0].replace('-', '').capitalize()}",
                ("iam:PassRole",),
                (role,),
                {"StringEquals": {"iam:PassedToService": service}},
            )
            for service, role in roles.items()
        ),
    ]


def join_network(deployment: Deployment, subnets: Sequence[str], group: str) -> list[aws_iam.PolicyStatement]:
    """What SageMaker does with a job's role: network interfaces in our subnets, with our security group."""
    interfaces = _arn("ec2", deployment, "network-interface/*")
    return [
        _allow(
            "CreateInterfaces",
            ("ec2:CreateNetworkInterface",),
            (
                interfaces,
                _arn("ec2", deployment, f"security-group/{group}"),
                *(_arn("ec2", deployment, f"subnet/{subnet}") for subnet in subnets),
            ),
        ),
        _allow(
            "Interfaces",
            (
                "ec2:CreateNetworkInterfacePermission",
                "ec2:DeleteNetworkInterface",
                "ec2:DeleteNetworkInterfacePermission",
            ),
            (interfaces,),
        ),
        _allow(
            "SeeNetwork",
            (
                "ec2:DescribeDhcpOptions",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcs",
            ),
            ("*",),
        ),
    ]


def mount_files(file_system_arn: str, access_point_arn: str, *, write: bool) -> aws_iam.PolicyStatement:
    """Mount the state folder, by its access point only."""
    actions = ["elasticfilesystem:ClientMount"]
    return _allow(
        "StateFolder",
        [*actions, "elasticfilesystem:ClientWrite"] if write else actions,
        (file_system_arn,),
        {"ArnEquals": {"elasticfilesystem:AccessPointArn": access_point_arn}},
    )


def pull_images(repository_arns: Sequence[str]) -> list[aws_iam.PolicyStatement]:
    """Pull from our repositories."""
    return [
        _allow(
            "Pull",
            ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"),
            repository_arns,
        ),
        # A token is for the whole registry; what it allows is in the statement above.
        _allow("Registry", ("ecr:GetAuthorizationToken",), ("*",)),
    ]


def deploy(deployment: Deployment, repository_arns: Sequence[str]) -> list[aws_iam.PolicyStatement]:
    """What a workflow does: push images, and hand a change to CloudFormation by the CDK's own roles."""
    return [
        *pull_images(repository_arns),
        _allow(
            "Push",
            (
                "ecr:CompleteLayerUpload",
                "ecr:DescribeImages",
                "ecr:DescribeImageScanFindings",
                "ecr:InitiateLayerUpload",
                "ecr:PutImage",
                "ecr:UploadLayerPart",
            ),
            repository_arns,
        ),
        _allow(
            "Cdk",
            ("sts:AssumeRole",),
            [
                _arn(
                    "iam",
                    deployment,
                    f"role/cdk-hnb659fds-{part}-role-{Aws.ACCOUNT_ID}-{deployment.region}",
                    region="",
                )
                for part in ("deploy", "file-publishing", "lookup")
            ],
        ),
    ]
