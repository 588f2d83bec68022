"""What differs between two deployments on AWS, read from one TOML file.

Belongs here: the file's type and what it must hold. Does not belong here: any resource, or a secret.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

_FORMS = {
    "environment": r"[a-z][a-z0-9]{1,11}",
    "account": r"(\d{12})?",
    "region": r"[a-z]{2}(-[a-z]+)+-\d",
    "cidr": r"\d+\.\d+\.\d+\.\d+/(1[6-9]|20)",
    "domain": r"[a-z0-9-]+(\.[a-z0-9-]+)+",
    "hosted_zone_id": r"Z[A-Z0-9]+",
    "certificate_arn": r"arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/.+",
    "github_repository": r"[\w.-]+/[\w.-]+",
    "version": r"[\w][\w.-]*",
    "database_class": r"db\..+",
    "cache_class": r"cache\..+",
    "training_on": r"sagemaker|batch",
    "alarm_email": r"([^@\s]+@[^@\s]+)?",
}


class DeploymentError(ValueError):
    """The deployment's file cannot be used; the message names all that is wrong with it."""


@dataclass(frozen=True)
class Deployment:
    """One deployment; `deploy/aws/deployment.toml` says what each field means."""

    environment: str
    account: str
    region: str
    zones: tuple[str, ...]
    cidr: str
    domain: str
    hosted_zone_id: str
    certificate_arn: str
    people: tuple[str, ...]
    clients: tuple[str, ...]
    github_repository: str
    version: str
    running: bool
    nat_gateways: int
    database_class: str
    database_multi_zone: bool
    cache_class: str
    gateways: int
    training_on: str
    gpu_instance_types: tuple[str, ...]
    gpu_nodes: int
    most_gpu_vcpus: int
    alarm_email: str
    monthly_budget_usd: int

    @property
    def name(self) -> str:
        """Prefix of what is made: `airloop-<environment>`."""
        return f"airloop-{self.environment}"

    @property
    def secrets(self) -> str:
        """Prefix of the secrets that are the platform's own: `airloop/<environment>`."""
        return f"airloop/{self.environment}"

    @property
    def internal_domain(self) -> str:
        """Under which the parts find one another."""
        return f"internal.{self.domain}"


def read_deployment(file: Path) -> Deployment:
    """The deployment in `file`; raises `DeploymentError` naming everything that is wrong in it."""
    given = tomllib.loads(file.read_text("utf-8"))
    known = {field.name: field for field in fields(Deployment)}
    problems = [f"{name} is not known" for name in sorted(given.keys() - known.keys())]
    problems += [f"{name} is missing" for name in sorted(known.keys() - given.keys())]
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            continue
        kind = str(known[name].type)
        values[name] = tuple(value) if kind.startswith("tuple") and isinstance(value, list) else value
        right = {"str": str, "int": int, "bool": bool}.get(kind, tuple)
        if type(values[name]) is not right:
            problems.append(f"{name} is not of type {kind}: {value!r}")
        elif isinstance(value, str) and not re.fullmatch(_FORMS[name], value):
            problems.append(f"{name} has not the form {_FORMS[name]}: {value!r}")
    zones = values.get("zones", ())
    if isinstance(zones, tuple) and (
        len(set(zones)) != 2 or any(not str(zone).startswith(str(given.get("region"))) for zone in zones)
    ):
        problems.append(f"zones are not two of the region: {zones!r}")
    least = {"nat_gateways": 1, "gateways": 1, "gpu_nodes": 1, "most_gpu_vcpus": 1, "monthly_budget_usd": 0}
    problems += [
        f"{name} is less than {bound}: {values[name]}"
        for name, bound in least.items()
        if type(values.get(name)) is int and values[name] < bound
    ]
    if problems:
        raise DeploymentError(
            f"expected a deployment in {file}; found: {'; '.join(problems)}. Next: correct it."
        )
    return Deployment(**values)
