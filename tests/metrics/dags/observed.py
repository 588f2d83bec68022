"""DAGs whose tasks do nothing but send what they would: read by `airflow_side`.

The jobs are stand-ins that write what real ones would; the operator, and what becomes of their documents, is
the product's.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, task

from airloop import references
from airloop.references import TableSnapshot
from airloop.use_cases.flight_delay import USE_CASE
from airloop_airflow.jobs import job_task

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
MIDNIGHT = NOW.replace(hour=0)
SPAN = {"start": (MIDNIGHT - timedelta(days=1)).isoformat(), "end": MIDNIGHT.isoformat()}
TABLE = TableSnapshot(table=f"clean.{USE_CASE.name}_flights", snapshot_id=1, rows=1000)


def documents() -> dict[str, dict[str, Any]]:
    """What each job that has figures returns, by its module."""
    decided = {
        "name": USE_CASE.model_name,
        "version": 4,
        "stage": "shadow",
        "decision": "go_on",
        "reason": "as good as the champion",
        "champion": 3,
        "since": NOW,
        "until": NOW,
    }
    of_module = {
        "spark_jobs.ingest": references.Ingested(snapshots=(TABLE,), duplicates=2, quarantined=1),
        "airloop.lakehouse.publish": references.Published(snapshots=(TABLE,)),
        "feature_repo.materialise": references.Materialised(feature_views=("origin_hourly",), **SPAN),
        "spark_jobs.push": references.Pushed(until=NOW.isoformat(), rows={"origin_hourly": 3}),
        "airloop.prediction_log.land": references.LandedPredictions(
            table="serving.predictions", rows=900, outcomes=40, files=2, damaged_lines=0
        ),
        "airloop.monitoring.judge": references.JudgedWindows(
            version=3,
            windows=1,
            last_end=NOW.isoformat(),
            requests=900,
            failed=4,
            alarmed=("wind_speed_mph",),
            distances={"wind_speed_mph": 0.31, "dew_point_f": 0.02},
        ),
        "airloop.monitoring.judge_quality": references.JudgedQuality(
            version=3,
            days=5,
            waiting=2,
            last_day=(MIDNIGHT - timedelta(days=2)).date().isoformat(),
            answers=1000,
            labelled=950,
            figures={
                "roc_auc": 0.71,
                "log_loss": 0.41,
                # A gauge below zero is told in two steps, and is not to be taken for a change.
                "gain": -0.02,
                # No label has both; every panel is to have something to draw.
                "skill": 0.3,
            },
            usual={"roc_auc": 0.74, "gain": 0.06, "skill": 0.4},
        ),
        "spark_jobs.count_skew": references.JudgedSkew(
            day=MIDNIGHT.date().isoformat(),
            rows=900,
            skewed=("dew_point_f",),
            unequal_shares={"dew_point_f": 0.2, "wind_speed_mph": 0.0},
        ),
        "airloop.retraining.decide": references.RetrainingDecision(
            version=3, causes=("drift",), refusal="cool-down", said="too soon"
        ),
        "airloop.training.evaluate": references.Evaluated(
            run_id="r",
            accepted=True,
            verdict_uri="v",
            figures={"test_roc_auc": 0.74, "test_log_loss": 0.4, "baseline_roc_auc": 0.7},
        ),
        "serving.stage": references.StageDecision(**decided),
        "serving.experiment": references.StageDecision(**(decided | {"stage": "experiment"})),
    }
    return {module: document.model_dump(mode="json") for module, document in of_module.items()}


def _fail() -> None:
    raise RuntimeError("as it should")


with DAG("jobs", schedule=None) as all_jobs:
    for _module in documents():
        job_task(USE_CASE, _module.rsplit(".", 1)[1], _module, SPAN)
with DAG("short", schedule=None) as short:
    task(task_id="well")(lambda: None)()
with DAG("failing", schedule=None) as failing:
    task(task_id="ill")(_fail)()
