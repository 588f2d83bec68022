"""Buckets, key, database, cache, files, stream: encrypted, private, kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.deploy.aws.moto_account import ACCOUNT, REGION, Account

BUCKETS = ("artifacts", "jobs", "warehouse")
Resources = dict[str, dict[str, Any]]


def _name(kind: str) -> str:
    return f"airloop-production-{kind}-{ACCOUNT}-{REGION}"


def _of(resources: Resources, kind: str) -> list[dict[str, Any]]:
    found = [resource["Properties"] for resource in resources.values() if resource["Type"] == kind]
    assert found, kind
    return found


@pytest.fixture(scope="module")
def key_arn(account: Account) -> str:
    aliases = account.client("kms").list_aliases()["Aliases"]
    (key,) = [item["TargetKeyId"] for item in aliases if item["AliasName"] == "alias/airloop-production"]
    return f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{key}"


def _bucket(resources: Resources, kind: str) -> dict[str, Any]:
    (found,) = [
        item for item in _of(resources, "AWS::S3::Bucket") if f"-{kind}-" in json.dumps(item["BucketName"])
    ]
    return found


def _denied(statement: dict[str, Any], headers: dict[str, str]) -> bool:
    """Whether S3 refuses a put with `headers` for this statement: all its conditions hold.

    As AWS evaluates them: an operator with Not holds for a key that is absent.
    """
    for operator, tests in statement["Condition"].items():
        for key, wanted in tests.items():
            found = headers.get(key)
            if operator == "Null":
                holds = (found is None) == (wanted == "true")
            elif operator == "StringNotEquals":
                holds = found != wanted
            else:
                raise AssertionError(operator)
            if not holds:
                return False
    return True


@pytest.mark.parametrize("kind", BUCKETS)
def test_whatever_is_put_is_encrypted_with_the_key(account: Account, key_arn: str, kind: str) -> None:
    s3 = account.client("s3")
    (rule,) = s3.get_bucket_encryption(Bucket=_name(kind))["ServerSideEncryptionConfiguration"]["Rules"]
    default = rule["ApplyServerSideEncryptionByDefault"]
    assert (default["SSEAlgorithm"], default["KMSMasterKeyID"]) == ("aws:kms", key_arn)
    policy = json.loads(s3.get_bucket_policy(Bucket=_name(kind))["Policy"])
    puts = [
        item
        for item in policy["Statement"]
        if item["Effect"] == "Deny"
        and item["Action"] == "s3:PutObject"
        and item["Principal"] in ("*", {"AWS": "*"})
    ]
    assert all(item["Resource"] == f"arn:aws:s3:::{_name(kind)}/*" for item in puts)
    algorithm = "s3:x-amz-server-side-encryption"
    key = f"{algorithm}-aws-kms-key-id"
    refused = (
        {algorithm: "AES256"},
        {algorithm: "aws:kms"},  # AWS's own key
        {algorithm: "aws:kms", key: key_arn.replace(ACCOUNT, "999999999999")},
        {algorithm: "aws:kms:dsse", key: key_arn},
        {f"{algorithm}-customer-algorithm": "AES256"},
    )
    for headers in refused:
        assert any(_denied(item, headers) for item in puts), headers
    for headers in ({}, {algorithm: "aws:kms", key: key_arn}):
        assert not any(_denied(item, headers) for item in puts), headers


@pytest.mark.parametrize("kind", [*BUCKETS, "logs"])
def test_a_bucket_is_reached_by_tls_only_and_never_public(
    account: Account, resources: Resources, kind: str
) -> None:
    policy = json.loads(account.client("s3").get_bucket_policy(Bucket=_name(kind))["Policy"])
    assert any(
        item["Effect"] == "Deny"
        and item["Action"] == "s3:*"
        and item["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        and set(item["Resource"]) == {f"arn:aws:s3:::{_name(kind)}", f"arn:aws:s3:::{_name(kind)}/*"}
        for item in policy["Statement"]
    )
    bucket = _bucket(resources, kind)
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}


@pytest.mark.parametrize(("kind", "days"), [("artifacts", 90), ("jobs", 1), ("warehouse", 14)])
def test_a_bucket_writes_down_who_read_it_and_forgets_old_versions(
    resources: Resources, kind: str, days: int
) -> None:
    bucket = _bucket(resources, kind)
    assert bucket["LoggingConfiguration"]["LogFilePrefix"] == f"s3/{kind}/"
    (rule,) = bucket["LifecycleConfiguration"]["Rules"]
    # What is erased must be gone: docs/how-to/run-on-aws.md says after how long.
    assert rule["NoncurrentVersionExpiration"]["NoncurrentDays"] == days
    assert rule["AbortIncompleteMultipartUpload"]


def test_the_key_turns_and_only_this_account_uses_it(resources: Resources) -> None:
    (key,) = _of(resources, "AWS::KMS::Key")
    assert key["EnableKeyRotation"]
    for statement in key["KeyPolicy"]["Statement"]:
        if "AWS" in statement["Principal"]:
            assert json.dumps(statement["Principal"]).count("AWS::AccountId") == 1
            assert ":root" in json.dumps(statement["Principal"])
        else:
            assert "AWS::AccountId" in json.dumps(statement["Condition"]), statement["Sid"]


def test_databases_files_and_stream_are_encrypted_with_the_key(resources: Resources) -> None:
    (database,) = _of(resources, "AWS::RDS::DBInstance")
    assert database["StorageEncrypted"]
    assert not database["PubliclyAccessible"]
    assert database["DeletionProtection"]
    assert "KmsKeyId" in database
    (parameters,) = _of(resources, "AWS::RDS::DBParameterGroup")
    assert parameters["Parameters"]["rds.force_ssl"] == "1"
    (cache,) = _of(resources, "AWS::ElastiCache::ReplicationGroup")
    assert cache["TransitEncryptionEnabled"]
    assert cache["TransitEncryptionMode"] == "required"
    assert cache["AtRestEncryptionEnabled"]
    assert "{{resolve:secretsmanager:" in json.dumps(cache["AuthToken"])
    (files,) = _of(resources, "AWS::EFS::FileSystem")
    assert files["Encrypted"]
    assert files["BackupPolicy"] == {"Status": "ENABLED"}
    (stream,) = _of(resources, "AWS::Kinesis::Stream")
    assert stream["StreamEncryption"]["EncryptionType"] == "KMS"
    for group in _of(resources, "AWS::Logs::LogGroup"):
        assert "KmsKeyId" in group
        assert group["RetentionInDays"] <= 90


def test_the_state_folder_is_mounted_by_its_access_point_and_with_tls(resources: Resources) -> None:
    volumes = [
        volume["EFSVolumeConfiguration"]
        for task in _of(resources, "AWS::ECS::TaskDefinition")
        for volume in task.get("Volumes", [])
    ]
    assert len(volumes) == 7
    for volume in volumes:
        assert volume["TransitEncryption"] == "ENABLED"
        assert volume["AuthorizationConfig"]["IAM"] == "ENABLED"
        assert volume["AuthorizationConfig"]["AccessPointId"]


def test_stores_are_where_nothing_leads_out(resources: Resources) -> None:
    ways_out = [
        json.dumps(route["RouteTableId"])
        for route in _of(resources, "AWS::EC2::Route")
        if route["DestinationCidrBlock"] == "0.0.0.0/0"
    ]
    assert len(ways_out) == 4
    assert not any("dataSubnet" in table for table in ways_out)
    (database,) = _of(resources, "AWS::RDS::DBSubnetGroup")
    (cache,) = _of(resources, "AWS::ElastiCache::SubnetGroup")
    subnets = [*database["SubnetIds"], *cache["SubnetIds"]]
    assert len(subnets) == 4
    assert all("dataSubnet" in json.dumps(subnet) for subnet in subnets)


def test_only_the_balancer_is_reached_from_outside(resources: Resources) -> None:
    open_groups = {}
    for group in _of(resources, "AWS::EC2::SecurityGroup"):
        for rule in group.get("SecurityGroupIngress", []):
            open_groups.setdefault(group["GroupDescription"], []).append(rule)
    assert set(open_groups) == {"Airloop: public-balancer"}
    assert {(rule["CidrIp"], rule["FromPort"]) for rule in open_groups["Airloop: public-balancer"]} == {
        ("203.0.113.0/24", 443)
    }
    for rule in _of(resources, "AWS::EC2::SecurityGroupIngress"):
        assert "SourceSecurityGroupId" in rule


def test_images_are_scanned_and_their_tags_stay(resources: Resources) -> None:
    repositories = _of(resources, "AWS::ECR::Repository")
    assert len(repositories) == 8
    for repository in repositories:
        assert repository["ImageScanningConfiguration"] == {"ScanOnPush": True}
        assert repository["ImageTagMutability"] == "IMMUTABLE"
        assert repository["EncryptionConfiguration"]["EncryptionType"] == "KMS"
