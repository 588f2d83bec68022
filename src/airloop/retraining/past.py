"""What was trained before, and what became of it: from MLflow's runs and the registry.

Belongs here: reading the outcome of each training. Does not belong here: what follows (`decision`).
Importing this module imports MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from mlflow.entities import Run, RunStatus
from mlflow.entities.model_registry import ModelVersion

from airloop.intervals import parse_instant
from airloop.registry import PROMOTED_BY, ROLLED_BACK, open_registry
from airloop.retraining.decision import Training
from airloop.serving_history import recorded_champion
from airloop.settings import Settings
from airloop.training.tracking import AS_OF, COMPLETE, TRAINING_PRICE, USE_CASE, VERDICT
from airloop.use_cases.spec import UseCase

LONGEST_OPEN: Final = timedelta(days=7)
"""What is not decided by then is not going to be: its DAG run failed, or nobody approved it."""
MOST_RUNS: Final = 200


def trainings_of(settings: Settings, spec: UseCase, at: datetime) -> tuple[Training, ...]:
    """The newest trainings, oldest first, and what has become of them by now, a while after `at` at most."""
    client = open_registry(settings)
    experiment = client.get_experiment_by_name(spec.name)
    if experiment is None:
        return ()
    found = client.search_runs(
        [experiment.experiment_id],
        f"tags.`{USE_CASE}` = '{spec.name}'",
        order_by=["attributes.start_time DESC"],
        max_results=MOST_RUNS,
    )
    registered = client.search_model_versions(f"name='{spec.model_name}'")
    versions = {version.run_id: version for version in sorted(registered, key=lambda one: int(one.version))}
    newest = max((int(version.version) for version in versions.values()), default=0)
    champion = recorded_champion(settings, spec.name)
    return tuple(
        Training(
            started(run),
            _outcome(run, versions, newest, champion, at),
            run.data.metrics.get(TRAINING_PRICE),
            as_of(run),
            run.info.run_id,
        )
        for run in reversed(list(found))
    )


def started(run: Run) -> datetime:
    """When `run` started, in UTC."""
    return datetime.fromtimestamp(run.info.start_time / 1000, UTC)


def as_of(run: Run) -> datetime | None:
    """The end of the data that `run` was trained and judged on."""
    found = run.data.tags.get(AS_OF)
    return parse_instant(found) if found else None


def _outcome(
    run: Run, versions: Mapping[str | None, ModelVersion], newest: int, champion: int | None, at: datetime
) -> Literal["won", "lost", "open", "failed"]:
    version = versions.get(run.info.run_id)
    tags = dict(version.tags) if version is not None else {}
    # A version that was given up once may have been tried again.
    if version is not None and int(version.version) == champion:
        return "won"
    if ROLLED_BACK in tags:
        return "lost"
    if PROMOTED_BY in tags:
        return "won"
    if version is not None and int(version.version) < newest:
        # Superseded: it was not tried to the end.
        return "failed"
    if run.data.tags.get(VERDICT) == "rejected":
        return "lost"
    died = RunStatus.to_string(RunStatus.RUNNING) != run.info.status and COMPLETE not in run.data.tags
    return "failed" if died or at - started(run) > LONGEST_OPEN else "open"
