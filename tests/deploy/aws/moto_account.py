"""The templates deployed to moto's server through CloudFormation, with boto3 as the client.

Belongs here: what moto cannot make, and what is made instead. Does not belong here: any expectation of the
templates (see the tests).

moto's CloudFormation knows about half of AWS's types. What it does not know but has an API for is made
through that API, from the template's own properties (`_BY_API`); the rest is listed in `Account.not_made`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import boto3
from moto.cloudformation.parsing import resource_class_from_type
from moto.server import ThreadedMotoServer

REGION: Final = "us-east-1"
ACCOUNT: Final = "123456789012"
KNOWN_RELEASE: Final = "emr-6.9.0"
"""moto 5.2.5 knows none that is newer."""
_NAME: Final = "airloop-production"

_LEFT_OUT: Final[Mapping[str, tuple[str, ...]]] = {
    # moto 5.2.5 reads these tags in the form of KMS's own API.
    "AWS::KMS::Key": ("Tags",),
    # moto makes the group and then takes its name for an object.
    "AWS::RDS::DBInstance": ("DBParameterGroupName",),
}
_PUT_IN: Final[Mapping[str, dict[str, Any]]] = {
    # Without one AWS Batch uses its service-linked role; moto wants one named.
    "AWS::Batch::ComputeEnvironment": {"ServiceRole": f"arn:aws:iam::{ACCOUNT}:role/{_NAME}-batchhost"},
}
_ONLY_BY_API: Final = frozenset({"AWS::Batch::JobDefinition"})
"""Types whose form with several nodes moto's CloudFormation refuses."""
_ARNS: Final[Mapping[str, str]] = {
    # As AWS forms them: what moto's CloudFormation does not make, or makes and does not tell.
    "AWS::Batch::JobDefinition": "batch:{where}:job-definition/{JobDefinitionName}:1",
    "AWS::Batch::JobQueue": "batch:{where}:job-queue/{JobQueueName}",
    "AWS::EFS::AccessPoint": "elasticfilesystem:{where}:access-point/fsap-0123456789abcdef0",
    "AWS::EFS::FileSystem": "elasticfilesystem:{where}:file-system/fs-0123456789abcdef0",
    "AWS::EMRServerless::Application": "emr-serverless:{where}:/applications/00abcdefgh012345",
    "AWS::IAM::OIDCProvider": f"iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com",
    "AWS::Logs::LogGroup": "logs:{where}:log-group:{LogGroupName}:*",
    "AWS::SecretsManager::Secret": "secretsmanager:{where}:secret:{Name}-abcdef",
}
_APPLICATION: Final = "00abcdefgh012345"


@dataclass
class Account:
    """An account with the stacks in it; `client` opens any service of it."""

    url: str
    by_cloudformation: dict[str, int] = field(default_factory=dict)
    by_api: dict[str, int] = field(default_factory=dict)
    not_made: dict[str, int] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        """A boto3 client."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )


@contextlib.contextmanager
def deployed(templates: Mapping[str, dict[str, Any]]) -> Iterator[Account]:
    """A server with `templates` deployed in their order; it is gone afterwards."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        account = Account(f"http://127.0.0.1:{port}")
        exports: dict[str, str] = {}
        text = json.dumps(templates)
        for example, own in _made_before(account).items():
            text = text.replace(example, own)
        for name, template in json.loads(text).items():
            _deploy(account, f"{_NAME}-{name}", template, exports)
        yield account
    finally:
        server.stop()


def _made_before(account: Account) -> dict[str, str]:
    """The certificate and the hosted zone that a person makes first, by what deployment.toml names in
    their place."""
    domain = "airloop.example.com"
    certificate = account.client("acm").request_certificate(
        DomainName=f"*.{domain}", SubjectAlternativeNames=[f"*.internal.{domain}"], ValidationMethod="DNS"
    )["CertificateArn"]
    zone = account.client("route53").create_hosted_zone(Name=domain, CallerReference="test")["HostedZone"][
        "Id"
    ]
    return {
        "arn:aws:acm:us-east-1:111122223333:certificate/00000000-0000-0000-0000-000000000000": certificate,
        "Z0000000000000000000": zone.rpartition("/")[2],
    }


