"""A small deployment with a real catalog, registry, spool, audit log and list of the erased."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pytest
from mlflow import MlflowClient

from airloop.audit_log import append_record
from airloop.backup.erasures import PROVED
from airloop.erasure.suppression import suppress_subject
from airloop.lakehouse.catalog import open_catalog
from airloop.settings import REPOSITORY, Settings, environment_of
from airloop.use_cases.flight_delay import USE_CASE

AIRFLOW_REVISION = "d2f4e1b3c5a7"
TABLES = ("clean.flights", "raw.flights", "serving.predictions")


def make_deployment(settings: Settings, registry: Path | None) -> None:
    """Fill `settings`' deployment; `registry` is copied unless MLflow's database is elsewhere."""
    state = settings.state_dir
    for name, text in {
        "airflow/secrets.json": '{"fernet_key": "planted-fernet-key"}',
        "airflow/passwords.json": '{"admin": "planted-password"}',
        "models/models.config": f'model_config_list {{ config {{ base_path: "{state}/models/m" }} }}\n',
        "models/m/1/saved_model.pb": "weights",
        "models/routing.json": "{}",
        "predictions/w-00000001.jsonl": '{"writer":"w","sequence":1,"record":{}}\n',
        "usage/attempt.json": "{}",
        "monitoring/m/reference.json": "{}",
        "signing/signing_key.pem": "planted-private-key",
        "signing/verification_key.pem": "public",
        "scratch/results/old.json": "not kept",
        "logs/jobs/today.jsonl": "not kept",
    }.items():
        path = state / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if settings.airflow_database is None:
        make_airflow_database(state / "airflow" / "airflow.db")
    catalog = open_catalog(settings)
    for name in TABLES:
        catalog.create_namespace_if_not_exists(name.split(".")[0])
        table = catalog.create_table(
            name, schema=pa.schema([("n", pa.int64()), ("tail_number", pa.string())])
        )
        for start in (0, 100):
            table.append(rows(start, 100))
        table.delete("n < 50")
    if registry is not None:
        shutil.copyfile(registry, state / "mlflow_new.db")
        (state / "mlflow").mkdir(parents=True, exist_ok=True)
        (state / "mlflow_new.db").rename(state / "mlflow" / "mlflow.db")
    register_model(settings, "flight_delay")
    append_record(settings, kind="promoted", key="1", what={"version": 1})
    digest = suppress_subject(settings, USE_CASE.erasure, "N1EARLIER")
    append_record(
        settings, kind=PROVED, key="1", what={"subject": digest, "reason": "ticket 1", "use_case": "u"}
    )


def make_airflow_database(file: Path) -> None:
    """With the revision of the installed Airflow."""
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES (?)", (AIRFLOW_REVISION,))
        database.execute("CREATE TABLE dag_run (id INTEGER PRIMARY KEY, run_id TEXT)")
        database.executemany("INSERT INTO dag_run (run_id) VALUES (?)", [(f"run {n}",) for n in range(500)])
        database.commit()


def rows(start: int, count: int) -> pa.Table:
    """Rows of the small tables."""
    numbers = range(start, start + count)
    return pa.table({"n": pa.array(numbers, pa.int64()), "tail_number": [f"N{n}" for n in numbers]})


def register_model(settings: Settings, name: str) -> str:
    """A run with artifacts, registered; and one that never was. Returns the first one's id."""
    client = MlflowClient(tracking_of(settings))
    found = client.get_experiment_by_name(name)
    location = f"{settings.mlflow_artifacts_uri}/{name}"
    experiment = found.experiment_id if found else client.create_experiment(name, artifact_location=location)
    if client.search_registered_models(f"name = '{name}'") == []:
        client.create_registered_model(name)
    ids = []
    for text in ("registered", "never registered"):
        run = client.create_run(experiment)
        client.log_text(run.info.run_id, text, "saved_model/saved_model.pb")
        client.log_dict(run.info.run_id, {"auc": 0.7}, "model_card.json")
        ids.append(run.info.run_id)
    source = f"{location}/{ids[0]}/artifacts/saved_model"
    version = client.create_model_version(name, source, run_id=ids[0])
    client.set_registered_model_alias(name, "champion", version.version)
    return ids[0]


