"""Parsing the DAG files is light and touches nothing, with only the `airflow` dependency group installed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airloop.use_cases.catalogue import all_use_cases

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("parse_alone.py")


def _parse(python: Path, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW_")}
    return subprocess.run(
        [str(python), str(SCRIPT), str(REPOSITORY)],
        env={**environment, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def airflow_only() -> Path:
    """The Python of an environment with the `airflow` group and nothing else, made once per lock."""
    folder = REPOSITORY / ".airloop" / "envs" / "airflow"
    lock = REPOSITORY / "requirements" / "airflow.lock"
    stamp, digest = folder / "lock.sha256", hashlib.sha256(lock.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != digest:
        uv = REPOSITORY / ".airloop" / "tools" / "bin" / "uv"
        make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder]
        sync = [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", python, lock]
        for command in (make, sync):
            subprocess.run([str(part) for part in command], check=True, timeout=600)
        stamp.write_text(digest)
    return python


def test_dags_parse_with_only_the_airflow_group(airflow_only, tmp_path):
    for name in ("pyspark", "tensorflow", "feast"):
        probe = subprocess.run([str(airflow_only), "-c", f"import {name}"], capture_output=True, check=False)
        assert probe.returncode != 0, f"{name} is in the airflow group"
    done = _parse(airflow_only, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    wanted = {
        f"{spec.name}_{kind}" for spec in all_use_cases() for kind in ("features", "training", "rollout")
    }
    assert set(done.stdout.split()[-len(wanted) :]) == wanted


def test_parsing_imports_nothing_heavy_even_where_it_is_installed(tmp_path):
    done = _parse(Path(sys.executable), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
