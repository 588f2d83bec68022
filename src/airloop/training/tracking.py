"""A training's MLflow run: one that counts per training set and code, found again by its tags.

Belongs here: runs, their tags, metrics and artifacts. Does not belong here: the registry
(`airloop.registry`), or what is trained.

Runs are keyed by the training set's tag. One job at a time trains on a training set (the DAG sees to it), so
a run that is still marked as running when the next one starts has died.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from airloop.errors import RegistryError
from airloop.references import TrainingSet, Tuned
from airloop.registry import open_registry
from airloop.settings import Settings
from airloop.training.provenance import is_reproducible
from airloop.use_cases.spec import UseCase

USE_CASE: Final = "airloop.use_case"
AS_OF: Final = "airloop.as_of"
TRAINING_SET: Final = "airloop.training_set"
CODE_COMMIT: Final = "airloop.code_commit"
COMPLETE: Final = "airloop.complete"
"""Set last: every artifact of the run is there."""
VERDICT: Final = "airloop.verdict"
"""What the gate says of the run's candidate: `accepted` or `rejected`."""
REQUESTED_BECAUSE: Final = "airloop.requested_because"
"""Why it was trained, where a request said so."""
AIRFLOW_RUN: Final = "airloop.airflow_run"
"""The Airflow run that trained it, or asked for it last."""
TRAINING_PRICE: Final = "training_price"
"""Metric of a run: what its training cost, in the currency of the price table."""
TRAINING_SET_FILE: Final = "training_set.json"
REPORT: Final = "airloop.report"
"""Key of a run that has no model, but is about trainings: a study, or a cross-validation."""
REPORT_KIND: Final = "airloop.report_kind"
VERDICT_FILE: Final = "verdict.json"
VERDICT_PAGE: Final = "verdict.html"
_LONGEST_VALUE: Final = 500


def tags_of_run(use_case: UseCase, training_set: TrainingSet, commit: str) -> dict[str, str]:
    """What leads from a run to its data and its code."""
    return {
        "mlflow.runName": training_set.tag,
        USE_CASE: use_case.name,
        TRAINING_SET: training_set.tag,
        "airloop.training_table": training_set.table,
        "airloop.snapshot_id": str(training_set.snapshot_id),
        AS_OF: training_set.as_of,
        CODE_COMMIT: commit,
        **{f"airloop.source.{source.table}": str(source.snapshot_id) for source in training_set.sources},
    }


def params_of_run(use_case: UseCase, training_set: TrainingSet, tuned: Tuned | None = None) -> dict[str, str]:
    """Everything of the spec that shapes the model, the windows, and the study of the parameters if any."""
    policy = use_case.training
    return {
        "model_builder": policy.model_builder,
        **{name: repr(value) for name, value in policy.parameters.items()},
        "seed": str(policy.seed),
        "inputs": str(len(use_case.inputs)),
        "as_of": training_set.as_of,
        "train_rows": str(training_set.train_rows),
        "validation_rows": str(training_set.validation_rows),
        "test_rows": str(training_set.test_rows),
        **({"study": tuned.study} if tuned else {}),
    }