def tracking_of(settings: Settings) -> str:
    """MLflow's database as a tracking URI."""
    return settings.mlflow_database or f"sqlite:///{settings.state_dir / 'mlflow' / 'mlflow.db'}"


def _fresh(settings: Settings) -> str:
    """The same, of a copy: MLflow keeps databases open by their names, also those that are gone."""
    if settings.mlflow_database is not None:
        return settings.mlflow_database
    copy = settings.state_dir.parent / f"mlflow-{uuid.uuid4().hex}.db"
    source = sqlite3.connect(settings.state_dir / "mlflow" / "mlflow.db")
    with closing(source), closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return f"sqlite:///{copy}"


def facts_of(settings: Settings) -> dict[str, Any]:
    """What a restored deployment must have as it was, as its own readers see it."""
    catalog = open_catalog(settings)
    tables = {}
    for namespace in sorted(catalog.list_namespaces()):
        for identifier in sorted(catalog.list_tables(namespace)):
            table = catalog.load_table(identifier)
            # Every version, not only the newest.
            tables[".".join(identifier)] = [
                (snapshot.snapshot_id, table.scan(snapshot_id=snapshot.snapshot_id).to_arrow().num_rows)
                for snapshot in table.snapshots()
            ]
    tracking = _fresh(settings)
    client = MlflowClient(tracking)
    versions = []
    for version in client.search_model_versions():
        folder = mlflow.artifacts.download_artifacts(version.source, tracking_uri=tracking)
        content = {path.name: path.read_text() for path in sorted(Path(folder).rglob("*")) if path.is_file()}
        aliases = client.get_model_version(version.name, version.version).aliases
        versions.append((version.name, version.version, sorted(aliases), content))
    return {"tables": tables, "versions": sorted(versions, key=str), "files": files_of(settings.state_dir)}


def files_of(state: Path) -> dict[str, str]:
    """The state folder's own files."""
    kept = (
        "airflow/",
        "audit_log/",
        "erasure/",
        "models/",
        "monitoring/",
        "predictions/",
        "signing/",
        "usage/",
    )
    return {
        name: path.read_text("latin-1")
        for path in sorted(state.rglob("*"))
        if path.is_file()
        and (name := path.relative_to(state).as_posix()).startswith(kept)
        and ".db" not in path.name
    }


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of the embedded kind, with a key for its secrets."""
    from cryptography.fernet import Fernet

    (tmp_path / "backup.key").write_bytes(Fernet.generate_key())
    return Settings(
        state_dir=tmp_path / "state",
        backup_uri=str(tmp_path / "place"),
        backup_key=tmp_path / "backup.key",
    )


@pytest.fixture
def deployment(settings: Settings, new_registry: Path) -> Settings:
    """The settings of a filled deployment."""
    make_deployment(settings, new_registry)
    return settings


@pytest.fixture
def lose() -> Callable[[Settings], Path]:
    """Takes a deployment's state away, as a disk that is gone does; returns where a test can look at it."""

    def away(settings: Settings) -> Path:
        gone = settings.state_dir.with_name("gone")
        settings.state_dir.rename(gone)
        return gone

    return away


def lines_of_json(text: str) -> list[dict[str, Any]]:
    """The documents that a command printed."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.fixture(scope="session")
def run_and_kill() -> Iterator[Callable[..., int]]:
    """Runs a job and kills it before a call; returns its exit status. See `killed`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AIRLOOP_")}
    path = os.pathsep.join((str(REPOSITORY / "src"), str(REPOSITORY)))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.backup.killed"],
        env={**kept, "PYTHONPATH": path},
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        def run(settings: Settings, module: str, *flags: str, before: str, calls: int) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            order = {"module": module, "flags": flags, "method": before, "calls": calls}
            process.stdin.write(json.dumps({**order, "environment": environment_of(settings)}) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield run
        process.stdin.close()
