"""The key, and the buckets that only it can read.

Belongs here: KMS and S3. Does not belong here: who may use them (see `permissions`).
"""

from __future__ import annotations

from typing import Final

from aws_cdk import Aws, Duration, RemovalPolicy, aws_iam, aws_kms, aws_s3
from constructs import Construct

from infrastructure.deployment import Deployment
from infrastructure.permissions import bucket_name
from infrastructure.tags import of_component

ERASED_DAYS: Final = 14
"""How long a deleted table file can still be brought back: what is erased is gone after that."""
_ALGORITHM: Final = "s3:x-amz-server-side-encryption"
_KEY: Final = "s3:x-amz-server-side-encryption-aws-kms-key-id"


class Key(Construct):
    """The key of everything that is stored; AWS makes new material for it every year."""

    def __init__(self, scope: Construct, deployment: Deployment) -> None:
        super().__init__(scope, "Key")
        self.key = aws_kms.Key(
            self,
            "Key",
            alias=f"alias/{deployment.name}",
            description="Airloop: tables, jobs, artifacts, secrets, databases, streams, logs",
            enable_key_rotation=True,
            removal_policy=RemovalPolicy.RETAIN,
        )
        self.key.add_to_resource_policy(
            aws_iam.PolicyStatement(
                sid="LogGroupsOfThisAccount",
                principals=[aws_iam.ServicePrincipal(f"logs.{deployment.region}.amazonaws.com")],
                actions=["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"],
                resources=["*"],
                conditions={
                    "ArnLike": {
                        "kms:EncryptionContext:aws:logs:arn": f"arn:{Aws.PARTITION}:logs:"
                        f"{deployment.region}:{Aws.ACCOUNT_ID}:log-group:*"
                    }
                },
            )
        )
        self.key.add_to_resource_policy(
            aws_iam.PolicyStatement(
                sid="AlarmsOfThisAccount",
                principals=[aws_iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=["*"],
                conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
            )
        )
        self.key.add_to_resource_policy(
            aws_iam.PolicyStatement(
                sid="LogsOfSparkJobsOfThisAccount",
                principals=[aws_iam.ServicePrincipal("emr-serverless.amazonaws.com")],
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=["*"],
                conditions={
                    "StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID},
                    "StringLike": {
                        "aws:SourceArn": f"arn:{Aws.PARTITION}:emr-serverless:{deployment.region}:"
                        f"{Aws.ACCOUNT_ID}:/applications/*"
                    },
                },
            )
        )


class Buckets(Construct):
    """Warehouse, jobs, artifacts, and the logs of who read them."""

    def __init__(self, scope: Construct, deployment: Deployment, key: aws_kms.Key) -> None:
        super().__init__(scope, "Buckets")
        self.logs = aws_s3.Bucket(
            self,
            "Logs",
            bucket_name=bucket_name(deployment, "logs"),
            # S3 and the load balancers deliver logs to no bucket with a key of ours.
            encryption=aws_s3.BucketEncryption.S3_MANAGED,
            block_public_access=aws_s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=aws_s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            versioned=True,
            lifecycle_rules=[
                aws_s3.LifecycleRule(
                    expiration=Duration.days(365), noncurrent_version_expiration=Duration.days(30)
                )
            ],
            removal_policy=RemovalPolicy.RETAIN,
        )
        of_component(self.logs, "logs")
        self.warehouse = self._bucket(
            "Warehouse", deployment, key, noncurrent_version_expiration=Duration.days(ERASED_DAYS)
        )
        self.jobs = self._bucket(
            "Jobs",
            deployment,
            key,
            expiration=Duration.days(30),
            noncurrent_version_expiration=Duration.days(1),
        )
        self.artifacts = self._bucket(
            "Artifacts", deployment, key, noncurrent_version_expiration=Duration.days(90)
        )

    def _bucket(self, name: str, deployment: Deployment, key: aws_kms.Key, **rule: Duration) -> aws_s3.Bucket:
        bucket = aws_s3.Bucket(
            self,
            name,
            bucket_name=bucket_name(deployment, name.lower()),
            encryption=aws_s3.BucketEncryption.KMS,
            encryption_key=key,
            bucket_key_enabled=True,
            block_public_access=aws_s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=aws_s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=True,
            server_access_logs_bucket=self.logs,
            server_access_logs_prefix=f"s3/{name.lower()}/",
            lifecycle_rules=[
                aws_s3.LifecycleRule(abort_incomplete_multipart_upload_after=Duration.days(3), **rule)
            ],
            removal_policy=RemovalPolicy.RETAIN,
        )
        # A put that says nothing gets the bucket's default, which is the key. One that asks for anything
        # else is refused: another algorithm, KMS without a key (which would be AWS's own) or with another
        # key.
        for sid, condition in {
            "OnlyKms": {"StringNotEquals": {_ALGORITHM: "aws:kms"}, "Null": {_ALGORITHM: "false"}},
            "OnlyWithAKey": {"Null": {_ALGORITHM: "false", _KEY: "true"}},
            "OnlyThisKey": {"StringNotEquals": {_KEY: key.key_arn}, "Null": {_KEY: "false"}},
            "NoKeyOfTheClient": {"Null": {f"{_ALGORITHM}-customer-algorithm": "false"}},
        }.items():
            bucket.add_to_resource_policy(
                aws_iam.PolicyStatement(
                    sid=sid,
                    effect=aws_iam.Effect.DENY,
                    principals=[aws_iam.AnyPrincipal()],
                    actions=["s3:PutObject"],
                    resources=[bucket.arn_for_objects("*")],
                    conditions=condition,
                )
            )
        of_component(bucket, name.lower())
        return bucket
