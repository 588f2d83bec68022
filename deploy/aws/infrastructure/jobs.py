"""The stack that computes: EMR Serverless, what a SageMaker training needs, AWS Batch with GPUs; their roles.

Belongs here: places where jobs run. Does not belong here: starting one (Airflow does, see
`plugins/airloop_airflow`).
"""

from __future__ import annotations

from typing import Any, Final

from aws_cdk import ArnFormat, RemovalPolicy, Stack, aws_batch, aws_ec2, aws_emrserverless, aws_iam, aws_logs
from constructs import Construct

from infrastructure import permissions
from infrastructure.stores import StoresStack
from infrastructure.tags import of_component

SPARK_RELEASE: Final = "emr-spark-8.0.0"
"""Spark 4.0.2: the newest that EMR has; the jobs are tested with 4.1 (docs/adr/0034-aws.md)."""
SPARK_LOGS: Final = "/airloop/emr-serverless"
BATCH_LOGS: Final = "/airloop/batch"
TRAINING_LOGS: Final = "/aws/sagemaker/TrainingJobs"


class JobsStack(Stack):
    """EMR Serverless application, SageMaker's role, Batch's environment, queue and definition."""

    def __init__(self, scope: Construct, stores: StoresStack, **kwargs: Any) -> None:
        super().__init__(scope, f"{stores.deployment.name}-jobs", **kwargs)
        self.stores, self.base, self.deployment = stores, stores.base, stores.deployment
        self.spark_role = self._role("SparkJob", "emr-serverless.amazonaws.com", self._spark_statements())
        self.training_role = self._role(
            "TrainingJob",
            "sagemaker.amazonaws.com",
            [
                *self._training_statements(TRAINING_LOGS),
                *permissions.join_network(
                    self.deployment,
                    self.base.network.private,
                    self.base.network.groups["jobs"].security_group_id,
                ),
                # What a training's own graphs in the console are drawn from.
                aws_iam.PolicyStatement(
                    sid="Metrics",
                    actions=["cloudwatch:PutMetricData"],
                    resources=["*"],
                    conditions={"StringEquals": {"cloudwatch:namespace": TRAINING_LOGS}},
                ),
            ],
        )
        self.batch_role = self._role(
            "BatchJob", "ecs-tasks.amazonaws.com", self._training_statements(BATCH_LOGS)
        )
        for name in (SPARK_LOGS, BATCH_LOGS):
            group = aws_logs.LogGroup(
                self,
                f"Logs-{name.rpartition('/')[2]}",
                log_group_name=name,
                encryption_key=self.base.key,
                retention=aws_logs.RetentionDays.THREE_MONTHS,
                removal_policy=RemovalPolicy.DESTROY,
            )
            of_component(group, "observability")
        self.application = self._application()
        of_component(self.application, "spark")
        self._batch()

    def _role(
        self, name: str, service: str, statements: list[aws_iam.PolicyStatement], *, ours: bool = True
    ) -> aws_iam.Role:
        """A role that `service` takes on, and only for this account's things."""
        principal = aws_iam.ServicePrincipal(
            service, conditions={"StringEquals": {"aws:SourceAccount": self.account}} if ours else None
        )
        role = aws_iam.Role(
            self, name, role_name=f"{self.deployment.name}-{name.lower()}", assumed_by=principal
        )
        for statement in statements:
            role.add_to_policy(statement)
        of_component(role, "security")
        return role

    def _spark_statements(self) -> list[aws_iam.PolicyStatement]:
        deployment = self.deployment
        return [
            *permissions.write_bucket(deployment, "warehouse"),
            *permissions.write_bucket(deployment, "jobs"),
            permissions.write_tables(deployment),
            permissions.use_key(self.base.key, deployment, "s3", "secretsmanager"),
            permissions.read_secrets(
                deployment,
                "Secrets",
                f"{permissions.SECRETS}/connections/*",
                f"{permissions.SECRETS}/database-passwords-??????",
                f"{permissions.SECRETS}/settings/redis_connection-??????",
            ),
            *permissions.write_logs(deployment, SPARK_LOGS),
        ]

    def _training_statements(self, log_group: str) -> list[aws_iam.PolicyStatement]:
        deployment = self.deployment
        return [
            *permissions.write_bucket(deployment, "warehouse"),
            *permissions.write_bucket(deployment, "jobs"),
            permissions.write_tables(deployment),
            permissions.use_key(self.base.key, deployment, "s3", "secretsmanager", "ecr"),
            permissions.read_secrets(
                deployment, "Secrets", f"{permissions.SECRETS}/database-passwords-??????"
            ),
            *permissions.pull_images(
                [self.base.repositories[name].repository_arn for name in ("training", "training-gpu")]
            ),
            *permissions.write_logs(deployment, log_group),
        ]

    def _application(self) -> aws_emrserverless.CfnApplication:
        return aws_emrserverless.CfnApplication(
            self,
            "Spark",
            name=self.deployment.name,
            type="SPARK",
            release_label=SPARK_RELEASE,
            architecture="X86_64",
            image_configuration=aws_emrserverless.CfnApplication.ImageConfigurationInputProperty(
                image_uri=self.base.image("spark-emr")
            ),
            auto_start_configuration=aws_emrserverless.CfnApplication.AutoStartConfigurationProperty(
                enabled=True
            ),
            # Nothing is kept warm: a run waits about two minutes for its workers, and idle hours cost
            # nothing.
            auto_stop_configuration=aws_emrserverless.CfnApplication.AutoStopConfigurationProperty(
                enabled=True, idle_timeout_minutes=15
            ),
            maximum_capacity=aws_emrserverless.CfnApplication.MaximumAllowedResourcesProperty(
                cpu="64 vCPU", memory="256 GB", disk="1000 GB"
            ),
            network_configuration=aws_emrserverless.CfnApplication.NetworkConfigurationProperty(
                subnet_ids=self.base.network.private,
                security_group_ids=[self.base.network.groups["jobs"].security_group_id],
            ),
            monitoring_configuration=aws_emrserverless.CfnApplication.MonitoringConfigurationProperty(
                cloud_watch_logging_configuration=aws_emrserverless.CfnApplication.CloudWatchLoggingConfigurationProperty(
                    enabled=True, log_group_name=SPARK_LOGS, encryption_key_arn=self.base.key.key_arn
                ),
                # Else EMR keeps logs of its own, for thirty days, with a key of its own.
                managed_persistence_monitoring_configuration=aws_emrserverless.CfnApplication.ManagedPersistenceMonitoringConfigurationProperty(
                    enabled=False
                ),
            ),
        )

    def _batch(self) -> None:
        """On-demand hosts in one zone: Batch starts jobs of several nodes on no spot capacity."""
        deployment = self.deployment
        host_role = self._role(
            "BatchHost",
            "ec2.amazonaws.com",
            [
                *permissions.pull_images([self.base.repositories["training-gpu"].repository_arn]),
                permissions.use_key(self.base.key, deployment, "ecr"),
                # What ECS's agent on a host asks for. Its cluster is Batch's, whose name is not known here.
                aws_iam.PolicyStatement(
                    sid="Agent",
                    actions=[
                        "ecs:DeregisterContainerInstance",
                        "ecs:DiscoverPollEndpoint",
                        "ecs:Poll",
                        "ecs:RegisterContainerInstance",
                        "ecs:StartTelemetrySession",
                        "ecs:SubmitAttachmentStateChanges",
                        "ecs:SubmitContainerStateChange",
                        "ecs:SubmitTaskStateChange",
                        "ecs:UpdateContainerInstancesState",
                    ],
                    resources=["*"],
                    conditions={"StringEquals": {"aws:RequestedRegion": deployment.region}},
                ),
            ],
            ours=False,
        )
        profile = aws_iam.CfnInstanceProfile(self, "BatchProfile", roles=[host_role.role_name])
        execution_role = self._role(
            "BatchExecution",
            "ecs-tasks.amazonaws.com",
            [
                *permissions.pull_images([self.base.repositories["training-gpu"].repository_arn]),
                permissions.use_key(self.base.key, deployment, "ecr"),
                aws_iam.PolicyStatement(
                    sid="Logs",
                    actions=["logs:CreateLogStream", "logs:PutLogEvents"],
                    resources=[
                        self.format_arn(
                            service="logs",
                            resource="log-group",
                            resource_name=f"{BATCH_LOGS}:*",
                            arn_format=ArnFormat.COLON_RESOURCE_NAME,
                        )
                    ],
                ),
            ],
        )
        placement = aws_ec2.CfnPlacementGroup(self, "BatchPlacement", strategy="cluster")
        template = aws_ec2.CfnLaunchTemplate(
            self,
            "BatchHostTemplate",
            launch_template_name=f"{deployment.name}-batch",
            launch_template_data=aws_ec2.CfnLaunchTemplate.LaunchTemplateDataProperty(
                metadata_options=aws_ec2.CfnLaunchTemplate.MetadataOptionsProperty(
                    http_tokens="required", http_put_response_hop_limit=2
                ),
                block_device_mappings=[
                    aws_ec2.CfnLaunchTemplate.BlockDeviceMappingProperty(
                        device_name="/dev/xvda",
                        ebs=aws_ec2.CfnLaunchTemplate.EbsProperty(
                            volume_size=100, volume_type="gp3", encrypted=True, delete_on_termination=True
                        ),
                    )
                ],
            ),
        )
        environment = aws_batch.CfnComputeEnvironment(
            self,
            "BatchHosts",
            compute_environment_name=deployment.name,
            type="MANAGED",
            state="ENABLED",
            replace_compute_environment=False,
            compute_resources=aws_batch.CfnComputeEnvironment.ComputeResourcesProperty(
                type="EC2",
                allocation_strategy="BEST_FIT_PROGRESSIVE",
                instance_types=list(deployment.gpu_instance_types),
                minv_cpus=0,
                maxv_cpus=deployment.most_gpu_vcpus,
                instance_role=profile.attr_arn,
                placement_group=placement.attr_group_name,
                # Gradients travel between the hosts: they stand in one zone.
                subnets=self.base.network.private[:1],
                security_group_ids=[self.base.network.groups["jobs"].security_group_id],
                ec2_configuration=[
                    aws_batch.CfnComputeEnvironment.Ec2ConfigurationObjectProperty(
                        image_type="ECS_AL2023_NVIDIA"
                    )
                ],
                launch_template=aws_batch.CfnComputeEnvironment.LaunchTemplateSpecificationProperty(
                    launch_template_id=template.ref, version="$Latest"
                ),
            ),
        )
        self.queue = aws_batch.CfnJobQueue(
            self,
            "BatchQueue",
            job_queue_name=deployment.name,
            priority=1,
            state="ENABLED",
            compute_environment_order=[
                aws_batch.CfnJobQueue.ComputeEnvironmentOrderProperty(
                    order=1, compute_environment=environment.ref
                )
            ],
        )
        self.definition_name = f"{deployment.name}-training"
        container = aws_batch.CfnJobDefinition.ContainerPropertiesProperty(
            image=self.base.image("training-gpu"),
            job_role_arn=self.batch_role.role_arn,
            execution_role_arn=execution_role.role_arn,
            # Replaced by whoever submits: the module and its flags.
            command=["python", "--version"],
            readonly_root_filesystem=False,
            privileged=False,
            user="10001",
            resource_requirements=[
                aws_batch.CfnJobDefinition.ResourceRequirementProperty(type=kind, value=value)
                for kind, value in (("GPU", "1"), ("VCPU", "4"), ("MEMORY", "14336"))
            ],
            linux_parameters=aws_batch.CfnJobDefinition.LinuxParametersProperty(shared_memory_size=2048),
            log_configuration=aws_batch.CfnJobDefinition.LogConfigurationProperty(
                log_driver="awslogs",
                options={
                    "awslogs-group": BATCH_LOGS,
                    "awslogs-region": deployment.region,
                    "awslogs-stream-prefix": "training",
                },
            ),
        )
        self.definition = aws_batch.CfnJobDefinition(
            self,
            "BatchTraining",
            job_definition_name=self.definition_name,
            type="multinode" if deployment.gpu_nodes > 1 else "container",
            platform_capabilities=["EC2"],
            propagate_tags=True,
            # A host that is gone ends the job: Airflow tries again, from the checkpoint.
            retry_strategy=aws_batch.CfnJobDefinition.RetryStrategyProperty(attempts=1),
            container_properties=None if deployment.gpu_nodes > 1 else container,
            node_properties=None
            if deployment.gpu_nodes == 1
            else aws_batch.CfnJobDefinition.NodePropertiesProperty(
                main_node=0,
                num_nodes=deployment.gpu_nodes,
                node_range_properties=[
                    aws_batch.CfnJobDefinition.NodeRangePropertyProperty(
                        target_nodes="0:", container=container
                    )
                ],
            ),
        )
        for part in (placement, environment, self.queue, self.definition, template):
            of_component(part, "training")