def _deploy(account: Account, stack: str, template: dict[str, Any], exports: dict[str, str]) -> None:
    foreign = {
        name: resource
        for name, resource in template["Resources"].items()
        if resource["Type"] in _ONLY_BY_API or resource_class_from_type(resource["Type"]) is None
    }
    formation = account.client("cloudformation")
    formation.create_stack(
        StackName=stack,
        TemplateBody=json.dumps(_known_to_moto(template, foreign)),
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Tags=[{"Key": "airloop:environment", "Value": "production"}],
    )
    made = formation.list_stack_resources(StackName=stack)["StackResourceSummaries"]
    physical = {item["LogicalResourceId"]: item["PhysicalResourceId"] for item in made}
    for item in made:
        _count(account.by_cloudformation, item["ResourceType"])
    exports |= {item["Name"]: item["Value"] for item in formation.list_exports()["Exports"]}
    for _name, resource in foreign.items():
        make = _BY_API.get(resource["Type"])
        if make is None:
            _count(account.not_made, resource["Type"])
            continue
        make(account, resolved(resource["Properties"], physical, exports, template["Resources"]))
        _count(account.by_api, resource["Type"])


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def _stand_in(resource: Mapping[str, Any], attribute: str) -> str:
    """What stands for an attribute that CloudFormation does not tell here."""
    if attribute.endswith("Arn") or attribute == "":
        form = _ARNS.get(resource["Type"], "made:{where}:thing")
        named = {name: value for name, value in resource["Properties"].items() if isinstance(value, str)}
        return "arn:aws:" + form.format(where=f"{REGION}:{ACCOUNT}", **{"LogGroupName": "made", **named})
    if attribute == "ApplicationId":
        return _APPLICATION
    return f"made.{attribute}"


def _known_to_moto(template: dict[str, Any], foreign: Mapping[str, Any]) -> dict[str, Any]:
    resources = template["Resources"]

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(item) for item in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"Ref"} and value["Ref"] in foreign:
            return _stand_in(foreign[value["Ref"]], "")
        if set(value) == {"Fn::GetAtt"}:
            name, attribute = value["Fn::GetAtt"]
            if name in foreign or (resources[name]["Type"] in _ARNS and attribute.endswith("Arn")):
                return _stand_in(resources[name], attribute)
            return value
        return {key: walk(item) for key, item in value.items()}

    known = walk(template)
    known["Resources"] = {name: item for name, item in known["Resources"].items() if name not in foreign}
    for resource in known["Resources"].values():
        for name in _LEFT_OUT.get(resource["Type"], ()):
            resource["Properties"].pop(name, None)
        resource["Properties"] |= _PUT_IN.get(resource["Type"], {})
        needed = resource.pop("DependsOn", [])
        kept = [name for name in ([needed] if isinstance(needed, str) else needed) if name not in foreign]
        if kept:
            resource["DependsOn"] = kept
    return known


def resolved(
    value: Any, physical: Mapping[str, str], exports: Mapping[str, str], resources: Mapping[str, Any]
) -> Any:
    """`value` with CloudFormation's functions computed, as far as the templates use them."""
    pseudo = {
        "AWS::Partition": "aws",
        "AWS::AccountId": ACCOUNT,
        "AWS::Region": REGION,
        "AWS::URLSuffix": "amazonaws.com",
    }

    def walk(item: Any) -> Any:
        if isinstance(item, list):
            return [walk(one) for one in item]
        if not isinstance(item, dict) or len(item) != 1:
            return {key: walk(one) for key, one in item.items()} if isinstance(item, dict) else item
        ((function, given),) = item.items()
        if function == "Ref":
            return pseudo.get(given) or physical.get(given) or _stand_in(resources[given], "")
        if function == "Fn::Join":
            return given[0].join(str(walk(one)) for one in given[1])
        if function == "Fn::ImportValue":
            return exports[given]
        if function == "Fn::Select":
            return walk(given[1])[int(given[0])]
        if function == "Fn::Split":
            return walk(given[1]).split(given[0])
        if function == "Fn::GetAtt":
            name, attribute = given
            kind = resources[name]["Type"]
            if kind == "AWS::S3::Bucket":
                return f"arn:aws:s3:::{physical[name]}"
            if kind == "AWS::KMS::Key":
                return f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{physical[name]}"
            if (kind, attribute) == ("AWS::ECS::Service", "Name"):
                return resources[name]["Properties"]["ServiceName"]
            return _stand_in(resources[name], attribute)
        return {function: walk(given)}

    return walk(value)


