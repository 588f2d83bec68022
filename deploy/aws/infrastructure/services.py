"""The stack of what stays up: Airflow, MLflow, model server and gateway on Fargate, behind two load
balancers.

Belongs here: services, their roles, balancers, names. Does not belong here: alarms about them (see `alarms`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aws_cdk import (
    CfnOutput,
    Duration,
    RemovalPolicy,
    Stack,
    aws_certificatemanager,
    aws_ec2,
    aws_ecr,
    aws_ecs,
    aws_iam,
    aws_logs,
    aws_route53,
    aws_route53_targets,
    aws_secretsmanager,
)
from aws_cdk import aws_elasticloadbalancingv2 as balancing
from constructs import Construct

from infrastructure import network, permissions
from infrastructure.alarms import add_alarms
from infrastructure.containers import FOLDER, started, variable
from infrastructure.jobs import BATCH_LOGS, SPARK_LOGS, TRAINING_LOGS, JobsStack
from infrastructure.settings import SECRET, settings_of, variables_of
from infrastructure.stores import DATABASES
from infrastructure.tags import of_component

DATABASE_SETUP: Final = Path(__file__).resolve().parents[1] / "database_setup.py"
_TLS: Final = {"certificate.pem": "tls/certificate", "private_key.pem": "tls/private_key"}
_VERIFY: Final = {"verification_key.pem": "verification-key"}
_SETTINGS: Final = {f"airloop_{name}": f"settings/{name}" for name in SECRET}
_AIRFLOW: Final = {"fernet": "airflow/fernet", "api": "airflow/api", "jwt": "airflow/jwt"}


@dataclass(frozen=True)
class Size:
    """Of a task; Fargate has these pairs only."""

    cpu_units: int
    memory_mib: int


class ServicesStack(Stack):
    """ECS services, load balancers, names, alarms, and the outputs that settings are made from."""

    def __init__(self, scope: Construct, jobs: JobsStack, **kwargs: Any) -> None:
        super().__init__(scope, f"{jobs.deployment.name}-services", **kwargs)
        self.jobs, self.stores, self.base = jobs, jobs.stores, jobs.base
        self.deployment = deployment = jobs.deployment
        self.settings = settings_of(jobs)
        self.database_host = self.stores.database.instance_endpoint.hostname
        vpc = self.base.network.vpc
        # Rules between groups are all in one place; a construct that adds its own would make them twice.
        self.groups = {
            name: aws_ec2.SecurityGroup.from_security_group_id(
                self, f"Group-{name}", group.security_group_id, mutable=False
            )
            for name, group in self.base.network.groups.items()
        }
        # Imported by name: else each grant would change the key's policy, which is in another stack.
        self.images = {
            name: aws_ecr.Repository.from_repository_attributes(
                self,
                f"Images-{name}",
                repository_arn=repository.repository_arn,
                repository_name=repository.repository_name,
            )
            for name, repository in self.base.repositories.items()
        }
        self.secrets = {
            name: aws_secretsmanager.Secret.from_secret_complete_arn(
                self, f"Secret-{name.replace('/', '-')}", secret.secret_arn
            )
            for name, secret in self.stores.secrets.items()
        }
        self.cluster = aws_ecs.Cluster(
            self,
            "Cluster",
            cluster_name=deployment.name,
            vpc=vpc,
            container_insights_v2=aws_ecs.ContainerInsights.ENABLED,
        )
        of_component(self.cluster, "serving")
        self.services: dict[str, aws_ecs.FargateService] = {}
        self.target_groups: dict[str, balancing.ApplicationTargetGroup] = {}
        self._airflow()
        self._mlflow()
        self._model_server()
        self._gateway()
        self._balancers()
        add_alarms(self)
        for name, value in self.settings.items():
            # As `cdk deploy --outputs-file` writes them, for settings_from_outputs.py.
            CfnOutput(self, "Setting" + "".join(part.capitalize() for part in name.split("_")), value=value)
        CfnOutput(self, "ClusterName", value=self.cluster.cluster_name)
        CfnOutput(self, "Subnets", value=",".join(self.base.network.private))
        CfnOutput(self, "AirflowGroup", value=self.base.network.groups["airflow"].security_group_id)
        CfnOutput(self, "AirflowUrl", value=f"https://airflow.{deployment.domain}")
        CfnOutput(self, "GatewayUrl", value=f"https://gateway.{deployment.domain}")

    def _task(
        self,
        name: str,
        image: str,
        size: Size,
        command: list[str],
        secrets: list[str],
        environment: dict[str, str],
        statements: list[aws_iam.PolicyStatement],
        *,
        files: str = "",
        component: str,
        health: list[str] | None = None,
        port: int | None = None,
        entry_point: list[str] | None = None,
        read_only: bool = False,
    ) -> aws_ecs.FargateTaskDefinition:
        """A task with one container, one role for what it does and one for what ECS does for it.

        `files` is `read` or `write` where the task mounts the state folder.
        """
        role = aws_iam.Role(
            self,
            f"Role-{name}",
            role_name=f"{self.deployment.name}-{name}",
            assumed_by=aws_iam.ServicePrincipal(
                "ecs-tasks.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": self.account}}
            ),
        )
        if files:
            statements = [
                *statements,
                permissions.mount_files(
                    self.stores.files.file_system_arn,
                    self.stores.access_point.access_point_arn,
                    write=files == "write",
                ),
            ]
        for statement in statements:
            role.add_to_policy(statement)
        execution_role = aws_iam.Role(
            self,
            f"Execution-{name}",
            role_name=f"{self.deployment.name}-{name}-start",
            assumed_by=aws_iam.ServicePrincipal(
                "ecs-tasks.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": self.account}}
            ),
        )
        # The constructs add the image, the log group and the secrets.
        execution_role.add_to_policy(permissions.use_key(self.base.key, self.deployment, "secretsmanager"))
        task = aws_ecs.FargateTaskDefinition(
            self,
            f"Task-{name}",
            family=f"{self.deployment.name}-{name}",
            cpu=size.cpu_units,
            memory_limit_mib=size.memory_mib,
            task_role=role,
            execution_role=execution_role,
        )
        group = aws_logs.LogGroup(
            self,
            f"Logs-{name}",
            log_group_name=f"/airloop/{self.deployment.environment}/{name}",
            encryption_key=self.base.key,
            retention=aws_logs.RetentionDays.THREE_MONTHS,
            removal_policy=RemovalPolicy.DESTROY,
        )
        container = task.add_container(
            name,
            image=aws_ecs.ContainerImage.from_ecr_repository(self.images[image], self.deployment.version),
            entry_point=entry_point,
            command=command,
            environment=environment,
            secrets={variable(secret): self._ecs_secret(secret) for secret in secrets},
            logging=aws_ecs.LogDrivers.aws_logs(stream_prefix=name, log_group=group),
            # The most that Fargate gives; a job that is told to stop needs it to end its processes.
            stop_timeout=Duration.seconds(120),
            readonly_root_filesystem=read_only,
            user="10001:10001",
            linux_parameters=aws_ecs.LinuxParameters(self, f"Linux-{name}", init_process_enabled=True),
            health_check=aws_ecs.HealthCheck(
                command=health,
                interval=Duration.seconds(30),
                timeout=Duration.seconds(30),
                retries=4,
                start_period=Duration.seconds(180),
            )
            if health
            else None,
            port_mappings=[aws_ecs.PortMapping(container_port=port)] if port else None,
        )
        if files:
            task.add_volume(
                name="state",
                efs_volume_configuration=aws_ecs.EfsVolumeConfiguration(
                    file_system_id=self.stores.files.file_system_id,
                    transit_encryption="ENABLED",
                    authorization_config=aws_ecs.AuthorizationConfig(
                        access_point_id=self.stores.access_point.access_point_id, iam="ENABLED"
                    ),
                ),
            )
            container.add_mount_points(
                aws_ecs.MountPoint(container_path="/state", source_volume="state", read_only=files == "read")
            )
        for part in (task, role, execution_role, group):
            of_component(part, component)
        return task

    def _ecs_secret(self, secret: str) -> aws_ecs.Secret:
        """A secret of `Stores`; `tls/<field>` is a field of the secret `tls`."""
        if secret.startswith("tls/"):
            return aws_ecs.Secret.from_secrets_manager(self.secrets["tls"], secret.removeprefix("tls/"))
        return aws_ecs.Secret.from_secrets_manager(self.secrets[secret])

    def _service(
        self,
        name: str,
        task: aws_ecs.FargateTaskDefinition,
        group: str,
        component: str,
        *,
        count: int = 1,
        one_at_most: bool = False,
    ) -> aws_ecs.FargateService:
        service = aws_ecs.FargateService(
            self,
            f"Service-{name}",
            service_name=name,
            cluster=self.cluster,
            task_definition=task,
            desired_count=count if self.deployment.running else 0,
            security_groups=[self.groups[group]],
            vpc_subnets=aws_ec2.SubnetSelection(subnet_type=aws_ec2.SubnetType.PRIVATE_WITH_EGRESS),
            min_healthy_percent=0 if one_at_most else 100,
            max_healthy_percent=100 if one_at_most else 200,
            circuit_breaker=aws_ecs.DeploymentCircuitBreaker(enable=True, rollback=True),
            availability_zone_rebalancing=aws_ecs.AvailabilityZoneRebalancing.DISABLED
            if one_at_most
            else aws_ecs.AvailabilityZoneRebalancing.ENABLED,
            enable_ecs_managed_tags=True,
            propagate_tags=aws_ecs.PropagatedTagSource.SERVICE,
        )
        # What it starts with, it may read: the policy must be there before the first task.
        policy = task.execution_role.node.try_find_child("DefaultPolicy")  # type: ignore[union-attr]
        if policy is not None:
            service.node.add_dependency(policy)
        of_component(service, component)
        self.services[name] = service
        return service

    def _airflow_environment(self) -> dict[str, str]:
        """Airflow's own settings, as in docker-compose.yaml, and Airloop's."""
        deployment, host = self.deployment, self.database_host

        def from_file(name: str, after: str = "") -> str:
            return f"""sh -c 'printf "%s{after}" "$(cat {FOLDER}/{name})"'"""

        return {
            **variables_of(self.settings),
            "AIRLOOP_SECRETS_DIR": FOLDER,
            "PGPASSFILE": f"{FOLDER}/pgpass",
            "AWS_DEFAULT_REGION": deployment.region,
            # On the state folder, so that the API server shows the logs that the scheduler's tasks write.
            "AIRFLOW_HOME": "/state/airflow",
            "AIRFLOW__API__BASE_URL": f"https://airflow.{deployment.domain}",
            "AIRFLOW__API__SECRET_KEY_CMD": from_file("api"),
            "AIRFLOW__API_AUTH__JWT_SECRET_CMD": from_file("jwt"),
            "AIRFLOW__CORE__AUTH_MANAGER": (
                "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
            ),
            "AIRFLOW__CORE__DAGS_FOLDER": "/airloop/dags",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": (
                f"https://airflow.{deployment.internal_domain}/execution/"
            ),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__FERNET_KEY_CMD": from_file("fernet", "="),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "16",
            "AIRFLOW__CORE__PLUGINS_FOLDER": "/airloop/plugins",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": (
                f"postgresql+psycopg2://airflow@{host}/airflow?sslmode=require"
            ),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": (
                f"postgresql+asyncpg://airflow@{host}/airflow?ssl=require"
            ),
            "AIRFLOW__LOGGING__JSON_LOGS": "True",
            "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True",
            "AIRFLOW__OPERATORS__DEFAULT_OWNER": "ml-platform",
            "AIRFLOW__SECRETS__BACKEND": (
                "airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend"
            ),
            "AIRFLOW__SECRETS__BACKEND_KWARGS": (
                f'{{"connections_prefix": "{permissions.SECRETS}/connections", '
                f'"variables_prefix": "{permissions.SECRETS}/variables", '
                f'"config_prefix": null, "region_name": "{deployment.region}"}}'
            ),
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }

    def _airflow(self) -> None:
        environment = self._airflow_environment()
        files = {**_AIRFLOW, **_VERIFY}
        login = {"airflow": "database/airflow"}
        deployment, base = self.deployment, self.base
        application = self.jobs.application.attr_arn
        secrets = [
            permissions.read_secrets(
                deployment,
                "Airflow",
                *(f"{permissions.SECRETS}/{kind}/*" for kind in ("connections", "variables")),
            ),
            permissions.use_key(base.key, deployment, "secretsmanager", "s3", "kinesis"),
        ]
        follow = permissions.follow_jobs(deployment, application)
        all_statements = [
            *secrets,
            *follow,
            *permissions.start_jobs(
                deployment,
                application,
                self.jobs.queue.attr_job_queue_arn,
                self.jobs.definition_name,
                {
                    "emr-serverless.amazonaws.com": self.jobs.spark_role.role_arn,
                    "sagemaker.amazonaws.com": self.jobs.training_role.role_arn,
                },
            ),
            permissions.read_logs(deployment, SPARK_LOGS, BATCH_LOGS, TRAINING_LOGS),
            # Rollouts, monitoring and costs run here, as processes.
            *permissions.write_bucket(deployment, "warehouse"),
            *permissions.write_bucket(deployment, "jobs"),
            permissions.write_tables(deployment),
            # Streams are landed here: one run at a time, by a lock in the state folder.
            permissions.read_stream(self.stores.stream.stream_arn),
            # An erasure removes every version of a file.
            permissions.erase_versions(deployment),
        ]
        scheduler_logins = {**login, "feast": "database/feast", "tuning": "database/tuning"}
        all_files = {**files, **_SETTINGS, "signing_key.pem": "signing-key"}
        jobs_check = ["CMD", "airflow", "jobs", "check", "--local", "--job-type"]
        api_command = (
            f"airflow api-server --port {network.AIRFLOW} --workers 1 "
            f"--ssl-cert {FOLDER}/certificate.pem --ssl-key {FOLDER}/private_key.pem"
        )
        # The key of one password, which the simple manager reads from a JSON file.
        password = f"""printf '{{"admin": "%s"}}' "$(cat {FOLDER}/admin)" > {FOLDER}/passwords.json"""
        parts: list[
            tuple[str, str, Size, str, dict[str, str], dict[str, str], list[Any], list[str] | None]
        ] = [
            (
                "scheduler",
                "worker",
                Size(4096, 16384),
                "airflow scheduler --skip-serve-logs",
                all_files,
                scheduler_logins,
                all_statements,
                [*jobs_check, "SchedulerJob"],
            ),
            (
                "dag-processor",
                "airflow",
                Size(1024, 2048),
                "airflow dag-processor",
                files,
                login,
                [],
                [*jobs_check, "DagProcessorJob"],
            ),
            (
                "triggerer",
                "airflow",
                Size(1024, 2048),
                "airflow triggerer --skip-serve-logs",
                files,
                login,
                [*secrets, *follow, permissions.read_logs(deployment, SPARK_LOGS, BATCH_LOGS, TRAINING_LOGS)],
                [*jobs_check, "TriggererJob"],
            ),
            (
                "api-server",
                "airflow",
                Size(1024, 3072),
                api_command,
                {**files, **_TLS, "admin": "airflow/admin"},
                login,
                [*secrets],
                None,
            ),
        ]
        own = {
            "scheduler": {"AIRLOOP_SIGNING_KEY": f"{FOLDER}/signing_key.pem"},
            "api-server": {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": f"{FOLDER}/passwords.json"},
        }
        for name, image, size, run, written, logins, statements, health in parts:
            command = started(written, logins, run, host=self.database_host)
            if name == "api-server":
                command = [*command[:2], command[2].replace("exec airflow", f"{password}\nexec airflow")]
            task = self._task(
                name,
                image,
                size,
                command,
                list(dict.fromkeys((*written.values(), *logins.values()))),
                {
                    **environment,
                    "AIRLOOP_VERIFICATION_KEY": f"{FOLDER}/verification_key.pem",
                    **own.get(name, {}),
                },
                statements,
                files="write",
                component="airflow",
                health=health,
                port=network.AIRFLOW if name == "api-server" else None,
            )
            # Two schedulers would share the work, but the jobs of the old one end with it all the same.
            self._service(name, task, "airflow", "airflow", one_at_most=name == "scheduler")
        logins = {"airloop": "database/master", "airflow": "database/airflow"}
        script = "\n".join(
            (
                "python - <<'PYTHON'",
                DATABASE_SETUP.read_text("utf-8").rstrip(),
                "PYTHON",
                *(f"unset {variable(f'database/{name}')}" for name in DATABASES if name != "airflow"),
                "mkdir -p /state/airflow /state/models",
                "cd /state/models && [ -e models.config ] || echo 'model_config_list {}' > models.config",
            )
        )
        # Run once per version, by hand or by a workflow: logins, databases, and Airflow's tables.
        pool = (
            "airflow pools get hourly || airflow pools set hourly 8 'what runs each hour for every use case'"
        )
        command = started(
            _AIRFLOW, logins, f'sh -ec "airflow db migrate && ({pool})"', host=self.database_host
        )
        # Before the prelude forgets the passwords.
        command[2] = command[2].replace(f"mkdir -p {FOLDER}\n", f"mkdir -p {FOLDER}\n{script}\n")
        self._task(
            "setup",
            "airflow",
            Size(1024, 2048),
            command,
            [
                *_AIRFLOW.values(),
                *logins.values(),
                *(f"database/{name}" for name in DATABASES if name != "airflow"),
            ],
            {**environment, "DATABASE_HOST": self.database_host, "DATABASE_NAMES": " ".join(DATABASES)},
            [],
            files="write",
            component="airflow",
        )

    def _mlflow(self) -> None:
        run = (
            f"mlflow server --host 0.0.0.0 --port {network.MLFLOW} --workers 1 "
            f"--artifacts-destination s3://{permissions.bucket_name(self.deployment, 'artifacts')}/mlflow "
            f"--allowed-hosts mlflow.{self.deployment.internal_domain} "
            f"--uvicorn-opts '--ssl-certfile {FOLDER}/certificate.pem --ssl-keyfile {FOLDER}/private_key.pem'"
        )
        login = {"mlflow": "database/mlflow"}
        task = self._task(
            "mlflow",
            "tracking",
            Size(1024, 2048),
            started(_TLS, login, run, host=self.database_host),
            [*_TLS.values(), *login.values()],
            {
                "MLFLOW_BACKEND_STORE_URI": (
                    f"postgresql+psycopg2://mlflow@{self.database_host}/mlflow?sslmode=require"
                ),
                "PGPASSFILE": f"{FOLDER}/pgpass",
                "AWS_DEFAULT_REGION": self.deployment.region,
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "MLFLOW_S3_UPLOAD_EXTRA_ARGS": self.to_json_string(
                    {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.base.key.key_arn}
                ),
            },
            [
                *permissions.write_bucket(self.deployment, "artifacts"),
                permissions.use_key(self.base.key, self.deployment, "s3"),
            ],
            component="registry",
            health=_health(network.MLFLOW, "/health"),
            port=network.MLFLOW,
        )
        self._service("mlflow", task, "mlflow", "registry")

    def _model_server(self) -> None:
        """One: a reload by a rollout reaches one server."""
        flags = (
            "/usr/bin/tensorflow_model_server --port=8500 --rest_api_port=8501 "
            "--model_config_file=/state/models/models.config "
            "--allow_version_labels_for_unavailable_models=true --enable_batching=true "
            f"--grpc_max_threads=64 --ssl_config_file={FOLDER}/ssl.config"
        )
        task = self._task(
            "model-server",
            "model-server",
            Size(2048, 4096),
            started({"ssl.config": "tls/ssl_config"}, {}, flags),
            ["tls/ssl_config"],
            {},
            [],
            files="read",
            component="serving",
            # The image has neither curl nor Python, but bash.
            health=["CMD", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8500 4<>/dev/tcp/127.0.0.1/8501"],
            port=network.MODELS,
            # The image's own would start the server with flags of its own.
            entry_point=[],
            read_only=True,
        )
        self._service("model-server", task, "model-server", "serving")

    def _gateway(self) -> None:
        login = {"feast": "database/feast"}
        files = {
            **_TLS,
            **_VERIFY,
            "gateway_keys.json": "gateway-keys",
            "airloop_redis_connection": "settings/redis_connection",
        }
        task = self._task(
            "gateway",
            "serving",
            Size(1024, 2048),
            started(
                files,
                login,
                f"python -m serving.gateway --host 0.0.0.0 --port {network.GATEWAY}",
                host=self.database_host,
            ),
            [*files.values(), *login.values()],
            {
                **variables_of(self.settings),
                "AIRLOOP_SECRETS_DIR": FOLDER,
                "AIRLOOP_GATEWAY_CERTIFICATE": f"{FOLDER}/certificate.pem",
                "AIRLOOP_GATEWAY_PRIVATE_KEY": f"{FOLDER}/private_key.pem",
                "AIRLOOP_GATEWAY_KEYS": f"{FOLDER}/gateway_keys.json",
                "AIRLOOP_VERIFICATION_KEY": f"{FOLDER}/verification_key.pem",
                "PGPASSFILE": f"{FOLDER}/pgpass",
            },
            [],
            files="write",
            component="serving",
            health=_health(network.GATEWAY, "/healthz"),
            port=network.GATEWAY,
        )
        service = self._service("gateway", task, "gateway", "serving", count=self.deployment.gateways)
        if not self.deployment.running:
            return
        scaling = service.auto_scale_task_count(
            min_capacity=self.deployment.gateways, max_capacity=4 * self.deployment.gateways
        )
        scaling.scale_on_cpu_utilization("Cpu", target_utilization_percent=60)

    def _balancers(self) -> None:
        deployment, vpc = self.deployment, self.base.network.vpc
        certificate = aws_certificatemanager.Certificate.from_certificate_arn(
            self, "Certificate", deployment.certificate_arn
        )
        made = {}
        for name, public in (("public", True), ("internal", False)):
            balancer = balancing.ApplicationLoadBalancer(
                self,
                f"Balancer-{name}",
                load_balancer_name=f"{deployment.name}-{name}",
                vpc=vpc,
                internet_facing=public,
                security_group=self.groups[f"{name}-balancer"],
                vpc_subnets=aws_ec2.SubnetSelection(
                    subnet_type=aws_ec2.SubnetType.PUBLIC
                    if public
                    else aws_ec2.SubnetType.PRIVATE_WITH_EGRESS
                ),
                drop_invalid_header_fields=True,
                deletion_protection=True,
            )
            for key, value in (
                ("access_logs.s3.enabled", "true"),
                ("access_logs.s3.bucket", self.base.buckets.logs.bucket_name),
                ("access_logs.s3.prefix", f"balancers/{name}"),
            ):
                balancer.set_attribute(key, value)
            made[name] = balancer
            of_component(balancer, "network")
        public = self._listener("Public", made["public"], certificate, network.HTTPS)
        internal = self._listener("Internal", made["internal"], certificate, network.HTTPS)
        models = self._listener("Models", made["internal"], certificate, network.MODELS)
        routes = (
            # name, listener, host, service, port, path of the health check, who
            (
                "airflow",
                public,
                f"airflow.{deployment.domain}",
                "api-server",
                network.AIRFLOW,
                _AIRFLOW_HEALTH,
                deployment.people,
            ),
            (
                "gateway",
                public,
                f"gateway.{deployment.domain}",
                "gateway",
                network.GATEWAY,
                "/healthz",
                deployment.clients,
            ),
            (
                "execution",
                internal,
                f"airflow.{deployment.internal_domain}",
                "api-server",
                network.AIRFLOW,
                _AIRFLOW_HEALTH,
                (),
            ),
            (
                "mlflow",
                internal,
                f"mlflow.{deployment.internal_domain}",
                "mlflow",
                network.MLFLOW,
                "/health",
                (),
            ),
            (
                "models",
                models,
                f"models.{deployment.internal_domain}",
                "model-server",
                network.MODELS,
                "",
                (),
            ),
        )
        for priority, (name, listener, host, service, port, path, who) in enumerate(routes, start=1):
            grpc = not path
            targets = balancing.ApplicationTargetGroup(
                self,
                f"Targets-{name}",
                target_group_name=f"{deployment.name}-{name}",
                vpc=vpc,
                port=port,
                protocol=balancing.ApplicationProtocol.HTTPS,
                protocol_version=balancing.ApplicationProtocolVersion.GRPC
                if grpc
                else balancing.ApplicationProtocolVersion.HTTP1,
                targets=[
                    self.services[service].load_balancer_target(container_name=service, container_port=port)
                ],
                deregistration_delay=Duration.seconds(60),
                health_check=balancing.HealthCheck(
                    # A server without such a method says UNIMPLEMENTED, and so that it is there.
                    path="/AWS.ALB/healthcheck" if grpc else path,
                    healthy_grpc_codes="12" if grpc else None,
                    healthy_http_codes=None if grpc else "200",
                    protocol=balancing.Protocol.HTTPS,
                    interval=Duration.seconds(15),
                    timeout=Duration.seconds(10),
                    healthy_threshold_count=2,
                    unhealthy_threshold_count=3,
                ),
            )
            conditions = [balancing.ListenerCondition.host_headers([host])]
            if who:
                conditions.append(balancing.ListenerCondition.source_ips(list(who)))
            balancing.ApplicationListenerRule(
                self,
                f"Rule-{name}",
                listener=listener,
                priority=priority,
                conditions=conditions,
                action=balancing.ListenerAction.forward([targets]),
            )
            self.services[service].node.add_dependency(listener)
            self.target_groups[name] = targets
            of_component(targets, "network")
        self.balancers = made
        zone = aws_route53.HostedZone.from_hosted_zone_attributes(
            self, "Zone", hosted_zone_id=deployment.hosted_zone_id, zone_name=deployment.domain
        )
        inside = aws_route53.PrivateHostedZone(
            self, "InternalZone", zone_name=deployment.internal_domain, vpc=vpc
        )
        for where, balancer, names in (
            (zone, made["public"], ("airflow", "gateway")),
            (inside, made["internal"], ("airflow", "mlflow", "models")),
        ):
            for name in names:
                aws_route53.ARecord(
                    self,
                    f"Name-{'internal' if where is inside else 'public'}-{name}",
                    zone=where,
                    record_name=name,
                    target=aws_route53.RecordTarget.from_alias(
                        aws_route53_targets.LoadBalancerTarget(balancer)
                    ),
                )

    def _listener(
        self,
        name: str,
        balancer: balancing.ApplicationLoadBalancer,
        certificate: aws_certificatemanager.ICertificate,
        port: int,
    ) -> balancing.ApplicationListener:
        return balancer.add_listener(
            f"Listener-{name}",
            port=port,
            protocol=balancing.ApplicationProtocol.HTTPS,
            certificates=[certificate],
            # TLS 1.2 with forward secrecy and AES-GCM, or 1.3.
            ssl_policy=balancing.SslPolicy.TLS13_RES,
            open=False,
            default_action=balancing.ListenerAction.fixed_response(404),
        )


_AIRFLOW_HEALTH: Final = "/api/v2/monitor/health"


def _health(port: int, path: str) -> list[str]:
    """A check from within, where the certificate is for another name."""
    return [
        "CMD",
        "python",
        "-c",
        "import ssl; from urllib.request import urlopen; "
        f'urlopen("https://localhost:{port}{path}", timeout=9, context=ssl._create_unverified_context())',
    ]
