"""A study that processes share, in each kind of database: real processes, and a real PostgreSQL server.

The trainings are left out: a trial's loss is a function of its parameters.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote_plus

import pytest
from optuna.trial import TrialState

from airloop.settings import REPOSITORY, Settings
from airloop.training import tuning
from airloop.training.tuned import close_study
from tests.sources.servers import postgres_server
from tests.training.conftest import COMMIT, settings_in
from tests.training.planted import planted_rows, write_training_set
from tests.training.planted_trial import tuned_use_case

PROCESSES, SLOTS_EACH = 3, 5
SPEC = tuned_use_case(parallel_trials=PROCESSES, trials=PROCESSES * SLOTS_EACH)
WORK = """
import sys, time
from airloop.settings import Settings
from airloop.training import tuning
from airloop.use_cases.spec import UseCase
settings, spec = Settings.model_validate_json(sys.argv[1]), UseCase.model_validate_json(sys.argv[2])
for slot in map(int, sys.argv[4:]):
    study = tuning.load_study(settings, spec, sys.argv[3], slot)
    trial = tuning.ask(study, spec, slot)
    loss = 0.4 + trial.params["dropout"]
    for epoch in range(3):
        time.sleep(0.02)
        trial.report(loss, epoch)
    study.tell(trial, loss)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    if request.param == "sqlite":
        yield settings_in(tmp_path)
        return
    with postgres_server() as server:
        password = quote_plus(server.password)
        url = f"postgresql+psycopg2://{server.user}:{password}@127.0.0.1:{server.port}/{server.database}"
        yield settings_in(tmp_path).model_copy(update={"tuning_storage": url})


def test_processes_share_a_study_and_no_slot_is_lost_or_done_twice(settings: Settings) -> None:
    training_set = write_training_set(settings, planted_rows())
    opened = datetime.now(UTC)
    name = tuning.open_study(settings, SPEC, training_set, COMMIT, minutes=5, opened=opened)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "src"), str(REPOSITORY)))}
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", WORK, settings.model_dump_json(), SPEC.model_dump_json(), name),
                *map(str, range(number, PROCESSES * SLOTS_EACH, PROCESSES)),
            ],
            env=environment,
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
        )
        for number in range(PROCESSES)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors.decode()[-3000:]
    study = tuning.load_study(settings, SPEC, name)
    trials = study.get_trials()
    assert sorted(trial.user_attrs["slot"] for trial in trials) == list(range(PROCESSES * SLOTS_EACH))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len({trial.params["dropout"] for trial in trials}) == len(trials)
    (own,) = (trial for trial in trials if trial.user_attrs["slot"] == tuning.OWN_SLOT)
    assert own.params.items() <= SPEC.training.parameters.items()
    outcome = close_study(settings, SPEC, name)
    assert outcome.loss == min(trial.value for trial in trials if trial.value is not None)
