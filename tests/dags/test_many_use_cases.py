"""The DAG files of many use cases: how their parsing grows (`make bench-parse` says how long it takes)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("count_calls.py")
PER_USE_CASE = 72_000
"""Calls of functions; 66,000 when this was written, nearly all of them Airflow's."""


def parsed(use_cases: int) -> tuple[int, int]:
    """How many DAGs there are of so many use cases, and how many calls it took to parse them."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(use_cases)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": "src:plugins:.", "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    dags, calls = done.stdout.splitlines()[-1].split()
    return int(dags), int(calls)


def test_parsing_grows_with_the_number_of_use_cases_and_no_faster():
    found = {count: parsed(count) for count in (5, 10, 50)}
    each = (found[10][0] - found[5][0]) // 5
    assert each > 10
    assert found[50][0] == found[10][0] + 40 * each
    step = (found[10][1] - found[5][1]) / 5
    assert found[50][1] <= found[10][1] + 40 * step * 1.05
    assert step < PER_USE_CASE
