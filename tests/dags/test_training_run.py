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

from tests.dags.conftest import run_in

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


class Ran:
    """A run of the DAG, and the jobs that it started."""

    def __init__(
        self, folder: Path, migrated: Path, conf: dict[str, Any], failing: tuple[tuple[str, str], ...] = ()
    ) -> None:
        shutil.copy(migrated, folder / "airflow.db")
        log, stand_in = folder / "jobs", folder / "stand_in.py"
        text = STAND_IN.format(python=sys.executable, log=str(log), failing=[list(one) for one in failing])
        stand_in.write_text(text)
        stand_in.chmod(0o755)
        (folder / "state" / "scratch" / "results").mkdir(parents=True)
        printed = run_in(
            folder, sys.executable, "-m", "tests.dags.run_training", str(stand_in), json.dumps(conf)
        )
        found = json.loads(printed.strip().splitlines()[-1])
        self.state: str = found["run"]
        self.states = {name: task["state"] for name, task in found["tasks"].items()}
        self.labels = {name: task["label"] for name, task in found["tasks"].items()}
        self.jobs = [json.loads(line) for line in log.read_text().splitlines()]

    def flags_of(self, job: str) -> list[dict[str, str]]:
        return [flags for module, flags in self.jobs if module.rsplit(".", 1)[1] == job]


def test_by_default_nothing_is_tuned_or_cross_validated(migrated: Path, tmp_path: Path) -> None:
    ran = Ran(tmp_path, migrated, {})
    assert ran.state == "success"
    assert {ran.states[name] for name in ALWAYS} == {"success"}
    assert {ran.states[name] for name in OPTIONAL} == {"skipped"}
    (train,) = ran.flags_of("train")
    assert "--parameters" not in train
    assert {module.rsplit(".", 1)[1] for module, _ in ran.jobs} == ALWAYS - {"resolve_as_of", "gate", "tell"}


def test_with_both_the_tuned_parameters_reach_the_candidate_and_the_folds(
    migrated: Path, tmp_path: Path
) -> None:
    conf = {"tune": True, "trials": 3, "cross_validate": True}
    # A failed trial fails no run.
    ran = Ran(tmp_path, migrated, conf, (("trial", "1"),))
    assert ran.state == "success"
    (study,) = ran.flags_of("study")
    assert study["--trials"] == "3"
    assert "--minutes" not in study
    assert [ran.states[f"trial[{slot}]"] for slot in range(3)] == ["success", "failed", "success"]
    assert ran.labels["trial[2]"] == "trial 2: log loss 0.2"
    assert sorted(flags["--slot"] for flags in ran.flags_of("trial")) == ["0", "1", "2"]
    assert {flags["--study"] for flags in (*ran.flags_of("trial"), *ran.flags_of("tuned"))} == {"s"}
    tuned = {"study": "s", "parameters": {"width": 8}}
    for job in ("train", "fold", "cross_validated"):
        for flags in ran.flags_of(job):
            assert json.loads(flags["--parameters"]) == tuned
    assert sorted(flags["--fold"] for flags in ran.flags_of("fold")) == ["0", "1"]
    (collected,) = ran.flags_of("cross_validated")
    assert [fold["fold"] for fold in json.loads(collected["--measured"])] == [0, 1]
    assert {ran.states[name] for name in ALWAYS | {"cross_validated"}} == {"success"}


def test_folds_without_tuning_have_the_specs_own_parameters(migrated: Path, tmp_path: Path) -> None:
    ran = Ran(tmp_path, migrated, {"cross_validate": True})
    assert ran.state == "success"
    assert ran.states["tuned"] == "skipped"
    assert ran.states["cross_validated"] == "success"
    assert all("--parameters" not in flags for flags in ran.flags_of("fold"))


def test_tuning_without_folds_skips_the_folds(migrated: Path, tmp_path: Path) -> None:
    ran = Ran(tmp_path, migrated, {"tune": True})
    assert ran.state == "success"
    assert ran.states["tuned"] == "success"
    assert {ran.states[name] for name in ("folds", "fold", "cross_validated")} == {"skipped"}


@pytest.mark.parametrize("conf", [{}, {"tune": True, "cross_validate": True}])
def test_without_a_training_set_nothing_is_tuned_or_trained(
    migrated: Path, tmp_path: Path, conf: dict[str, Any]
) -> None:
    ran = Ran(tmp_path, migrated, conf, (("training_set", ""),))
    assert ran.state == "failed"
    assert [module.rsplit(".", 1)[1] for module, _ in ran.jobs] == ["training_set"]
    assert ran.states["train"] == "upstream_failed"


def test_a_study_without_a_finished_trial_trains_nothing(migrated: Path, tmp_path: Path) -> None:
    failing = (("trial", "0"), ("trial", "1"), ("trial", "2"), ("tuned", ""))
    ran = Ran(tmp_path, migrated, {"tune": True}, failing)
    assert ran.state == "failed"
    assert ran.states["tuned"] == "failed"
    assert ran.states["train"] == "upstream_failed"
