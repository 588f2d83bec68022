"""A promoted version's rollout is started in the target, once."""

from __future__ import annotations

from pathlib import Path

from airloop.delivery import start_rollout
from airloop.errors import EXIT_PERMANENT
from airloop.references import PromotedModel
from tests.delivery.conftest import Answers

RUNS = "/api/v2/dags/flight_delay_rollout/dagRuns"
RUN = {"dag_run_id": "promoted__version_7", "state": "queued", "start_date": None, "end_date": None}


def start(answers: Answers, folder: Path) -> int:
    """The exit status of the command line for version 7."""
    promoted, password = folder / "promoted.json", folder / "password"
    model = PromotedModel(
        name="flight_delay", version=7, run_id="r", origin="o", code_commit="c", training_set="t"
    )
    promoted.write_text(model.model_dump_json())
    password.write_text("secret")
    return start_rollout.main(
        [
            *("--use-case", "flight_delay", "--promoted", str(promoted), "--airflow-url", answers.url),
            *("--airflow-password-file", str(password)),
        ]
    )


def test_it_is_started_for_the_version_that_came_and_not_twice(answers: Answers, tmp_path: Path) -> None:
    answers[RUNS] = (200, RUN)
    assert start(answers, tmp_path) == 0
    (posted,) = (body for path, _, body in answers.asked if path == RUNS)
    assert posted == {"dag_run_id": RUN["dag_run_id"], "logical_date": None, "conf": {"version": 7}}
    answers[f"{RUNS}/promoted__version_7"] = (200, RUN)
    answers.asked.clear()
    assert start(answers, tmp_path) == 0
    assert RUNS not in [path for path, _, _ in answers.asked]


def test_a_refusal_is_told(answers: Answers, tmp_path: Path) -> None:
    answers[RUNS] = (403, {"detail": "Forbidden"})
    assert start(answers, tmp_path) == EXIT_PERMANENT
