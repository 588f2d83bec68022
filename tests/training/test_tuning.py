"""Tuning: a study survives its trials, repeats itself, keeps its budget, and never makes a model worse.

Real studies in SQLite, of real trainings; the rows' test split cannot be read, so that reading it would fail.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import pytest
from optuna.trial import TrialState, create_trial
from PIL import Image

from airloop.errors import SpecError, TuningError
from airloop.references import Candidate, Study, TrainingSet, TrialDone, Tuned
from airloop.registry import open_registry
from airloop.settings import REPOSITORY, Settings
from airloop.training import tuning
from airloop.training.study import open_study
from airloop.training.train import train
from airloop.training.trial import run_trial
from airloop.training.tuned import close_study
from airloop.use_cases.spec import UseCase
from airloop.use_cases.training_policy import Range
from tests.training.conftest import COMMIT, settings_in
from tests.training.planted import planted_rows, planted_use_case, write_training_set
from tests.training.planted_trial import long_use_case, tuned_use_case

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def without_test_rows(rows: pa.Table) -> pa.Table:
    """`rows` with labels in the test split that no reader accepts."""
    is_test = np.array(rows["split"].to_pylist()) == "test"
    labels = np.where(is_test, 7, rows["happened"].to_numpy()).astype(np.int32)
    return rows.set_column(rows.schema.get_field_index("happened"), "happened", pa.array(labels))


class Deployment:
    """A deployment with a training set, and a study of it."""

    def __init__(self, folder: Path, spec: UseCase, *, trials: int | None = None) -> None:
        self.settings: Settings = settings_in(folder)
        self.spec = spec
        self.training_set: TrainingSet = write_training_set(self.settings, without_test_rows(planted_rows()))
        self.study = self.open(trials=trials)

    def open(self, opened: datetime = NOON, **budget: int | None) -> Study:
        return open_study(self.settings, self.spec, self.training_set, COMMIT, opened=opened, **budget)

    def trial(self, slot: int, now: datetime = NOON) -> TrialDone:
        return run_trial(self.settings, self.spec, self.training_set, self.study.name, slot, COMMIT, now=now)

    def all(self) -> list[TrialDone]:
        return [self.trial(slot) for slot in self.study.slots]

    def close(self) -> Tuned:
        return close_study(self.settings, self.spec, self.study.name)

    def stored(self) -> optuna.Study:
        return tuning.load_study(self.settings, self.spec, self.study.name)

    def pretend(self, slot: int, loss: float, **params: float) -> None:
        """Add a complete trial of `slot`, without training."""
        space = {
            name: tuning._distribution(values) for name, values in tuning.tuning_of(self.spec).space.items()
        }
        own = {name: self.spec.training.parameters[name] for name in space}
        trial = create_trial(
            value=loss,
            params={**own, **params},
            distributions=space,
            user_attrs={"slot": slot},
            intermediate_values={0: loss, 1: loss},
        )
        self.stored().add_trial(trial)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Deployment, list[TrialDone], Tuned]:
    """A study of four trials, closed; tests only read it."""
    deployment = Deployment(tmp_path_factory.mktemp("tuned"), tuned_use_case())
    return deployment, deployment.all(), deployment.close()


Finished = tuple[Deployment, list[TrialDone], Tuned]


def test_the_first_trial_has_the_specs_own_parameters_and_the_best_is_never_worse(tuned: Finished) -> None:
    deployment, trials, outcome = tuned
    own = trials[0]
    assert own.state == "complete"
    assert own.parameters.items() <= deployment.spec.training.parameters.items()
    finished = [trial.loss for trial in trials if trial.state == "complete" and trial.loss is not None]
    assert outcome.loss == min(finished)
    assert outcome.own_loss == own.loss is not None
    assert outcome.loss <= outcome.own_loss
    assert outcome.improved == (outcome.loss < outcome.own_loss)
    assert outcome.parameters.keys() == deployment.spec.training.parameters.keys()


def test_proposals_lie_in_the_space_and_differ(tuned: Finished) -> None:
    deployment, trials, _ = tuned
    for trial in trials:
        for name, values in tuning.tuning_of(deployment.spec).space.items():
            assert values.has(trial.parameters[name]), (name, trial)
    assert len({trial.parameters["learning_rate"] for trial in trials}) == len(trials)


def test_the_same_seed_gives_the_same_study_and_another_seed_another(tuned: Finished, tmp_path: Path) -> None:
    deployment, trials, _ = tuned
    again = copy(deployment)
    storage = {"tuning_storage": f"sqlite:///{tmp_path / 'studies.db'}"}
    again.settings = deployment.settings.model_copy(update=storage)
    assert again.open() == deployment.study
    # The figures too: trainings are deterministic, so the study is.
    assert [again.trial(slot) for slot in (0, 1)] == trials[:2]
    policy = deployment.spec.training.model_copy(update={"seed": 7})
    again.spec = deployment.spec.model_copy(update={"training": policy})
    again.study = again.open()
    assert again.study.name != deployment.study.name
    assert again.trial(1).parameters != trials[1].parameters


def test_a_slot_that_is_done_is_not_done_again(tuned: Finished) -> None:
    deployment, trials, _ = tuned
    before = len(deployment.stored().trials)
    # Even after its time.
    assert deployment.trial(2, now=NOON + timedelta(days=1)) == trials[2]
    assert len(deployment.stored().trials) == before == len(trials)


def test_the_study_is_logged_with_its_plots_and_page(tuned: Finished) -> None:
    deployment, _, outcome = tuned
    client = open_registry(deployment.settings)
    run = client.get_run(outcome.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["airloop.report_kind"] == "study"
    assert "airloop.training_set" not in run.data.tags, "it would count as a model trained on that set"
    assert run.data.params["width"] == repr(outcome.parameters["width"])
    logged = {item.path for item in client.list_artifacts(outcome.run_id)}
    assert {"study.html", "study.json", "history.png", "slice.png", "importances.png"} <= logged
    folder = Path(outcome.page_uri.removeprefix("file://")).parent
    for name in ("history.png", "slice.png", "importances.png"):
        with Image.open(folder / name) as image:
            assert image.size > (300, 300)
            assert len(set(image.convert("L").resize((40, 40)).getdata())) > 4, f"{name} is blank"
    page = (folder / "study.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 3
    assert 'src="http' not in page
    assert "<script" not in page
    assert f"{outcome.loss:.5f}" in page


def test_closing_again_writes_over_the_same_run(tuned: Finished) -> None:
    deployment, _, outcome = tuned
    assert deployment.close() == outcome


def test_the_candidate_is_trained_with_the_studys_parameters_and_says_so(
    tuned: Finished, tmp_path: Path
) -> None:
    deployment, _, outcome = tuned
    settings, spec = settings_in(tmp_path), deployment.spec
    training_set = write_training_set(settings, planted_rows())
    given = outcome.model_copy(update={"parameters": {**outcome.parameters, "width": 24}})
    candidate = train(settings, spec, training_set, COMMIT, tuned=given)
    assert isinstance(candidate, Candidate)
    run = open_registry(settings).get_run(candidate.run_id)
    assert run.data.params["width"] == "24"
    assert run.data.params["study"] == outcome.study
    assert train(settings, spec, training_set, COMMIT, tuned=given) == candidate
    assert train(settings, spec, training_set, COMMIT) != candidate
    others = given.model_copy(update={"parameters": {"width": 24}})
    with pytest.raises(SpecError, match="tune again"):
        train(settings, spec, training_set, COMMIT, tuned=others)


def test_without_a_better_trial_the_specs_own_parameters_stay(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, tuned_use_case())
    deployment.pretend(0, 0.5)
    deployment.pretend(1, 0.5, width=8)
    outcome = deployment.close()
    assert not outcome.improved
    assert outcome.parameters == deployment.spec.training.parameters
    deployment.pretend(2, 0.4, width=16)
    outcome = deployment.close()
    assert outcome.improved
    assert outcome.parameters == {**deployment.spec.training.parameters, "width": 16}


def test_nobody_knows_that_a_trial_is_better_while_the_specs_own_is_not_measured(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, tuned_use_case())
    deployment.pretend(1, 0.1, width=8)
    outcome = deployment.close()
    assert (outcome.improved, outcome.own_loss) == (False, None)
    assert outcome.parameters == deployment.spec.training.parameters


def test_a_hopeless_trial_is_pruned(tmp_path: Path) -> None:
    spec = tuned_use_case(epochs=4, warm_up_epochs=1, unpruned_trials=2, trials=8)
    hopeless = Range(low=1e-9, high=0.01, log=True)
    space = {**tuning.tuning_of(spec).space, "learning_rate": hopeless}
    policy = tuning.tuning_of(spec).model_copy(update={"space": space})
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"tuning": policy})})
    deployment = Deployment(tmp_path, spec)
    for slot in (0, 1):
        deployment.pretend(slot, 0.3)
    outcome = deployment.trial(2)
    assert outcome.state == "pruned"
    assert outcome.loss is not None
    assert outcome.loss > 0.3
    (trial,) = [one for one in deployment.stored().trials if one.state == TrialState.PRUNED]
    # The warm-up's epoch is 0; the first epoch after it is the earliest.
    assert trial.last_step == 1
    assert deployment.trial(2) == outcome
    assert not list(deployment.settings.checkpoints_dir.rglob("*.npz"))


def test_parameters_that_diverge_are_pruned_and_not_an_error(tmp_path: Path) -> None:
    spec = tuned_use_case()
    parameters = {**spec.training.parameters, "learning_rate": 1e30}
    space = {**tuning.tuning_of(spec).space, "learning_rate": Range(low=1e29, high=1e31)}
    policy = tuning.tuning_of(spec).model_copy(update={"space": space})
    changed = spec.training.model_copy(update={"tuning": policy, "parameters": parameters})
    deployment = Deployment(tmp_path, spec.model_copy(update={"training": changed}))
    outcome = deployment.trial(0)
    assert (outcome.state, outcome.loss) == ("pruned", None)
    with pytest.raises(TuningError, match=r"a complete trial .* found 1 pruned"):
        deployment.close()
    deployment.pretend(1, 0.5, learning_rate=2e29)
    assert deployment.close().parameters["learning_rate"] == 2e29


def test_after_its_time_slots_are_skipped_until_it_is_opened_again(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, tuned_use_case(), trials=2)
    assert deployment.study.slots == (0, 1)
    late = NOON + timedelta(minutes=10)
    skipped = deployment.trial(1, now=late)
    assert (skipped.state, skipped.loss) == ("skipped", None)
    assert deployment.stored().trials == []
    assert deployment.open(opened=late) == deployment.open(opened=late).model_copy(
        update={"slots": (0, 1, 2, 3)}
    )
    assert deployment.trial(1, now=late).state == "complete"


def test_a_study_of_other_code_or_of_another_spec_is_refused(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, tuned_use_case())
    arguments: Any = (deployment.settings, deployment.spec, deployment.training_set, deployment.study.name, 0)
    with pytest.raises(TuningError, match="open the study again"):
        run_trial(*arguments, "2" * 40, now=NOON)
    with pytest.raises(TuningError, match="none of that name"):
        close_study(deployment.settings, deployment.spec, "absent")
    with pytest.raises(SpecError, match=r"training\.tuning"):
        open_study(deployment.settings, planted_use_case(), deployment.training_set, COMMIT, opened=NOON)


def test_code_that_no_commit_pins_begins_a_study_anew(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, tuned_use_case())
    for commit, kept in ((COMMIT, 1), (f"{COMMIT}-dirty", 0)):
        arguments: Any = (deployment.settings, deployment.spec, deployment.training_set, commit)
        deployment.study = open_study(*arguments, opened=NOON)
        deployment.pretend(0, 0.5)
        open_study(*arguments, opened=NOON)
        assert len(deployment.stored().trials) == kept


@pytest.mark.timeout(300)
def test_a_killed_trial_is_given_up_and_its_parameters_tried_again(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, long_use_case())
    command = [
        *(sys.executable, "-m", "tests.training.planted_trial", str(tmp_path)),
        *(deployment.training_set.model_dump_json(), deployment.study.name, "1"),
    ]
    # The process looks at its own clock.
    deployment.open(opened=datetime.now(UTC))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "src"), str(REPOSITORY)))}

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=log, stderr=log)

    process = start()
    deadline = time.monotonic() + 120
    while not list(deployment.settings.checkpoints_dir.rglob("checkpoint.npz")):
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (dead,) = deployment.stored().trials
    assert dead.state == TrialState.RUNNING

    process = start()
    assert process.wait(timeout=200) == 0, (tmp_path / "log").read_text()
    given_up, done = deployment.stored().trials
    assert (given_up.state, done.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert done.params == dead.params
    assert sorted(done.intermediate_values) == list(range(len(done.intermediate_values)))
    assert "going on in epoch" in (tmp_path / "log").read_text(), "it began again at the start"
    assert not list(deployment.settings.checkpoints_dir.rglob("*.npz"))
    assert not list(deployment.settings.scratch_dir.iterdir())
