"""CloudWatch's alarms: what cannot be told from inside, each with the runbook that says what to do.

Belongs here: metrics, thresholds, runbooks. Does not belong here: what Airflow and Prometheus tell
(docs/alerts.md, serving/observability).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aws_cdk import Duration, aws_cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions

from infrastructure.tags import of_component

if TYPE_CHECKING:
    from infrastructure.services import ServicesStack

_AT_LEAST: Final = aws_cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD
_BELOW: Final = aws_cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
_GIB: Final = 1024**3


def add_alarms(stack: ServicesStack) -> None:
    """Every alarm of the deployment; each tells the topic when it begins and when it is over."""
    name = stack.deployment.name

    def metric(
        namespace: str,
        metric_name: str,
        dimensions: dict[str, str],
        statistic: str = "Average",
        minutes: int = 5,
    ) -> aws_cloudwatch.Metric:
        return aws_cloudwatch.Metric(
            namespace=namespace,
            metric_name=metric_name,
            dimensions_map=dimensions,
            statistic=statistic,
            period=Duration.minutes(minutes),
        )

    def running(service: str) -> aws_cloudwatch.Metric:
        return metric(
            "ECS/ContainerInsights",
            "RunningTaskCount",
            {"ClusterName": stack.cluster.cluster_name, "ServiceName": service},
            "Minimum",
        )

    def balancer(target: str, metric_name: str, statistic: str) -> aws_cloudwatch.Metric:
        which = "public" if target in ("airflow", "gateway") else "internal"
        return metric(
            "AWS/ApplicationELB",
            metric_name,
            {
                "LoadBalancer": stack.balancers[which].load_balancer_full_name,
                "TargetGroup": stack.target_groups[target].target_group_full_name,
            },
            statistic,
        )

    database = {"DBInstanceIdentifier": name}
    files = {"FileSystemId": stack.stores.files.file_system_id}
    cache = {"CacheClusterId": f"{name}-001"}
    # alarm, metric, comparison, threshold, periods of five minutes, no data means, runbook, what it means
    alarms = (
        (
            "SchedulerDown",
            running("scheduler"),
            _BELOW,
            1,
            2,
            True,
            "docs/runbooks/airflow_down.md",
            "Nothing is scheduled and no task runs.",
        ),
        (
            "TriggererDown",
            running("triggerer"),
            _BELOW,
            1,
            2,
            True,
            "docs/runbooks/airflow_down.md",
            "Deferred tasks do not go on.",
        ),
        (
            "DagProcessorDown",
            running("dag-processor"),
            _BELOW,
            1,
            3,
            True,
            "docs/runbooks/airflow_down.md",
            "Changed DAGs are not seen.",
        ),
        (
            "AirflowApiDown",
            balancer("airflow", "HealthyHostCount", "Minimum"),
            _BELOW,
            1,
            2,
            True,
            "docs/runbooks/airflow_down.md",
            "No page, and no task can tell its state.",
        ),
        (
            "RegistryDown",
            balancer("mlflow", "HealthyHostCount", "Minimum"),
            _BELOW,
            1,
            3,
            True,
            "docs/runbooks/aws_stores.md",
            "Trainings and rollouts fail; what serves goes on.",
        ),
        (
            "ModelServerDown",
            balancer("models", "HealthyHostCount", "Minimum"),
            _BELOW,
            1,
            1,
            True,
            "docs/runbooks/model_server_down.md",
            "No prediction is answered.",
        ),
        (
            "GatewayDown",
            balancer("gateway", "HealthyHostCount", "Minimum"),
            _BELOW,
            1,
            1,
            True,
            "docs/runbooks/gateway_down.md",
            "No client is answered.",
        ),
        (
            "GatewayErrors",
            balancer("gateway", "HTTPCode_Target_5XX_Count", "Sum"),
            _AT_LEAST,
            50,
            2,
            False,
            "docs/runbooks/gateway_errors.md",
            "Clients get errors.",
        ),
        (
            "GatewaySlow",
            balancer("gateway", "TargetResponseTime", "p99"),
            _AT_LEAST,
            0.25,
            2,
            False,
            "docs/runbooks/gateway_slow.md",
            "One request in a hundred takes longer than 250 ms.",
        ),
        (
            "DatabaseFull",
            metric("AWS/RDS", "FreeStorageSpace", database, "Minimum"),
            _BELOW,
            4 * _GIB,
            1,
            True,
            "docs/runbooks/aws_stores.md",
            "Less than 4 GiB are free on the database's disk.",
        ),
        (
            "DatabaseBusy",
            metric("AWS/RDS", "CPUUtilization", database),
            _AT_LEAST,
            85,
            6,
            False,
            "docs/runbooks/aws_stores.md",
            "Half an hour above 85% of the database's processors.",
        ),
        (
            "CacheFull",
            metric("AWS/ElastiCache", "DatabaseMemoryUsagePercentage", cache, "Maximum"),
            _AT_LEAST,
            80,
            3,
            False,
            "docs/runbooks/aws_stores.md",
            "Online features may soon be evicted.",
        ),
        (
            "CacheEvicts",
            metric("AWS/ElastiCache", "Evictions", cache, "Sum"),
            _AT_LEAST,
            1,
            1,
            False,
            "docs/runbooks/features_missing.md",
            "Online features are thrown away.",
        ),
        (
            "StateFolderBusy",
            metric("AWS/EFS", "PercentIOLimit", files, "Maximum"),
            _AT_LEAST,
            95,
            3,
            False,
            "docs/runbooks/aws_stores.md",
            "The state folder is at its limit of operations.",
        ),
        (
            "StreamLate",
            metric("AWS/Kinesis", "GetRecords.IteratorAgeMilliseconds", {"StreamName": name}, "Maximum", 60),
            _AT_LEAST,
            36 * 3_600_000,
            1,
            False,
            "docs/runbooks/late_data.md",
            "Records wait for 36 of the 72 hours that the stream keeps them.",
        ),
    )
    for title, measured, comparison, threshold, periods, missing_is_bad, runbook, meaning in alarms:
        alarm = aws_cloudwatch.Alarm(
            stack,
            f"Alarm-{title}",
            alarm_name=f"{name}-{title}",
            alarm_description=f"{meaning} Runbook: {runbook}",
            metric=measured,
            comparison_operator=comparison,
            threshold=threshold,
            evaluation_periods=periods,
            treat_missing_data=aws_cloudwatch.TreatMissingData.BREACHING
            if missing_is_bad
            else aws_cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        alarm.add_alarm_action(actions.SnsAction(stack.base.alarms))
        alarm.add_ok_action(actions.SnsAction(stack.base.alarms))
        of_component(alarm, "observability")
