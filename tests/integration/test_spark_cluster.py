"""The Spark jobs on a standalone cluster of a master and two workers: the same tables as on one machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyspark
import pytest

from airloop.lakehouse.catalog import open_catalog
from airloop.settings import REPOSITORY, Settings, environment_of
from airloop.use_cases.spec import UseCase

pytestmark = pytest.mark.cluster

SPARK_CLASS = Path(pyspark.__file__).parent / "bin" / "spark-class"
START_SECONDS = 60
PIPELINE = """
import sys
from datetime import UTC, datetime
from airloop.intervals import Interval
from airloop.lakehouse.publish import publish
from airloop.settings import load_settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.training_policy import TrainingPolicy
from spark_jobs import training_set
from spark_jobs.audit import audit
from spark_jobs.clean import clean
from spark_jobs.features import build_features
from spark_jobs.ingest import ingest
from spark_jobs.session import open_session
from feature_repo.materialise import materialise
from feature_repo.store import open_store
days = Interval(datetime(2013, 3, 4, tzinfo=UTC), datetime(2013, 3, 8, tzinfo=UTC))
spec, settings = use_case("flight_delay"), load_settings()
spark = open_session(settings, "cluster test")
ingest(spark, spec, days, settings)
branch = clean(spark, spec, days).branch
audit(spark, spec, days, branch, settings)
publish(spec, branch, days, settings)
build_features(spark, spec, days)
materialise(open_store(settings), spec, days, settings)
windows = {"train_days": 1, "validation_days": 1, "test_days": 1}
training_set.build(spark, spec, spec.training.model_copy(update=windows), days.end, settings)
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """A master and two workers: the master's address, the URL of its state as JSON, the workers' folder."""
    folder = tmp_path_factory.mktemp("cluster")
    port, web_port = _free_port(), _free_port()
    address = f"spark://127.0.0.1:{port}"
    flags = ("--host", "127.0.0.1", "--webui-port")
    worker = ("org.apache.spark.deploy.worker.Worker", address, "--cores", "1", "--memory", "1536m")
    commands = [
        ("org.apache.spark.deploy.master.Master", "--port", str(port), *flags, str(web_port)),
        *((*worker, "--work-dir", str(folder / f"worker{n}"), *flags, "0") for n in (1, 2)),
    ]
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "512m"}
    started = []
    try:
        for number, command in enumerate(commands):
            with (folder / f"{number}.log").open("wb") as log:
                started.append(
                    subprocess.Popen([SPARK_CLASS, *command], stdout=log, stderr=log, env=environment)
                )
        state = f"http://127.0.0.1:{web_port}/json/"
        _wait_for_workers(state, folder)
        yield address, state, folder
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def _wait_for_workers(state: str, folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(state, timeout=2) as answer:
                if json.load(answer)["aliveworkers"] == 2:
                    return
        except OSError:
            pass
        time.sleep(0.5)
    logs = "\n".join(log.read_text()[-1500:] for log in folder.glob("*.log"))
    pytest.fail(f"no two workers after {START_SECONDS} s:\n{logs}")


def _run(state_dir: Path, **given: str | int) -> Settings:
    state_dir.mkdir(parents=True)
    (state_dir / "jars").symlink_to(REPOSITORY / ".airloop" / "jars")
    settings = Settings(state_dir=state_dir, **given)
    done = subprocess.run(
        [sys.executable, "-c", PIPELINE],
        env={**os.environ, **environment_of(settings)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return settings


def _content(settings: Settings) -> dict[str, list[str]]:
    """The rows of every table, each as text, in order."""
    catalog = open_catalog(settings)
    names = [
        ".".join(name) for namespace in catalog.list_namespaces() for name in catalog.list_tables(namespace)
    ]
    found = {}
    for name in sorted(names):
        table: pa.Table = catalog.load_table(name).scan().to_arrow()
        found[name] = sorted(map(repr, table.select(sorted(table.column_names)).to_pylist()))
    return found


def test_a_cluster_gives_the_same_tables_as_one_machine(
    cluster: tuple[str, str, Path], spec: UseCase, tmp_path: Path
) -> None:
    address, state, folder = cluster
    apart = _run(
        tmp_path / "cluster",
        spark_master=address,
        spark_executor_memory_mib=1024,
        spark_jars_everywhere=True,
    )
    assert len(list(folder.glob("worker*/app-*/*/stderr"))) == 2, "each worker had an executor"
    assert list(folder.rglob("*.jar")) == [], "executors took the jars that are there"
    with urllib.request.urlopen(state, timeout=5) as answer:
        (application,) = json.load(answer)["completedapps"]
    assert application["name"] == "cluster test"
    assert application["cores"] == 2, "both workers gave their core"
    here = _content(_run(tmp_path / "local"))
    there = _content(apart)
    assert there.keys() == here.keys()
    assert len(here) >= len(spec.feeds) + len(spec.clean_tables) + len(spec.feature_tables) + 1
    for name, rows in here.items():
        assert there[name] == rows, name
        assert rows or name == "raw.quarantine", name