class TrainingRuns:
    """The runs of one use case's experiment."""

    def __init__(self, settings: Settings, use_case: UseCase) -> None:
        self._client: MlflowClient = open_registry(settings)
        self._experiment = self._ensure_experiment(settings, use_case.name)

    def start(self, tags: Mapping[str, str], params: Mapping[str, str]) -> str:
        """A new run, marked as running; runs of the same training set that died are marked as failed."""
        for died in self._of_training_set(tags[TRAINING_SET]):
            if died.info.status == RunStatus.to_string(RunStatus.RUNNING):
                self._client.set_terminated(died.info.run_id, RunStatus.to_string(RunStatus.FAILED))
        run_id: str = self._client.create_run(self._experiment, tags=dict(tags)).info.run_id
        self._client.log_batch(run_id, params=[Param(key, value) for key, value in params.items()])
        return run_id

    def finished_like(self, tags: Mapping[str, str], params: Mapping[str, str]) -> Run | None:
        """A complete run with the same tags and parameters, whose model a rerun would only make again.

        None when the code is not pinned by its commit: then a rerun trains anew.
        """
        if not is_reproducible(tags[CODE_COMMIT]):
            return None
        for run in self._of_training_set(tags[TRAINING_SET]):
            same_tags = all(run.data.tags.get(name) == value for name, value in tags.items())
            if same_tags and run.data.params == params and COMPLETE in run.data.tags:
                return run
        return None

    def report(
        self,
        kind: str,
        key: str,
        *,
        params: Mapping[str, str],
        metrics: Mapping[str, Sequence[float]],
        artifacts: Path,
    ) -> str:
        """A finished run about trainings, with each of `metrics` at steps 0, 1, ...; returns its id.

        It is found again by its `key`, and written over, as long as `params` are the same. Its training set
        is no tag of it, for it has no model that could go stale or remember a subject.
        """
        for run in self._client.search_runs([self._experiment], f"tags.`{REPORT}` = '{key}'"):
            if run.data.params == params:
                run_id = str(run.info.run_id)
                break
        else:
            tags = {"mlflow.runName": key, REPORT: key, REPORT_KIND: kind}
            run_id = str(self._client.create_run(self._experiment, tags=tags).info.run_id)
            self._client.log_batch(run_id, params=[Param(name, value) for name, value in params.items()])
        for name, values in metrics.items():
            for step, value in enumerate(values):
                self.log_metrics(run_id, {name: value}, step)
        self.log_artifacts(run_id, artifacts)
        self._client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))
        return run_id

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log `metrics` at `step`; the clock is MLflow's bookkeeping and enters no result."""
        now = int(time.time() * 1000)
        self._client.log_batch(run_id, [Metric(name, value, now, step) for name, value in metrics.items()])

    def log_artifacts(self, run_id: str, folder: Path) -> None:
        """Copy everything in `folder` to the run's artifacts."""
        self._client.log_artifacts(run_id, str(folder))

    def log_text(self, run_id: str, name: str, text: str) -> str:
        """Write `text` as the artifact `name`, in place of one that is there; returns its URI."""
        self._client.log_text(run_id, text, name)
        return self.artifact_uri(run_id, name)

    def artifact_uri(self, run_id: str, name: str) -> str:
        """Where the run's artifact `name` is."""
        return f"{self._client.get_run(run_id).info.artifact_uri}/{name}"

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set `tags` on the run."""
        shortened = {name: value[:_LONGEST_VALUE] for name, value in tags.items()}
        self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in shortened.items()])

    def finish(self, run_id: str) -> None:
        """Mark the run as complete."""
        self.tag(run_id, {COMPLETE: "true"})
        self._client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))

    def fail(self, run_id: str) -> None:
        """Mark the run as failed."""
        self._client.set_terminated(run_id, RunStatus.to_string(RunStatus.FAILED))

    def complete_run(self, run_id: str) -> Run:
        """The run, if training completed it; raises `RegistryError` otherwise."""
        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            run = None
        if run is None or COMPLETE not in run.data.tags:
            raise RegistryError(
                expected=f"a complete training run {run_id}",
                found="no such run" if run is None else f"one with status {run.info.status}",
                next_step="run airloop.training.train for the training set again",
            )
        return run

    def _of_training_set(self, tag: str) -> list[Run]:
        """The runs of one training set, newest first."""
        return list(
            self._client.search_runs([self._experiment], f"tags.`{TRAINING_SET}` = '{tag}'", max_results=200)
        )

    def _ensure_experiment(self, settings: Settings, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            # A server decides where artifacts go; over a bare database MLflow would write to the working
            # directory.
            bare = not settings.tracking_uri.startswith("http")
            location = (settings.state_dir / "mlflow" / "artifacts" / name).as_uri() if bare else None
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage != "active":
            raise RegistryError(
                expected=f"an active MLflow experiment {name}",
                found="one that was deleted",
                next_step=f"restore the experiment {name} in MLflow (mlflow experiments restore)",
            )
        return str(found.experiment_id)