def _bucket_policy(account: Account, given: dict[str, Any]) -> None:
    account.client("s3").put_bucket_policy(Bucket=given["Bucket"], Policy=json.dumps(given["PolicyDocument"]))


def _secret(account: Account, given: dict[str, Any]) -> None:
    manager = account.client("secretsmanager")
    text = given.get("SecretString", "")
    rule = given.get("GenerateSecretString")
    if rule:
        password = manager.get_random_password(
            PasswordLength=rule["PasswordLength"],
            ExcludePunctuation=rule["ExcludePunctuation"],
            RequireEachIncludedType=rule.get("RequireEachIncludedType", True),
        )["RandomPassword"]
        text = password
        if "GenerateStringKey" in rule:
            text = json.dumps(
                {**json.loads(rule["SecretStringTemplate"]), rule["GenerateStringKey"]: password}
            )
    manager.create_secret(
        Name=given["Name"], SecretString=text, KmsKeyId=given["KmsKeyId"], Tags=given["Tags"]
    )


def _glue_database(account: Account, given: dict[str, Any]) -> None:
    account.client("glue").create_database(DatabaseInput=given["DatabaseInput"])


def _lower(value: Any) -> Any:
    """CloudFormation's property names in the form of the younger APIs; tags and options keep theirs."""
    if isinstance(value, dict):
        return {
            key[0].lower() + key[1:]: item if key == "Options" else _lower(item)
            for key, item in value.items()
        }
    return [_lower(item) for item in value] if isinstance(value, list) else value


def _definition(account: Account, given: dict[str, Any]) -> None:
    wanted = {key: value for key, value in given.items() if key != "Tags"}
    account.client("batch").register_job_definition(**_lower(wanted), tags=given["Tags"])


def _spark(account: Account, given: dict[str, Any]) -> None:
    tags = {tag["Key"]: tag["Value"] for tag in given["Tags"]}
    wanted = {key: value for key, value in given.items() if key != "Tags"}
    account.client("emr-serverless").create_application(
        **_lower(wanted) | {"releaseLabel": KNOWN_RELEASE}, tags=tags
    )


def _alarm(account: Account, given: dict[str, Any]) -> None:
    account.client("cloudwatch").put_metric_alarm(**given)


def _cache_subnets(account: Account, given: dict[str, Any]) -> None:
    account.client("elasticache").create_cache_subnet_group(
        CacheSubnetGroupName=given["CacheSubnetGroupName"],
        CacheSubnetGroupDescription=given["Description"],
        SubnetIds=given["SubnetIds"],
    )


def _cache(account: Account, given: dict[str, Any]) -> None:
    account.client("elasticache").create_replication_group(**given)


def _oidc(account: Account, given: dict[str, Any]) -> None:
    account.client("iam").create_open_id_connect_provider(
        Url=given["Url"], ClientIDList=given["ClientIdList"], ThumbprintList=["0" * 40]
    )


def _scalable(account: Account, given: dict[str, Any]) -> None:
    account.client("application-autoscaling").register_scalable_target(
        **{key: value for key, value in given.items() if key not in ("RoleARN", "Tags")}
    )


_BY_API: Final[Mapping[str, Callable[[Account, dict[str, Any]], None]]] = {
    "AWS::ApplicationAutoScaling::ScalableTarget": _scalable,
    "AWS::Batch::JobDefinition": _definition,
    "AWS::CloudWatch::Alarm": _alarm,
    "AWS::EMRServerless::Application": _spark,
    "AWS::ElastiCache::ReplicationGroup": _cache,
    "AWS::ElastiCache::SubnetGroup": _cache_subnets,
    "AWS::Glue::Database": _glue_database,
    "AWS::IAM::OIDCProvider": _oidc,
    "AWS::S3::BucketPolicy": _bucket_policy,
    "AWS::SecretsManager::Secret": _secret,
}
