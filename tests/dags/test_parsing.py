"""Parsing the DAG files is light and touches nothing, with only the `airflow` dependency group installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from airloop.use_cases.catalogue import all_use_cases
from tests.dags.test_dags import PLATFORM, kinds_of
from tests.group_environment import python_of

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


def test_dags_parse_with_only_the_airflow_group(tmp_path):
    airflow_only = python_of("airflow")
    for name in ("pyspark", "tensorflow", "feast"):
        probe = subprocess.run([str(airflow_only), "-c", f"import {name}"], capture_output=True, check=False)
        assert probe.returncode != 0, f"{name} is in the airflow group"
    done = _parse(airflow_only, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    wanted = {f"{spec.name}_{kind}" for spec in all_use_cases() for kind in kinds_of(spec)} | set(PLATFORM)
    assert set(done.stdout.split()[-len(wanted) :]) == wanted


def test_parsing_imports_nothing_heavy_even_where_it_is_installed(tmp_path):
    done = _parse(Path(sys.executable), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
