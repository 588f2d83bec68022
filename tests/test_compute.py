"""Which group each job is of, and which may run elsewhere."""

from __future__ import annotations

import pytest

from airloop.compute import RUNS_ELSEWHERE, STAYS, Process, SageMaker, group_of, place_of
from airloop.settings import Settings
from tests.job_modules import job_modules

NAMED = job_modules()


def test_the_jobs_are_found():
    assert {"airloop.training.train", "spark_jobs.ingest", "serving.stage"} <= set(NAMED)


@pytest.mark.parametrize("module", NAMED)
def test_of_each_heavy_job_it_is_said_whether_it_may_run_elsewhere(module):
    if module.startswith(("spark_jobs.", "feature_repo.", "airloop.training.")):
        assert (module in RUNS_ELSEWHERE) != (module in STAYS)


def test_what_may_run_elsewhere_is_a_job():
    assert set(RUNS_ELSEWHERE) | set(STAYS) <= set(NAMED)
    for needs in RUNS_ELSEWHERE.values():
        assert set(needs.settings) | set(needs.files) <= set(Settings.model_fields)


@pytest.mark.parametrize(
    ("module", "group"),
    [
        ("spark_jobs.ingest", "spark"),
        ("feature_repo.materialise", "spark"),
        ("airloop.training.train", "training"),
        ("airloop.monitoring.day_report", "training"),
        ("airloop.cost.record", "training"),
        ("airloop.retraining.decide", "training"),
        ("airloop.prediction_log.land", "serving"),
        ("serving.stage", "serving"),
        ("servings", "training"),
    ],
)
def test_the_group_of_a_job(module, group):
    assert group_of(module) == group


def test_only_what_may_run_elsewhere_does():
    place = SageMaker(kind="sagemaker", execution_role="arn:aws:iam::1:role/r", image="i")
    places = {"training": place}
    assert place_of(places, "airloop.training.train") is place
    assert place_of(places, "airloop.training.register") == Process()
    assert place_of(places, "spark_jobs.ingest") == Process()
    assert place_of({}, "airloop.training.train") == Process()
