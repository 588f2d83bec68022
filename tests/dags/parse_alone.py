"""Run by `test_parsing` in a process of its own: parses all DAG files and fails if that touches the world.

An audit hook notes connections, new processes, writes and any reading of the state folder; the clock and
Variables are replaced by traps while the files are executed.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

repository = Path(sys.argv[1])
HEAVY = ("feast", "great_expectations", "mlflow", "pandas", "pyarrow", "pyspark", "tensorflow")
for folder in ("dags", "plugins", "src"):
    sys.path.insert(0, str(repository / folder))

# What Airflow itself reads and writes on import is not the DAG files' doing.
airflow_sdk = importlib.import_module("airflow.sdk")
for name in (
    "AssetOrTimeSchedule",
    "CronTriggerTimetable",
    "DAG",
    "Param",
    "TriggerRule",
    "Variable",
    "XComArg",
    "task",
):
    getattr(airflow_sdk, name)
for provided in ("slack.hooks.slack_webhook", "standard.hooks.subprocess", "standard.operators.empty"):
    importlib.import_module(f"airflow.providers.{provided}")
importlib.import_module("airflow.providers.standard.decorators.short_circuit")

touched: list[str] = []
watching = False


def watch(event: str, arguments: tuple[object, ...]) -> None:
    if not watching:
        return
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.mkdir", "os.remove"):
        touched.append(f"{event} {arguments}")
    elif event == "open":
        path, mode = str(arguments[0]), arguments[1]
        is_code = path.endswith((".py", ".pyc")) or "__pycache__" in path
        writes = isinstance(mode, str) and any(letter in mode for letter in "wax+")
        if (writes and not is_code) or (str(repository / ".airloop") in path and "site-packages" not in path):
            touched.append(f"open {path} {mode}")


def trap(name: str):
    def refuse(*_: object, **__: object) -> None:
        touched.append(name)
        raise AssertionError(f"{name} at parse time")

    return refuse


sys.addaudithook(watch)
real_time = time.time
loaded = []
for file in sorted((repository / "dags").glob("*.py")):
    spec = importlib.util.spec_from_file_location(f"parsed_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    airflow_sdk.Variable.get = trap("Variable.get")
    time.time = trap("time.time")
    watching = True
    try:
        spec.loader.exec_module(module)
    finally:
        watching = False
        time.time = real_time
    loaded += [name for name, value in vars(module).items() if isinstance(value, airflow_sdk.DAG)]

heavy = [name for name in HEAVY if name in sys.modules]
assert loaded, "no DAG was parsed"
assert not touched, touched
assert not heavy, f"parsing imported {heavy}"
print(" ".join(sorted(loaded)))
