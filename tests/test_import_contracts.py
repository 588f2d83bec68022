"""The import contracts of pyproject.toml bite: each is broken once, in a copy, and says so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from airloop.settings import REPOSITORY

CONTRACTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
    "contracts"
]
PACKAGES = ("src/airloop", "plugins/airloop_airflow", "dags", "feature_repo", "serving", "spark_jobs")
BROKEN = {
    "DAGs on the plugin, the plugin beside the jobs, airloop at the bottom": (
        ("src/airloop/jobs.py", "import spark_jobs.clean"),
        ("src/airloop/settings.py", "import airloop_airflow.policy"),
        ("plugins/airloop_airflow/policy.py", "import dags.features"),
    ),
    "Airflow names its jobs and imports none": (("dags/features.py", "from spark_jobs import clean"),),
    "Serving and the offline jobs know nothing of one another": (
        ("serving/rollout.py", "import spark_jobs.tables"),
        ("spark_jobs/tables.py", "import serving.rollout"),
    ),
    "Feature definitions are below what computes and what reads them": (
        ("feature_repo/views.py", "import spark_jobs.session"),
        ("feature_repo/store.py", "import serving.rollout"),
    ),
    "Airflow stays in the plugin and the DAGs": (
        ("src/airloop/stack/loop.py", "import airflow.sdk"),
        ("spark_jobs/clean.py", "from airflow.sdk import DAG"),
    ),
    "What a DAG imports is light": (
        ("src/airloop/use_cases/spec.py", "import pandas"),
        # Not only in so many words: through another module too.
        ("src/airloop/intervals.py", "import airloop.registry"),
    ),
    "Training and serving need no Spark": (
        ("src/airloop/training/train.py", "import pyspark"),
        ("feature_repo/online.py", "import feature_repo.store\nimport pyspark"),
    ),
}


def _copy(folder: Path) -> None:
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    # A folder without it is one package with every other `dags` on the path, the installed project's too.
    (folder / "dags" / "__init__.py").touch()


def _lint(folder: Path) -> str:
    paths = [str(folder / path) for path in ("src", "plugins", ".")]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    broken = re.findall(r"^(.+) BROKEN(?: \(.*\))?$", done.stdout, re.MULTILINE)
    assert (done.returncode != 0) == bool(broken), done.stdout + done.stderr
    return "\n".join(broken)


def test_every_contract_is_broken_here_once() -> None:
    assert {contract["name"] for contract in CONTRACTS} == set(BROKEN)


def test_the_copy_keeps_every_contract(tmp_path: Path) -> None:
    _copy(tmp_path)
    assert _lint(tmp_path) == ""


@pytest.mark.parametrize(
    ("contract", "file", "line"),
    [(contract, file, line) for contract, cases in BROKEN.items() for file, line in cases],
)
def test_a_forbidden_import_breaks_its_contract(contract: str, file: str, line: str, tmp_path: Path) -> None:
    _copy(tmp_path)
    with (tmp_path / file).open("a", encoding="utf-8") as module:
        module.write(f"\n{line}\n")
    assert contract in _lint(tmp_path).splitlines()
