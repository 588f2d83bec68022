"""The templates of the example deployment, synthesised once, and an account of moto's that they are deployed to."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airloop.settings import REPOSITORY
from tests.deploy.aws.moto_account import Account, deployed

PYTHON = REPOSITORY / ".airloop" / "aws" / "bin" / "python"
FOLDER = REPOSITORY / "deploy" / "aws"
STACKS = ("base", "stores", "jobs", "services")
Template = dict[str, Any]


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
def account(templates: dict[str, Template]) -> Iterator[Account]:
    """An AWS account of moto's server with the four stacks in it."""
    with deployed(templates) as account:
        yield account
