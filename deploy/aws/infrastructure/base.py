"""The stack that everything else stands on: key, network, buckets, image repositories, who may deploy, who
is told.

Belongs here: what must be there before images are pushed. Does not belong here: anything that needs an image.
"""

from __future__ import annotations

from typing import Any, Final

from aws_cdk import Aws, Duration, RemovalPolicy, Stack, aws_budgets, aws_ecr, aws_iam, aws_sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infrastructure import permissions
from infrastructure.deployment import Deployment
from infrastructure.network import Network
from infrastructure.storage import Buckets, Key
from infrastructure.tags import ENVIRONMENT, of_component

IMAGES: Final = (
    "airflow",
    "model-server",
    "serving",
    "spark-emr",
    "tracking",
    "training",
    "training-gpu",
    "worker",
)
"""Repositories: one for each image that something here runs."""


class BaseStack(Stack):
    """Key, network, buckets, repositories, deployer, topic of alarms, budget."""

    def __init__(self, scope: Construct, deployment: Deployment, **kwargs: Any) -> None:
        super().__init__(scope, f"{deployment.name}-base", **kwargs)
        self.deployment = deployment
        self.key = Key(self, deployment).key
        of_component(self.key, "security")
        self.network = Network(self, deployment, self.key)
        of_component(self.network, "network")
        self.buckets = Buckets(self, deployment, self.key)
        self.repositories = {name: self._repository(name) for name in IMAGES}
        self.deployer = self._deployer()
        of_component(self.deployer, "delivery")
        self.alarms = aws_sns.Topic(
            self, "Alarms", topic_name=f"{deployment.name}-alarms", master_key=self.key, enforce_ssl=True
        )
        of_component(self.alarms, "observability")
        if deployment.alarm_email:
            self.alarms.add_subscription(subscriptions.EmailSubscription(deployment.alarm_email))
        if deployment.monthly_budget_usd:
            self._budget()

    def image(self, name: str) -> str:
        """URI of the image `name` in this deployment's version."""
        return self.repositories[name].repository_uri_for_tag(self.deployment.version)

    def _repository(self, name: str) -> aws_ecr.Repository:
        repository = aws_ecr.Repository(
            self,
            f"Images-{name}",
            repository_name=f"{self.deployment.name}/{name}",
            encryption=aws_ecr.RepositoryEncryption.KMS,
            encryption_key=self.key,
            image_scan_on_push=True,
            # What a tag named yesterday, it names today.
            image_tag_mutability=aws_ecr.TagMutability.IMMUTABLE,
            lifecycle_rules=[
                aws_ecr.LifecycleRule(
                    tag_status=aws_ecr.TagStatus.UNTAGGED, max_image_age=Duration.days(7), rule_priority=1
                ),
                aws_ecr.LifecycleRule(tag_status=aws_ecr.TagStatus.ANY, max_image_count=20, rule_priority=2),
            ],
            removal_policy=RemovalPolicy.RETAIN,
        )
        if name == "spark-emr":
            repository.add_to_resource_policy(
                aws_iam.PolicyStatement(
                    sid="EmrServerless",
                    principals=[aws_iam.ServicePrincipal("emr-serverless.amazonaws.com")],
                    actions=["ecr:BatchGetImage", "ecr:DescribeImages", "ecr:GetDownloadUrlForLayer"],
                    conditions={
                        "StringLike": {
                            "aws:SourceArn": f"arn:{Aws.PARTITION}:emr-serverless:{self.deployment.region}:"
                            f"{Aws.ACCOUNT_ID}:/applications/*"
                        }
                    },
                )
            )
        of_component(repository, "delivery")
        return repository

    def _deployer(self) -> aws_iam.Role:
        """The role of the workflows of one repository's one environment; there is no key to leak."""
        issuer = "token.actions.githubusercontent.com"
        provider = aws_iam.CfnOIDCProvider(
            self, "Github", url=f"https://{issuer}", client_id_list=["sts.amazonaws.com"]
        )
        of_component(provider, "delivery")
        subject = f"repo:{self.deployment.github_repository}:environment:{self.deployment.environment}"
        role = aws_iam.Role(
            self,
            "Deployer",
            role_name=f"{self.deployment.name}-deployer",
            assumed_by=aws_iam.FederatedPrincipal(
                provider.attr_arn,
                {"StringEquals": {f"{issuer}:aud": "sts.amazonaws.com", f"{issuer}:sub": subject}},
                "sts:AssumeRoleWithWebIdentity",
            ),
            max_session_duration=Duration.hours(2),
        )
        for statement in permissions.deploy(
            self.deployment, [repository.repository_arn for repository in self.repositories.values()]
        ):
            role.add_to_policy(statement)
        return role

    def _budget(self) -> None:
        aws_budgets.CfnBudget(
            self,
            "Budget",
            budget=aws_budgets.CfnBudget.BudgetDataProperty(
                budget_name=self.deployment.name,
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=aws_budgets.CfnBudget.SpendProperty(
                    amount=self.deployment.monthly_budget_usd, unit="USD"
                ),
                cost_filters={"TagKeyValue": [f"user:{ENVIRONMENT}${self.deployment.environment}"]},
            ),
            notifications_with_subscribers=[
                aws_budgets.CfnBudget.NotificationWithSubscribersProperty(
                    notification=aws_budgets.CfnBudget.NotificationProperty(
                        notification_type=kind,
                        comparison_operator="GREATER_THAN",
                        threshold=percent,
                        threshold_type="PERCENTAGE",
                    ),
                    subscribers=[
                        aws_budgets.CfnBudget.SubscriberProperty(
                            subscription_type="SNS", address=self.alarms.topic_arn
                        )
                    ],
                )
                for kind, percent in (("ACTUAL", 80), ("FORECASTED", 100))
            ],
        )
        self.alarms.add_to_resource_policy(
            aws_iam.PolicyStatement(
                sid="Budgets",
                principals=[aws_iam.ServicePrincipal("budgets.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[self.alarms.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
            )
        )
        self.key.add_to_resource_policy(
            aws_iam.PolicyStatement(
                sid="BudgetsOfThisAccount",
                principals=[aws_iam.ServicePrincipal("budgets.amazonaws.com")],
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=["*"],
                conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
            )
        )
