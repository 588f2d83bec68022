"""How long all DAG files take to parse with 1, 10 and 50 use cases: copies of the reference one.

Run by `make bench-parse`; ends with one line of JSON. A measured process has imported Airflow before, as the
DAG processor has, whose children parse the files; the imports are measured by themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from airloop import use_cases
from airloop.settings import REPOSITORY
from airloop.use_cases.catalogue import all_use_cases

COUNTS: Final = (1, 10, 50)
TRIES: Final = 5
MOST_SECONDS: Final = 2.0
"""What 50 use cases may take."""

_REFERENCE: Final = "flight_delay"
_COPY: Final = """from airloop.use_cases.flight_delay import USE_CASE as REFERENCE

USE_CASE = REFERENCE.model_copy(update={{"name": "{name}"}})
"""


def know_only(count: int, folder: Path) -> None:
    """Have the catalogue of this process know `count` use cases, whose modules are in the empty `folder`.

    Before anything asked it for them.
    """
    (package,) = map(Path, use_cases.__path__)
    for module in package.glob("*.py"):
        if "USE_CASE =" not in module.read_text("utf-8") or module.stem == _REFERENCE:
            (folder / module.name).symlink_to(module)
    for number in range(2, count + 1):
        name = f"{_REFERENCE}_{number:02}"
        (folder / f"{name}.py").write_text(_COPY.format(name=name), "utf-8")
    use_cases.__path__ = [str(folder)]
    if len(all_use_cases()) != count:
        raise RuntimeError(f"{len(all_use_cases())} use cases, not {count}: the catalogue was asked before")


def measured(count: int) -> dict[str, Any]:
    """What this process takes for all DAG files: seconds of wall clock and of the processor, and DAGs."""
    began = time.perf_counter()
    from airflow.dag_processing.dagbag import DagBag

    # The modules that DAG files import are Airflow's own and ours: once for a processor, not for each file.
    DagBag(str(REPOSITORY / "dags"))
    imported = time.perf_counter() - began
    began, busy = time.perf_counter(), time.process_time()
    bag = DagBag(str(REPOSITORY / "dags"))
    found = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - busy}
    if bag.import_errors:
        raise RuntimeError(f"DAG files that do not parse: {bag.import_errors}")
    return {"use_cases": count, "dags": len(bag.dags), **found, "first_seconds": imported}


def _apart(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.many_use_cases", "--only", str(count)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit status 1 where the most use cases take longer than `MOST_SECONDS`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            know_only(arguments.only, Path(folder))
            print(json.dumps(measured(arguments.only)))
        return 0
    print("| use cases | DAGs | seconds | of the processor | the first time, with imports |")
    print("|--:|--:|--:|--:|--:|")
    rows = []
    for count in COUNTS:
        tries = [_apart(count) for _ in range(TRIES)]
        row = {name: median(one[name] for one in tries) for name in tries[0]}
        rows.append(row)
        print(
            f"| {count} | {row['dags']} | {row['seconds']:.2f} | {row['cpu_seconds']:.2f} "
            f"| {row['first_seconds']:.2f} |",
            flush=True,
        )
    passed = rows[-1]["seconds"] <= MOST_SECONDS
    print(json.dumps({"parse": rows, "most_seconds": MOST_SECONDS, "passed": passed}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
