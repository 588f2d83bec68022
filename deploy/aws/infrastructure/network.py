"""The network: two zones, three kinds of subnet, and who may talk to whom.

Belongs here: subnets, endpoints and every security group with its rules. Does not belong here: what runs in
them.
"""

from __future__ import annotations

from typing import Final

from aws_cdk import RemovalPolicy, aws_ec2, aws_iam, aws_kms, aws_logs
from constructs import Construct

from infrastructure.deployment import Deployment

POSTGRES: Final = 5432
REDIS: Final = 6379
NFS: Final = 2049
HTTPS: Final = 443
AIRFLOW: Final = 8080
MLFLOW: Final = 5000
GATEWAY: Final = 8000
MODELS: Final = 8500

_RULES: Final = (
    # who, whom, port, why
    ("public-balancer", "airflow", AIRFLOW, "people to Airflow's page"),
    ("public-balancer", "gateway", GATEWAY, "clients to the gateway"),
    ("internal-balancer", "airflow", AIRFLOW, "tasks to the execution API"),
    ("internal-balancer", "mlflow", MLFLOW, "MLflow"),
    ("internal-balancer", "model-server", MODELS, "predictions"),
    ("airflow", "internal-balancer", HTTPS, "the execution API and MLflow"),
    ("airflow", "internal-balancer", MODELS, "rollouts"),
    ("airflow", "database", POSTGRES, "metadata, registry, studies"),
    ("airflow", "cache", REDIS, "online features"),
    ("airflow", "files", NFS, "the state folder"),
    ("mlflow", "database", POSTGRES, "tracking and registry"),
    ("model-server", "files", NFS, "models"),
    ("gateway", "internal-balancer", HTTPS, "MLflow"),
    ("gateway", "internal-balancer", MODELS, "predictions"),
    ("gateway", "database", POSTGRES, "Feast's registry"),
    ("gateway", "cache", REDIS, "online features"),
    ("gateway", "files", NFS, "models' routing, spools"),
    ("jobs", "internal-balancer", HTTPS, "MLflow"),
    ("jobs", "database", POSTGRES, "Feast's registry, studies"),
    ("jobs", "cache", REDIS, "online features"),
)


class Network(Construct):
    """The VPC and its security groups, by the names that `_RULES` has."""

    def __init__(self, scope: Construct, deployment: Deployment, key: aws_kms.Key) -> None:
        super().__init__(scope, "Network")
        self.vpc = aws_ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=aws_ec2.IpAddresses.cidr(deployment.cidr),
            availability_zones=list(deployment.zones),
            nat_gateways=deployment.nat_gateways,
            # Would need a Lambda function of the CDK's; nothing is put into the default group.
            restrict_default_security_group=False,
            subnet_configuration=[
                aws_ec2.SubnetConfiguration(
                    name="public",
                    subnet_type=aws_ec2.SubnetType.PUBLIC,
                    cidr_mask=24,
                    map_public_ip_on_launch=False,
                ),
                aws_ec2.SubnetConfiguration(
                    name="private", subnet_type=aws_ec2.SubnetType.PRIVATE_WITH_EGRESS, cidr_mask=22
                ),
                aws_ec2.SubnetConfiguration(
                    name="data", subnet_type=aws_ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=24
                ),
            ],
            # Costs nothing, and keeps the tables' traffic off the NAT gateway.
            gateway_endpoints={
                "S3": aws_ec2.GatewayVpcEndpointOptions(service=aws_ec2.GatewayVpcEndpointAwsService.S3)
            },
        )
        log_group = aws_logs.LogGroup(
            self,
            "Flows",
            encryption_key=key,
            retention=aws_logs.RetentionDays.ONE_MONTH,
            removal_policy=RemovalPolicy.DESTROY,
        )
        role = aws_iam.Role(
            self, "FlowsRole", assumed_by=aws_iam.ServicePrincipal("vpc-flow-logs.amazonaws.com")
        )
        self.vpc.add_flow_log(
            "Rejected",
            destination=aws_ec2.FlowLogDestination.to_cloud_watch_logs(log_group, role),
            traffic_type=aws_ec2.FlowLogTrafficType.REJECT,
        )
        names = dict.fromkeys(name for rule in _RULES for name in rule[:2])
        self.groups = {
            name: aws_ec2.SecurityGroup(
                self,
                f"Group-{name}",
                vpc=self.vpc,
                description=f"Airloop: {name}",
                # AWS's own APIs are reached through the NAT gateway.
                allow_all_outbound=name not in ("database", "cache", "files"),
            )
            for name in names
        }
        for who, whom, port, why in _RULES:
            self.groups[whom].add_ingress_rule(self.groups[who], aws_ec2.Port.tcp(port), why)
        # Spark's and TensorFlow's workers choose their ports.
        self.groups["jobs"].add_ingress_rule(
            self.groups["jobs"], aws_ec2.Port.all_tcp(), "workers of one job"
        )
        for name, ranges in (("people", deployment.people), ("clients", deployment.clients)):
            for cidr in ranges:
                self.groups["public-balancer"].add_ingress_rule(
                    aws_ec2.Peer.ipv4(cidr), aws_ec2.Port.tcp(HTTPS), name
                )

    @property
    def private(self) -> list[str]:
        """Ids of the subnets that jobs and services run in."""
        return self.vpc.select_subnets(subnet_type=aws_ec2.SubnetType.PRIVATE_WITH_EGRESS).subnet_ids

    @property
    def data(self) -> list[str]:
        """Ids of the subnets that have no way out."""
        return self.vpc.select_subnets(subnet_type=aws_ec2.SubnetType.PRIVATE_ISOLATED).subnet_ids
