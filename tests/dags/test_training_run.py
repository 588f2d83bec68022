"""The training DAG runs through a scheduler's rules: tuning and folds where they are wanted, nothing else.

Jobs are stand-ins that write what real ones would and note their flags; everything of Airflow's is real.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.dags.conftest import REPOSITORY, run_in

STAND_IN = """#!{python}
import json, os, sys
# python -m airloop.background python -m <module> [--flag value ...]
assert sys.argv[2:5] == ["airloop.background", sys.argv[0], "-m"], sys.argv
module, flags = sys.argv[5], dict(zip(sys.argv[6::2], sys.argv[7::2]))
with open({log!r}, "a") as log:
    log.write(json.dumps([module, flags]) + "\\n")
name = module.rsplit(".", 1)[1]
if [name, flags.get("--slot", "")] in {failing!r}:
    with open(flags["--result"], "w") as file:
        error = dict(type="SpecError", expected="a", found="b", next_step="c")
        json.dump(dict(error=error), file)
    sys.exit(65)
documents = dict(
    training_set=dict(tag="t"),
    study=dict(name="s", slots=[0, 1, 2]),
    trial=dict(summary="log loss 0." + flags.get("--slot", "")),
    tuned=dict(study="s", parameters=dict(width=8)),
    train=dict(run_id="r"),
    folds=dict(training_set="t", folds=[0, 1], tuned=json.loads(flags.get("--parameters", "null"))),
    fold=dict(fold=int(flags.get("--fold", "0")), summary="fine"),
    evaluate=dict(run_id="r", accepted=True),
    register=dict(name="n", version=1, run_id="r"),
)
with open(flags["--result"], "w") as file:
    json.dump(documents.get(name, dict()), file)
"""
OPTIONAL = {"study", "trial", "tuned", "folds", "fold", "cross_validated"}
ALWAYS = {"resolve_as_of", "training_set", "train", "evaluate", "gate", "register", "tell"}


TUNED_AND_FOLDED = {"tune": True, "trials": 3, "cross_validate": True}
NO_TRIAL = (("trial", "0"), ("trial", "1"), ("trial", "2"), ("tuned", ""))
RUNS: dict[str, tuple[dict[str, Any], tuple[tuple[str, str], ...]]] = {
    "default": ({}, ()),
    # A failed trial fails no run.
    "tuned and folded": (TUNED_AND_FOLDED, (("trial", "1"),)),
    "folded": ({"cross_validate": True}, ()),
    "tuned": ({"tune": True}, ()),
    "no training set": ({}, (("training_set", ""),)),
    "no training set, tuned and folded": (
        {"tune": True, "cross_validate": True},
        (("training_set", ""),),
    ),
    "no trial": ({"tune": True}, NO_TRIAL),
}
"""Each run's conf, and the jobs that fail in it."""


class Ran:
    """A run of the DAG, and the jobs that it started."""

    def __init__(self, found: dict[str, Any], log: Path) -> None:
        self.state: str = found["run"]
        self.states = {name: task["state"] for name, task in found["tasks"].items()}
        self.labels = {name: task["label"] for name, task in found["tasks"].items()}
        self.jobs = [json.loads(line) for line in log.read_text().splitlines()]

    def flags_of(self, job: str) -> list[dict[str, str]]:
        return [flags for module, flags in self.jobs if module.rsplit(".", 1)[1] == job]


@pytest.fixture(scope="module")
def ran(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """All runs, one after the other, in one process: starting Airflow takes longer than a run."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copy(migrated, folder / "airflow.db")
    (folder / "state" / "scratch" / "results").mkdir(parents=True)
    dags = folder / "dags"
    dags.mkdir()
    shutil.copy(REPOSITORY / "dags" / "training.py", dags)
    runs, logs = [], []
    for number, (conf, failing) in enumerate(RUNS.values()):
        log, stand_in = folder / f"jobs_{number}", folder / f"stand_in_{number}.py"
        text = STAND_IN.format(python=sys.executable, log=str(log), failing=[list(one) for one in failing])
        stand_in.write_text(text)
        stand_in.chmod(0o755)
        runs.append((str(stand_in), conf))
        logs.append(log)
    command = (sys.executable, "-m", "tests.dags.run_training", str(dags), json.dumps(runs))
    printed = json.loads(run_in(folder, *command, dags=dags).strip().splitlines()[-1])
    return {name: Ran(*one) for name, *one in zip(RUNS, printed, logs, strict=True)}


def test_by_default_nothing_is_tuned_or_cross_validated(ran: dict[str, Ran]) -> None:
    run = ran["default"]
    assert run.state == "success"
    assert {run.states[name] for name in ALWAYS} == {"success"}
    assert {run.states[name] for name in OPTIONAL} == {"skipped"}
    (train,) = run.flags_of("train")
    assert "--parameters" not in train
    assert {module.rsplit(".", 1)[1] for module, _ in run.jobs} == ALWAYS - {"resolve_as_of", "gate", "tell"}


def test_with_both_the_tuned_parameters_reach_the_candidate_and_the_folds(ran: dict[str, Ran]) -> None:
    run = ran["tuned and folded"]
    assert run.state == "success"
    (study,) = run.flags_of("study")
    assert study["--trials"] == "3"
    assert "--minutes" not in study
    assert [run.states[f"trial[{slot}]"] for slot in range(3)] == ["success", "failed", "success"]
    assert run.labels["trial[2]"] == "trial 2: log loss 0.2"
    assert sorted(flags["--slot"] for flags in run.flags_of("trial")) == ["0", "1", "2"]
    assert {flags["--study"] for flags in (*run.flags_of("trial"), *run.flags_of("tuned"))} == {"s"}
    tuned = {"study": "s", "parameters": {"width": 8}}
    for job in ("train", "fold", "cross_validated"):
        for flags in run.flags_of(job):
            assert json.loads(flags["--parameters"]) == tuned
    assert sorted(flags["--fold"] for flags in run.flags_of("fold")) == ["0", "1"]
    (collected,) = run.flags_of("cross_validated")
    assert [fold["fold"] for fold in json.loads(collected["--measured"])] == [0, 1]
    assert {run.states[name] for name in ALWAYS | {"cross_validated"}} == {"success"}


def test_folds_without_tuning_have_the_specs_own_parameters(ran: dict[str, Ran]) -> None:
    run = ran["folded"]
    assert run.state == "success"
    assert run.states["tuned"] == "skipped"
    assert run.states["cross_validated"] == "success"
    assert all("--parameters" not in flags for flags in run.flags_of("fold"))


def test_tuning_without_folds_skips_the_folds(ran: dict[str, Ran]) -> None:
    run = ran["tuned"]
    assert run.state == "success"
    assert run.states["tuned"] == "success"
    assert {run.states[name] for name in ("folds", "fold", "cross_validated")} == {"skipped"}


@pytest.mark.parametrize("name", ["no training set", "no training set, tuned and folded"])
def test_without_a_training_set_nothing_is_tuned_or_trained(ran: dict[str, Ran], name: str) -> None:
    run = ran[name]
    assert run.state == "failed"
    assert [module.rsplit(".", 1)[1] for module, _ in run.jobs] == ["training_set"]
    assert run.states["train"] == "upstream_failed"


def test_a_study_without_a_finished_trial_trains_nothing(ran: dict[str, Ran]) -> None:
    run = ran["no trial"]
    assert run.state == "failed"
    assert run.states["tuned"] == "failed"
    assert run.states["train"] == "upstream_failed"
