"""The stack of what remembers: secrets, databases, cache, state folder, catalog, stream.

Belongs here: stores and the secrets that open them. Does not belong here: what reads them.
"""

from __future__ import annotations

import json
from typing import Any, Final

from aws_cdk import (
    Duration,
    RemovalPolicy,
    SecretValue,
    Stack,
    aws_ec2,
    aws_efs,
    aws_elasticache,
    aws_glue,
    aws_kinesis,
    aws_rds,
    aws_secretsmanager,
)
from constructs import Construct

from infrastructure.base import BaseStack
from infrastructure.permissions import NAMESPACES, SECRETS, bucket_name
from infrastructure.tags import of_component

DATABASES: Final = ("airflow", "feast", "mlflow", "tuning")
"""Each with a login of its own, and of its name."""
USER: Final = "10001"
"""That the images run as."""
PUT_BY_HAND: Final = ("gateway-keys", "signing-key", "tls", "verification-key")
"""Secrets that no random text can be; `put_secrets.py` writes them."""


class StoresStack(Stack):
    """Secrets Manager, RDS, ElastiCache, EFS, Glue and Kinesis."""

    def __init__(self, scope: Construct, base: BaseStack, **kwargs: Any) -> None:
        super().__init__(scope, f"{base.deployment.name}-stores", **kwargs)
        self.base, self.deployment = base, base.deployment
        self.secrets = {
            name: self._generated(name)
            for name in (
                *(f"database/{name}" for name in ("master", *DATABASES)),
                *("airflow/admin", "airflow/api", "airflow/fernet", "airflow/jwt", "cache"),
            )
        }
        # Until they are written they hold random text, which nothing accepts.
        self.secrets |= {name: self._generated(name) for name in PUT_BY_HAND}
        self.database = self._database()
        of_component(self.database, "database")
        self.cache = self._cache()
        of_component(self.cache, "online-store")
        self._files()
        self._catalog()
        self.stream = aws_kinesis.Stream(
            self,
            "Stream",
            stream_name=self.deployment.name,
            shard_count=1,
            retention_period=Duration.days(3),
            encryption=aws_kinesis.StreamEncryption.KMS,
            encryption_key=base.key,
            removal_policy=RemovalPolicy.RETAIN,
        )
        of_component(self.stream, "stream")
        host = self.database.instance_endpoint.hostname
        self.addresses = {
            "feast_registry": f"postgresql+psycopg2://feast@{host}/feast?sslmode=require",
            "redis_connection": f"{self.cache.attr_primary_end_point_address}:6379,ssl=true",
            "tuning_storage": f"postgresql+psycopg2://tuning@{host}/tuning?sslmode=require",
        }
        self._settings()
        self._connections()

    def _secret(self, name: str, full_name: str, **content: Any) -> aws_secretsmanager.Secret:
        secret = aws_secretsmanager.Secret(
            self,
            f"Secret-{name.replace('/', '-')}",
            secret_name=full_name,
            encryption_key=self.base.key,
            removal_policy=RemovalPolicy.RETAIN,
            **content,
        )
        of_component(secret, "security")
        return secret

    def _generated(self, name: str) -> aws_secretsmanager.Secret:
        """43 letters and digits are 256 bits; with one `=` after them they are a Fernet key too."""
        return self._secret(
            name,
            f"{self.deployment.secrets}/{name}",
            generate_secret_string=aws_secretsmanager.SecretStringGenerator(
                password_length=43, exclude_punctuation=True, require_each_included_type=False
            ),
        )

    def _settings(self) -> None:
        """What jobs elsewhere read beside connections, and the cache's address with its password.

        CloudFormation puts the passwords in as it makes the secrets; the template holds references.
        """
        host = self.database.instance_endpoint.hostname

        def password(name: str) -> str:
            return self.secrets[name].secret_value.unsafe_unwrap()

        values = {
            "settings/redis_connection": f"{self.addresses['redis_connection']},password={password('cache')}",
            # As PostgreSQL's password file has them.
            "database-passwords": "".join(
                f"{host}:5432:*:{name}:{password(f'database/{name}')}\n" for name in ("feast", "tuning")
            ),
        }
        for name, value in values.items():
            self.secrets[name] = self._secret(
                name, f"{SECRETS}/{name}", secret_string_value=SecretValue.unsafe_plain_text(value)
            )

    def _connections(self) -> None:
        """The connections that the stack can know; people add theirs under the same prefix."""
        self._secret(
            "connection/aws_default",
            f"{SECRETS}/connections/aws_default",
            secret_string_value=SecretValue.unsafe_plain_text(
                json.dumps({"conn_type": "aws", "extra": {"region_name": self.deployment.region}})
            ),
        )
        self._secret(
            "connection/airloop_pseudonym_key",
            f"{SECRETS}/connections/airloop_pseudonym_key",
            generate_secret_string=aws_secretsmanager.SecretStringGenerator(
                secret_string_template=json.dumps({"conn_type": "generic"}),
                generate_string_key="password",
                password_length=43,
                exclude_punctuation=True,
            ),
        )

    def _database(self) -> aws_rds.DatabaseInstance:
        engine = aws_rds.DatabaseInstanceEngine.postgres(version=aws_rds.PostgresEngineVersion.VER_17_9)
        return aws_rds.DatabaseInstance(
            self,
            "Database",
            instance_identifier=self.deployment.name,
            engine=engine,
            instance_type=aws_ec2.InstanceType(self.deployment.database_class.removeprefix("db.")),
            vpc=self.base.network.vpc,
            vpc_subnets=aws_ec2.SubnetSelection(subnet_type=aws_ec2.SubnetType.PRIVATE_ISOLATED),
            security_groups=[self.base.network.groups["database"]],
            credentials=aws_rds.Credentials.from_password(
                "airloop", self.secrets["database/master"].secret_value
            ),
            multi_az=self.deployment.database_multi_zone,
            storage_type=aws_rds.StorageType.GP3,
            allocated_storage=20,
            max_allocated_storage=200,
            storage_encrypted=True,
            storage_encryption_key=self.base.key,
            iam_authentication=True,
            parameters={"rds.force_ssl": "1", "log_min_duration_statement": "1000"},
            backup_retention=Duration.days(14),
            delete_automated_backups=False,
            copy_tags_to_snapshot=True,
            deletion_protection=True,
            auto_minor_version_upgrade=True,
            enable_performance_insights=True,
            performance_insight_encryption_key=self.base.key,
            removal_policy=RemovalPolicy.SNAPSHOT,
        )

    def _cache(self) -> aws_elasticache.CfnReplicationGroup:
        subnets = aws_elasticache.CfnSubnetGroup(
            self,
            "CacheSubnets",
            cache_subnet_group_name=self.deployment.name,
            description="Airloop: subnets without a way out",
            subnet_ids=self.base.network.data,
        )
        cache = aws_elasticache.CfnReplicationGroup(
            self,
            "Cache",
            replication_group_id=self.deployment.name,
            replication_group_description="Airloop: online features",
            engine="valkey",
            engine_version="8.0",
            cache_node_type=self.deployment.cache_class,
            num_node_groups=1,
            replicas_per_node_group=1,
            automatic_failover_enabled=True,
            multi_az_enabled=True,
            at_rest_encryption_enabled=True,
            kms_key_id=self.base.key.key_arn,
            transit_encryption_enabled=True,
            transit_encryption_mode="required",
            auth_token=self.secrets["cache"].secret_value.unsafe_unwrap(),
            snapshot_retention_limit=3,
            cache_subnet_group_name=subnets.cache_subnet_group_name,
            security_group_ids=[self.base.network.groups["cache"].security_group_id],
        )
        of_component(subnets, "online-store")
        cache.add_resource_dependency(subnets)
        return cache

    def _files(self) -> None:
        self.files = aws_efs.FileSystem(
            self,
            "State",
            file_system_name=f"{self.deployment.name}-state",
            vpc=self.base.network.vpc,
            vpc_subnets=aws_ec2.SubnetSelection(subnet_type=aws_ec2.SubnetType.PRIVATE_WITH_EGRESS),
            security_group=self.base.network.groups["files"],
            encrypted=True,
            kms_key=self.base.key,
            enable_automatic_backups=True,
            throughput_mode=aws_efs.ThroughputMode.ELASTIC,
            lifecycle_policy=aws_efs.LifecyclePolicy.AFTER_30_DAYS,
            out_of_infrequent_access_policy=aws_efs.OutOfInfrequentAccessPolicy.AFTER_1_ACCESS,
            # Nobody mounts without TLS, nor without a role that may.
            allow_anonymous_access=False,
            removal_policy=RemovalPolicy.RETAIN,
        )
        self.access_point = self.files.add_access_point(
            "StateFolder",
            path="/state",
            create_acl=aws_efs.Acl(owner_uid=USER, owner_gid=USER, permissions="750"),
            posix_user=aws_efs.PosixUser(uid=USER, gid=USER),
        )
        of_component(self.files, "state")

    def _catalog(self) -> None:
        for name in NAMESPACES:
            database = aws_glue.CfnDatabase(
                self,
                f"Namespace-{name}",
                catalog_id=self.account,
                database_input=aws_glue.CfnDatabase.DatabaseInputProperty(
                    name=name,
                    description="Iceberg tables of Airloop",
                    location_uri=f"s3://{bucket_name(self.deployment, 'warehouse')}/warehouse/{name}",
                ),
            )
            database.apply_removal_policy(RemovalPolicy.RETAIN)
