"""A use case that is scored in batches alone: which DAGs it has, and that none of them waits for requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from airloop.errors import SpecError
from airloop.use_cases.flight_delay import USE_CASE
from airloop.use_cases.spec import define
from airloop_airflow.expected_dags import expected_dags

REPOSITORY = Path(__file__).resolve().parents[2]
SPEC = """from airloop.use_cases.flight_delay import USE_CASE as ONLINE

USE_CASE = ONLINE.model_copy(update={"name": "flight_batch", "serving": "batch"})
"""
PARSE = """
import json, sys
from airloop import use_cases
use_cases.__path__.append(sys.argv[1])
from airflow.dag_processing.dagbag import DagBag
bag = DagBag("dags")
assert not bag.import_errors, bag.import_errors
own = {name: sorted(dag.task_ids) for name, dag in bag.dags.items() if name.startswith("flight_batch")}
print(json.dumps(own))
"""
BATCH = USE_CASE.model_copy(update={"name": "flight_batch", "serving": "batch"})


@pytest.fixture(scope="module")
def dags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The tasks of its DAGs, by DAG."""
    folder = tmp_path_factory.mktemp("specs")
    (folder / "flight_batch.py").write_text(SPEC, "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(folder)],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "PYTHONPATH": "src:plugins:.",
            "AIRFLOW_HOME": str(folder / "home"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        },
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_it_has_no_dag_that_is_about_requests(dags: dict[str, list[str]]) -> None:
    kinds = {name.removeprefix("flight_batch_") for name in dags}
    assert kinds == {
        "features",
        "training",
        "rollout",
        "rollback",
        "scoring",
        "override",
        "drill",
        "overview",
    }
    watched = {one.dag_id for one in expected_dags([BATCH]) if one.dag_id.startswith("flight_batch_")}
    assert watched == set(dags), "the watchdog misses none, and waits for none that is not there"


def test_a_candidate_is_checked_and_promoted(dags: dict[str, list[str]]) -> None:
    tasks = dags["flight_batch_rollout"]
    assert {"infra_check", "nothing_beside", "promote", "live"} <= set(tasks)
    assert "watch" not in tasks


@pytest.mark.parametrize(
    ("serving", "champion", "follows"),
    [
        ("batch", 1, "nothing_beside"),
        ("batch", None, "nothing_beside"),
        ("online", 1, "shadow"),
        ("online", 2, "nothing_beside"),
    ],
)
def test_it_is_compared_with_a_champion_only_where_there_are_requests(
    serving: str, champion: int | None, follows: str
) -> None:
    found = spec_from_file_location("rollout_dags", REPOSITORY / "dags" / "rollout.py")
    module = module_from_spec(found)
    found.loader.exec_module(module)
    dag = module.build(
        USE_CASE.model_copy(update={"name": f"flight_{serving}_{champion}", "serving": serving})
    )
    assert dag.get_task("compare").python_callable(2, champion) == follows


def test_what_cannot_be_in_batches_is_refused() -> None:
    fields = {name: getattr(USE_CASE, name) for name in type(USE_CASE).model_fields} | {"serving": "batch"}
    with pytest.raises(SpecError, match="serving: batches need an event_table"):
        define(**fields | {"event_table": None})
    with pytest.raises(SpecError, match=r"retraining\.after_new_events: nothing watches"):
        define(**fields | {"retraining": USE_CASE.retraining.model_copy(update={"after_new_events": 100})})
    with pytest.raises(SpecError, match=r"rollout\.approval: in batches"):
        define(**fields | {"rollout": USE_CASE.rollout.model_copy(update={"approval": True})})
