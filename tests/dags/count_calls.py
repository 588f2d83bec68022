"""Prints how many calls of functions it takes to parse all DAG files with so many use cases."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp()

from benchmarks.many_use_cases import know_only


def main(count: int) -> None:
    know_only(count, Path(tempfile.mkdtemp()))
    from airflow.dag_processing.dagbag import DagBag

    def parse() -> DagBag:
        bag = DagBag("dags")
        assert not bag.import_errors, bag.import_errors
        return bag

    calls = 0

    def called(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    # Once before: imports are the same for any number.
    parse()
    sys.setprofile(called)
    bag = parse()
    sys.setprofile(None)
    print(len(bag.dags), calls)


main(int(sys.argv[1]))
