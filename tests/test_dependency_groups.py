"""Each production image's dependency group is enough for its part: nothing of another group is needed.

Every module of the part is imported, so that an import inside a function does not hide behind another one.
The `airflow` group's part, parsing the DAGs, is in `tests/dags/test_parsing.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from airloop.compute import group_of
from airloop.dotted import load
from airloop.prediction_request import example_request
from airloop.settings import REPOSITORY, Settings, environment_of
from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from feature_repo.store import open_store
from tests.group_environment import python_of
from tests.job_modules import job_modules

IMPORT_ALL = """
import importlib, pkgutil, sys
imported = []
for name in sys.argv[1:]:
    found = importlib.import_module(name)
    imported.append(name)
    for module in pkgutil.walk_packages(getattr(found, "__path__", []), name + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            imported.append(module.name)
print(*imported)
"""

READ_ONLINE = """
import json, sys
from airloop.prediction_request import example_request
from airloop.settings import load_settings
from airloop.use_cases.catalogue import use_case
from feature_repo.online import open_online_store
from serving.gateway.online_features import OnlineFeatures
spec, settings = use_case(sys.argv[1]), load_settings()
(features,) = OnlineFeatures(lambda: open_online_store(settings)).read(spec, [example_request(spec)])
print(json.dumps({name: feature.value for name, feature in features.items()}))
"""

REDIS = "feast.infra.online_stores.redis"
"""The online store that the settings may name; imported only then."""

NEEDS = {
    "spark": (
        *("spark_jobs", "feature_repo", REDIS, "airloop.remote_job"),
        *("airloop.lakehouse", "airloop.sources", "airloop.use_cases", "airloop.prediction_log"),
    ),
    "training": (
        *("airloop.training", "airloop.lakehouse.catalog", "airloop.registry", "airloop.use_cases"),
        "airloop.remote_job",
        *("airloop.versions", "airloop.lineage", "airloop.erasure.models", "airloop.erasure.record"),
        *("airloop.monitoring.day_report", "evidently.presets", "airloop.backup"),
        # MLflow's server, on PostgreSQL.
        *("mlflow.server.fastapi_app", "psycopg2"),
    ),
    "serving": (
        *("serving", "feature_repo.online", REDIS, "airloop.registry", "airloop.use_cases"),
        *("airloop.prediction_log", "airloop.training.explain"),
    ),
}
LACKS = {
    "spark": ("tensorflow", "airflow", "pytest"),
    "training": ("pyspark", "feast", "airflow", "pytest"),
    "serving": ("pyspark", "great_expectations", "airflow", "pytest"),
}


def _run(group: str, code: str, *arguments: str, settings: Settings) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AIRLOOP_", "PYTHON"))}
    return subprocess.run(
        [str(python_of(group)), "-c", code, *arguments],
        env={
            **kept,
            **environment_of(settings),
            "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "src"), str(REPOSITORY))),
        },
        cwd=settings.state_dir,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path)


@pytest.mark.parametrize("group", NEEDS)
def test_a_group_is_enough_to_import_its_part(group: str, settings: Settings) -> None:
    jobs = [module for module in job_modules() if group_of(module) == group]
    assert jobs
    done = _run(group, IMPORT_ALL, *NEEDS[group], *jobs, settings=settings)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.split()) > len(NEEDS[group])


@pytest.mark.parametrize(("group", "other"), [(group, other) for group in LACKS for other in LACKS[group]])
def test_a_group_has_nothing_of_another(group: str, other: str, settings: Settings) -> None:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is not None)"
    assert _run(group, code, other, settings=settings).returncode == 0


@pytest.mark.parametrize("spec", all_use_cases(), ids=lambda spec: spec.name)
def test_the_gateway_reads_online_features_without_spark(spec: UseCase, settings: Settings) -> None:
    """The registry's views have Spark sources; reading the online store must not need what those need."""
    store = open_store(settings)
    store.apply(load(spec.feature_definitions).definitions(spec, settings))
    request, written = example_request(spec), {}
    for table in spec.feature_tables:
        values = {name: float(len(written) + place) for place, name in enumerate(table.features)}
        frame = pd.DataFrame({key: [request.entities[key]] for key in table.entities})
        for name, kind in table.features.items():
            frame[name] = pd.Series([values[name]]).astype("int64" if kind == "long" else "float64")
        frame["event_timestamp"] = pd.to_datetime([request.prediction_time - timedelta(hours=1)], utc=True)
        store.write_to_online_store(table.name, frame)
        written |= values
    done = _run("serving", READ_ONLINE, spec.name, settings=settings)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == written
