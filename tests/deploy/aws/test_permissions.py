"""What each role may do, as an account has it: no action with a wildcard, and nothing beyond its part."""

from __future__ import annotations

import json
import subprocess
from fnmatch import fnmatchcase
from typing import Any

from tests.deploy.aws.conftest import PYTHON
from tests.deploy.aws.moto_account import ACCOUNT, REGION, Account

Statements = list[dict[str, Any]]
TASKS = (
    "api-server",
    "dag-processor",
    "gateway",
    "mlflow",
    "model-server",
    "scheduler",
    "setup",
    "triggerer",
)
JOBS = ("batchjob", "sparkjob", "trainingjob")
OTHERS = ("batchexecution", "batchhost", "deployer")
WAREHOUSE = f"arn:aws:s3:::airloop-production-warehouse-{ACCOUNT}-{REGION}"
NO_RESOURCE = {
    # AWS knows no resource for these.
    *("batch:DescribeJobs", "batch:ListJobs", "cloudwatch:PutMetricData", "ecr:GetAuthorizationToken"),
    *("ec2:DescribeDhcpOptions", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups"),
    *("ec2:DescribeSubnets", "ec2:DescribeVpcs", "logs:DescribeLogGroups"),
    *(
        "ecs:DeregisterContainerInstance",
        "ecs:DiscoverPollEndpoint",
        "ecs:Poll",
        "ecs:RegisterContainerInstance",
    ),
    *("ecs:StartTelemetrySession", "ecs:SubmitAttachmentStateChanges", "ecs:SubmitContainerStateChange"),
    *("ecs:SubmitTaskStateChange", "ecs:UpdateContainerInstancesState", "sagemaker:ListTrainingJobs"),
}
PARLIAMENT = """
import json, sys
import parliament
found = []
for name, document in json.load(sys.stdin).items():
    for finding in parliament.analyze_policy_string(json.dumps(document), name).findings:
        found.append([name, finding.issue, str(finding.detail)])
print(json.dumps(found))
"""
STANDS = {
    # Batch makes the cluster that its hosts join, and names it.
    ("batchhost", "RESOURCE_STAR"),
}


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _allows(statements: Statements, action: str, resource: str) -> bool:
    return any(
        fnmatchcase(action, allowed) and fnmatchcase(resource, pattern)
        for statement in statements
        for allowed in _list(statement["Action"])
        for pattern in _list(statement["Resource"])
        if statement["Effect"] == "Allow"
    )


def _parliament(documents: dict[str, Any]) -> list[list[str]]:
    done = subprocess.run(
        [str(PYTHON), "-W", "ignore", "-c", PARLIAMENT],
        input=json.dumps(documents),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[list[str]] = json.loads(done.stdout)
    return found


def test_each_part_has_a_role_of_its_own(policies: dict[str, Statements]) -> None:
    starting = {f"{name}-start" for name in TASKS}
    assert policies.keys() == {*TASKS, *starting, *JOBS, *OTHERS}


def test_no_action_has_a_wildcard(policies: dict[str, Statements]) -> None:
    actions = [action for items in policies.values() for item in items for action in _list(item["Action"])]
    assert len(actions) > 100
    assert [action for action in actions if "*" in action] == []


def test_every_resource_is_named_where_aws_has_one(policies: dict[str, Statements]) -> None:
    for name, statements in policies.items():
        for statement in statements:
            if "*" in _list(statement["Resource"]):
                assert set(_list(statement["Action"])) <= NO_RESOURCE, (name, statement["Action"])


def test_the_linter_finds_nothing_in_the_policies(policies: dict[str, Statements]) -> None:
    documents = {
        name: {"Version": "2012-10-17", "Statement": statements}
        for name, statements in policies.items()
        if statements
    }
    assert len(documents) > 10
    found = [finding for finding in _parliament(documents) if (finding[0], finding[1]) not in STANDS]
    assert found == []


def test_the_linter_would_find_a_bad_policy() -> None:
    bad = {"Effect": "Allow", "Action": ["s3:GetObjekt", "iam:PassRole"], "Resource": "*"}
    found = _parliament({"bad": {"Version": "2012-10-17", "Statement": [bad]}})
    assert "UNKNOWN_ACTION" in {issue for _, issue, _ in found}


def test_what_answers_clients_cannot_touch_tables_jobs_or_secrets(policies: dict[str, Statements]) -> None:
    for name in ("gateway", "model-server", "dag-processor"):
        services = {action.split(":")[0] for item in policies[name] for action in _list(item["Action"])}
        assert services == {"elasticfilesystem"}, name
    assert not _allows(policies["gateway"], "s3:PutObject", f"{WAREHOUSE}/warehouse/raw/x")
    assert _allows(policies["scheduler"], "s3:PutObject", f"{WAREHOUSE}/warehouse/raw/x")


def test_the_model_server_only_reads_the_state_folder(policies: dict[str, Statements]) -> None:
    assert _list(policies["model-server"][0]["Action"]) == ["elasticfilesystem:ClientMount"]


def test_only_who_works_on_tables_can_change_them(policies: dict[str, Statements]) -> None:
    writers = {
        name for name, items in policies.items() if _allows(items, "s3:PutObject", f"{WAREHOUSE}/warehouse/x")
    }
    assert writers == {*JOBS, "scheduler"}
    table = f"arn:aws:glue:{REGION}:{ACCOUNT}:table/raw/flights"
    assert {name for name, items in policies.items() if _allows(items, "glue:UpdateTable", table)} == writers
    other = f"arn:aws:glue:{REGION}:{ACCOUNT}:table/somebody/else"
    assert not any(_allows(items, "glue:UpdateTable", other) for items in policies.values())


def test_only_the_scheduler_removes_old_versions(policies: dict[str, Statements]) -> None:
    old = f"{WAREHOUSE}/warehouse/raw/x"
    assert [name for name, items in policies.items() if _allows(items, "s3:DeleteObjectVersion", old)] == [
        "scheduler"
    ]


def test_only_the_scheduler_lands_the_stream(policies: dict[str, Statements]) -> None:
    stream = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/airloop-production"
    assert [name for name, items in policies.items() if _allows(items, "kinesis:GetRecords", stream)] == [
        "scheduler"
    ]
    assert not any(_allows(items, "kinesis:PutRecord", stream) for items in policies.values())


def test_only_the_scheduler_starts_jobs_and_gives_them_their_own_roles(
    policies: dict[str, Statements],
) -> None:
    def starts(items: Statements) -> bool:
        return any("emr-serverless:StartJobRun" in _list(item["Action"]) for item in items)

    assert [name for name, items in policies.items() if starts(items)] == ["scheduler"]
    passed = {
        _list(item["Condition"]["StringEquals"]["iam:PassedToService"])[0]: _list(item["Resource"])
        for items in policies.values()
        for item in items
        if "iam:PassRole" in _list(item["Action"])
    }
    role = f"arn:aws:iam::{ACCOUNT}:role/airloop-production-"
    assert passed == {
        "emr-serverless.amazonaws.com": [f"{role}sparkjob"],
        "sagemaker.amazonaws.com": [f"{role}trainingjob"],
    }


def test_a_job_is_started_and_stopped_only_with_the_deployments_tag(policies: dict[str, Statements]) -> None:
    conditions = {
        action: item.get("Condition", {}).get("StringEquals", {})
        for item in policies["scheduler"]
        for action in _list(item["Action"])
    }
    for action in ("sagemaker:CreateTrainingJob", "batch:SubmitJob"):
        assert conditions[action] == {"aws:RequestTag/airloop:environment": "production"}
    for action in ("sagemaker:StopTrainingJob", "batch:TerminateJob"):
        assert conditions[action] == {"aws:ResourceTag/airloop:environment": "production"}


def test_secrets_are_read_by_whom_they_are_for(policies: dict[str, Statements]) -> None:
    def secret(name: str) -> str:
        return f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}-abcdef"

    def readers(name: str) -> set[str]:
        return {
            role
            for role, items in policies.items()
            if not role.endswith("-start") and _allows(items, "secretsmanager:GetSecretValue", secret(name))
        }

    assert readers("airflow/connections/slack_oncall") == {"api-server", "scheduler", "sparkjob", "triggerer"}
    assert readers("airflow/database-passwords") == {*JOBS}
    assert readers("airflow/settings/redis_connection") == {"sparkjob"}
    # What a container starts with ECS reads for it; no running part can read it again.
    for name in ("database/master", "signing-key", "airflow/fernet", "tls"):
        assert readers(f"airloop/production/{name}") == set()


def test_every_use_of_the_key_is_by_way_of_a_service(policies: dict[str, Statements]) -> None:
    uses = [item for items in policies.values() for item in items if "kms:Decrypt" in _list(item["Action"])]
    assert len(uses) > 10
    for item in uses:
        assert item["Condition"]["StringEquals"]["kms:ViaService"]
        assert all(
            resource.startswith(f"arn:aws:kms:{REGION}:{ACCOUNT}:key/")
            for resource in _list(item["Resource"])
        )


def test_only_one_environment_of_one_repository_may_deploy(
    account: Account, policies: dict[str, Statements]
) -> None:
    role = account.client("iam").get_role(RoleName="airloop-production-deployer")["Role"]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert statement["Condition"] == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": "repo:example/airloop:environment:production",
        }
    }
    assumed = [
        r
        for item in policies["deployer"]
        if "sts:AssumeRole" in _list(item["Action"])
        for r in item["Resource"]
    ]
    assert len(assumed) == 3
    assert all(f"::{ACCOUNT}:role/cdk-" in arn and "*" not in arn for arn in assumed)


def test_services_take_roles_on_only_for_this_account(account: Account) -> None:
    iam = account.client("iam")
    for name in (*TASKS, *JOBS, "batchexecution"):
        role = iam.get_role(RoleName=f"airloop-production-{name}")["Role"]
        (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Condition"]["StringEquals"]["aws:SourceAccount"] == ACCOUNT, name
