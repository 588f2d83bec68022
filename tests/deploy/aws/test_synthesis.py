"""The templates: what CloudFormation takes, checked by cdk-nag, tagged; a broken deployment is refused
with all reasons.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.aws.conftest import FOLDER, PYTHON, STACKS, synthesise

CFN_LINT = Path(sys.executable).with_name("cfn-lint")
ALLOWED = {
    "W3010": "zones are named, so that synthesis asks no account which it has",
    "W6001": "the settings are outputs of one stack, wherever their values come from",
}
UNTAGGED = {
    # These have no tags, or CloudFormation gives them none.
    *("AWS::ApplicationAutoScaling::ScalingPolicy", "AWS::EC2::Route"),
    *("AWS::EC2::SecurityGroupIngress", "AWS::EC2::SubnetRouteTableAssociation", "AWS::EC2::VPCEndpoint"),
    *(
        "AWS::EC2::VPCGatewayAttachment",
        "AWS::EFS::MountTarget",
        "AWS::Glue::Database",
        "AWS::IAM::InstanceProfile",
    ),
    *(
        "AWS::IAM::Policy",
        "AWS::KMS::Alias",
        "AWS::Route53::RecordSet",
        "AWS::S3::BucketPolicy",
        "AWS::SNS::TopicPolicy",
    ),
    *("AWS::ElasticLoadBalancingV2::ListenerRule", "AWS::EC2::LaunchTemplate", "AWS::Route53::HostedZone"),
}


def _lint(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [str(CFN_LINT), "--ignore-checks", *ALLOWED, "--", *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_cloudformation_takes_the_templates(assembly: Path) -> None:
    done = _lint(*(assembly / f"airloop-production-{name}.template.json" for name in STACKS))
    assert done.returncode == 0, done.stdout


def test_the_linter_refuses_an_unknown_property(tmp_path: Path) -> None:
    file = tmp_path / "template.json"
    resource = {"Type": "AWS::S3::Bucket", "Properties": {"Colour": "blue"}}
    file.write_text(json.dumps({"Resources": {"Bucket": resource}}))
    done = _lint(file)
    assert done.returncode != 0
    assert "Colour" in done.stdout


def test_every_finding_of_cdk_nag_has_a_reason(assembly: Path) -> None:
    reports = json.loads((assembly / "validation-report.json").read_text("utf-8"))["pluginReports"]
    (report,) = [item for item in reports if item["pluginName"] == "AwsSolutions"]
    assert report["violations"] == []
    assert len(report["suppressedViolations"]) > 20
    for finding in report["suppressedViolations"]:
        assert len(finding["reason"].split()) >= 5, finding["ruleName"]


def test_a_finding_without_a_reason_ends_the_synthesis(tmp_path: Path) -> None:
    """As if one were not in acknowledged.py."""
    code = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
sys.argv = ["app.py", "--output", {str(tmp_path)!r}]
import app
from infrastructure import acknowledged
all_parts = acknowledged._of_parts
acknowledged._of_parts = lambda given: (part for part in all_parts(given) if part[0] != "stores/Database")
sys.exit(app.main())
"""
    done = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode != 0
    assert "AwsSolutions-RDS11" in done.stdout + done.stderr


def test_a_deployment_that_cannot_be_used_is_refused_with_all_reasons(tmp_path: Path) -> None:
    text = (FOLDER / "deployment.toml").read_text("utf-8")
    text = text.replace('region = "us-east-1"', 'region = "here"').replace("gateways = 2", "gateways = 0")
    file = tmp_path / "deployment.toml"
    file.write_text(text.replace("nat_gateways = 1\n", "colour = 3\n"))
    done = synthesise(tmp_path / "out", "--deployment", str(file))
    assert done.returncode == 1
    for part in (
        "region has not the form",
        "gateways is less than 1",
        "colour is not known",
        "nat_gateways is missing",
    ):
        assert part in done.stderr


def test_at_rest_everything_is_made_and_no_service_starts(tmp_path: Path) -> None:
    text = (FOLDER / "deployment.toml").read_text("utf-8")
    file = tmp_path / "deployment.toml"
    file.write_text(text.replace("running = true", "running = false"))
    done = synthesise(tmp_path / "out", "--deployment", str(file))
    assert done.returncode == 0, done.stderr[-2000:]
    template = json.loads((tmp_path / "out" / "airloop-production-services.template.json").read_text("utf-8"))
    services = [item for item in template["Resources"].values() if item["Type"] == "AWS::ECS::Service"]
    assert [item["Properties"]["DesiredCount"] for item in services] == [0] * 7
    assert "AWS::ApplicationAutoScaling::ScalableTarget" not in json.dumps(template)


def test_all_that_can_be_tagged_says_whose_cost_it_is(resources: dict[str, dict[str, Any]]) -> None:
    for name, resource in resources.items():
        if resource["Type"] in UNTAGGED:
            continue
        tags = resource["Properties"].get("Tags", resource["Properties"].get("FileSystemTags"))
        tags = resource["Properties"].get("AccessPointTags", tags)
        assert tags, (name, resource["Type"])
        given = tags if isinstance(tags, dict) else {tag["Key"]: tag["Value"] for tag in tags}
        assert given["airloop:environment"] == "production", name
        assert given["airloop:use-case"] == "platform", name
        assert re.fullmatch(r"[a-z-]+", given.get("airloop:component", "")), (name, resource["Type"])


def test_what_remembers_outlives_its_stack(resources: dict[str, dict[str, Any]]) -> None:
    kinds = {
        *("AWS::S3::Bucket", "AWS::KMS::Key", "AWS::RDS::DBInstance", "AWS::EFS::FileSystem"),
        *(
            "AWS::SecretsManager::Secret",
            "AWS::Glue::Database",
            "AWS::Kinesis::Stream",
            "AWS::ECR::Repository",
        ),
    }
    kept = [item for item in resources.values() if item["Type"] in kinds]
    assert {item["Type"] for item in kept} == kinds
    for item in kept:
        assert item.get("DeletionPolicy") in ("Retain", "Snapshot"), item["Type"]


@pytest.mark.parametrize("stack", STACKS)
def test_no_template_holds_a_secret_in_the_clear(templates: dict[str, Any], stack: str) -> None:
    """Passwords are references that CloudFormation resolves, or made by Secrets Manager."""
    text = json.dumps(templates[stack])
    assert not re.search(r"(?i)begin (ec |rsa )?private key|AKIA[0-9A-Z]{16}", text)
    for match in re.finditer(r"password=([^\"]{0,40})", text):
        assert match[1].startswith(("", "{{resolve")), match[0]
