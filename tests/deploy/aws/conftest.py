"""The templates of the example deployment, synthesised once, and an account of moto's that they are
deployed to.

Every test here is marked `deploy`: `make check-deploy` runs them, `make test` does not.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airloop.settings import REPOSITORY
from tests.deploy.aws.moto_account import Account, deployed

HERE = Path(__file__).parent
PYTHON = REPOSITORY / ".airloop" / "aws" / "bin" / "python"
FOLDER = REPOSITORY / "deploy" / "aws"
STACKS = ("base", "stores", "jobs", "services")
Template = dict[str, Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.deploy)


def synthesise(output: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the CDK application; its environment is not the tests' own."""
    if not PYTHON.exists():
        pytest.fail(f"expected {PYTHON}; found none. Next: make setup-aws")
    return subprocess.run(
        [str(PYTHON), str(FOLDER / "app.py"), "--output", str(output), *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="session")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with what the CDK wrote for the example deployment."""
    output = tmp_path_factory.mktemp("assembly")
    done = synthesise(output)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return output


@pytest.fixture(scope="session")
def templates(assembly: Path) -> dict[str, Template]:
    """CloudFormation templates, by the stack's short name."""
    return {
        name: json.loads((assembly / f"airloop-production-{name}.template.json").read_text("utf-8"))
        for name in STACKS
    }


@pytest.fixture(scope="session")
def resources(templates: dict[str, Template]) -> dict[str, dict[str, Any]]:
    """All resources of all stacks, by logical id."""
    found = {name: resource for item in templates.values() for name, resource in item["Resources"].items()}
    assert len(found) == sum(len(item["Resources"]) for item in templates.values())
    return found


@pytest.fixture(scope="session")
def account(templates: dict[str, Template]) -> Iterator[Account]:
    """An AWS account of moto's server with the four stacks in it."""
    with deployed(templates) as account:
        yield account


@pytest.fixture(scope="session")
def policies(account: Account) -> dict[str, list[dict[str, Any]]]:
    """The statements of each role of ours, with every reference resolved, by the role's short name."""
    iam = account.client("iam")
    found = {}
    for page in iam.get_paginator("list_roles").paginate():
        for role in page["Roles"]:
            name = role["RoleName"]
            # The CDK names that of the network's own logs.
            if not name.startswith("airloop-production-") or "Flows" in name:
                continue
            found[name.removeprefix("airloop-production-")] = [
                statement
                for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]
                for statement in iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"][
                    "Statement"
                ]
            ]
            assert iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"] == []
    return found
