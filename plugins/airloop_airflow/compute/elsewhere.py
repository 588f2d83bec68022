"""The way of a task's job elsewhere: asked for, adopted or started, waited for, ended, and its result taken.

Belongs here: what is the same for every service. Does not belong here: what a service's requests look like
(`emr_serverless`, `sagemaker`, `batch`), or what a result means to the task (`airloop_airflow.jobs`).

A task that is killed and tried again must not have its job run twice at a time, nor again for nothing. A job
of an earlier try that still runs is adopted; the result of one that ended well meanwhile, and that nobody
took, is taken. One that a person had run again (its result was taken, or its job stopped) is started again.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.sdk.exceptions import AirflowException, TaskDeferred

from airloop.compute import RUNS_ELSEWHERE, Compute, EmrServerless, SageMaker
from airloop.cost.attempts import Attempt, write_attempt
from airloop.errors import SettingsError
from airloop.job_folder import (
    INPUTS,
    REQUEST,
    RESULT,
    STARTED,
    TAKEN,
    JobFolder,
    Request,
    Result,
    Started,
    require_reachable,
)
from airloop.settings import Settings, secret_settings, settings_elsewhere
from airloop_airflow.compute.batch import OnBatch
from airloop_airflow.compute.emr_serverless import OnEmrServerless
from airloop_airflow.compute.home import as_at_home, bring_home
from airloop_airflow.compute.names import names_of, stem_of, tags_of
from airloop_airflow.compute.sagemaker import OnSageMaker
from airloop_airflow.compute.service import CONNECTION, Asked, Service

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

log = logging.getLogger(__name__)

_SECRET: Final = re.compile(r"://[^/@\s]*:[^/@\s]+@|password=")
"""A password in an address."""
AGAIN: Final = "execute_again"
"""The task's method that begins anew once the service is ready."""
RESUME: Final = "resume"
"""The task's method that goes on once the job is over."""


class Ended(NamedTuple):
    """A job that is over."""

    status: int
    document: dict[str, Any] | None
    folder: JobFolder

    def take(self) -> None:
        """Say that the result is taken: another try would need a job of its own."""
        self.folder.put(TAKEN, "{}")


class Elsewhere:
    """The job of one try of a task, on the service that `place` names."""

    def __init__(self, task: BaseOperator, settings: Settings, place: Compute, instance: Any) -> None:
        self._task, self._settings, self._instance = task, settings, instance
        # Airflow's connection may name another account or endpoint than the machine's own credentials.
        client = S3Hook(aws_conn_id=CONNECTION, region_name=settings.aws_region).get_conn()
        self._stem = stem_of(settings.environment, instance)
        # The name is of no importance here: each job's folder is beside it.
        self._folder = JobFolder(f"{settings.jobs_uri}/{self._stem}", client, settings.kms_key)
        self._service = _service(place, settings)

    def begin(
        self, context: Any, request: Request, use_case: str | None, *, timeout: timedelta | None
    ) -> Ended:
        """Take the result of an earlier try, or raise `TaskDeferred` until a job is over: one that is there,
        or one that is started now.

        Raises `SettingsError` when the job lacks something elsewhere, and `AirflowException` when the service
        refuses it.
        """
        needs = RUNS_ELSEWHERE[request.module]
        require_reachable(self._settings, request.module, needs.settings)
        if (left := self._untaken(request)) is not None:
            return left
        for job in self._service.live(self._stem):
            log.info("%s runs %s already: it is waited for", self._service.title, job.name)
            folder = self._folder.sibling(job.name)
            self._write_started(folder, job.job_id)
            self._wait(job.job_id, job.name, timeout)
        folder = self._free()
        folder.clear()
        inputs = {}
        for field in needs.files:
            path: Path | None = getattr(self._settings, field)
            if path is not None:
                folder.put(f"{INPUTS}/{path.name}", path.read_bytes())
                inputs[field] = path.name
        copied_to = self._checkpoints.uri if self._service.needs_checkpoint_copies else None
        more = {"inputs": inputs, "checkpoints_uri": copied_to}
        folder.put(REQUEST, request.model_copy(update=more).model_dump_json())
        asked = Asked(
            name=folder.name,
            tags=tags_of(self._settings.environment, use_case, self._instance),
            folder=folder,
            several_hosts=needs.several_hosts,
            checkpoints_uri=self._checkpoints.uri,
        )
        operator = self._service.operator(self._task.task_id, asked)
        try:
            # Without Airflow's warning that an operator runs within another's task: it is meant to.
            inspect.unwrap(type(operator).execute)(operator, context)
        except TaskDeferred as deferred:
            job_id = self._service.job_id(operator)
            if job_id is None or deferred.method_name == "execute":
                # The service itself has to start first.
                raise TaskDeferred(
                    trigger=deferred.trigger, method_name=AGAIN, timeout=deferred.timeout
                ) from None
            self._write_started(folder, job_id)
            log.info("%s runs it as %s", self._service.title, folder.name)
            self._wait(job_id, folder.name, timeout)
        job_id = self._service.job_id(operator)
        assert job_id is not None  # it returned
        self._write_started(folder, job_id)
        return self.end(context, self._service.event(job_id), job_id=job_id, name=folder.name)

    def end(self, context: Any, event: Mapping[str, Any] | None, *, job_id: str, name: str) -> Ended:
        """What came of the job: its files are at home then, and what it used is written down.

        Raises `AirflowException` when it left no result, after it was stopped if it still runs.
        """
        folder = self._folder.sibling(name)
        self._write_usage(job_id)
        is_well = event is not None and event.get("status") == "success"
        found = folder.get(RESULT)
        if is_well:
            asked = Asked(name, {}, folder, several_hosts=False, checkpoints_uri=self._checkpoints.uri)
            operator: Any = self._service.operator(self._task.task_id, asked)
            operator.execute_complete(context, event)
        if found is None:
            self._service.stop(job_id)
            said = (
                "ended well but left no result"
                if is_well
                else f"failed: {(event or {}).get('message', event)}"
            )
            raise AirflowException(f"{name} on {self._service.title} {said}")
        return self._ended(folder, Result.model_validate_json(found))

    def stop(self) -> None:
        """Stop whichever job of the task runs."""
        for job in self._service.live(self._stem):
            log.info("%s is stopped on %s", job.name, self._service.title)
            self._service.stop(job.job_id)

    def forget_checkpoints(self) -> None:
        """Remove what interrupted tries left: the task has its result."""
        self._checkpoints.clear()

    @property
    def _checkpoints(self) -> JobFolder:
        return self._folder.sibling(f"checkpoints/{self._stem.rstrip('-')}")

    def _wait(self, job_id: str, name: str, timeout: timedelta | None) -> None:
        raise TaskDeferred(
            trigger=self._service.trigger(job_id),
            method_name=RESUME,
            kwargs={"job_id": job_id, "name": name},
            timeout=timeout,
        )

    def _untaken(self, request: Request) -> Ended | None:
        """The result of a job of this task that ended well, for the same request, and that nobody took."""
        for folder in self._folder.siblings(self._stem):
            found, asked = folder.get(RESULT), folder.get(REQUEST)
            if found is None or asked is None or folder.get(TAKEN) is not None:
                continue
            result = Result.model_validate_json(found)
            if result.status != 0 or not Request.model_validate_json(asked).is_for_the_same(request):
                continue
            log.info("%s ended well before it could be taken: it is taken now", folder.name)
            if (started := folder.get(STARTED)) is not None:
                self._write_usage(Started.model_validate_json(started).job_id)
            return self._ended(folder, result)
        return None

    def _ended(self, folder: JobFolder, result: Result) -> Ended:
        brought = bring_home(self._settings, folder)
        log.info("%s ended with exit status %d; %d files brought home", folder.name, result.status, brought)
        return Ended(result.status, as_at_home(self._settings, result), folder)

    def _free(self) -> JobFolder:
        """The folder of the first name that no job has had."""
        for name in names_of(self._stem, self._instance.try_number):
            folder = self._folder.sibling(name)
            if folder.get(STARTED) is None and not self._service.has_had(name):
                return folder
        raise AirflowException(f"There are too many jobs called {self._stem}*: remove old ones from S3.")

    def _write_started(self, folder: JobFolder, job_id: str) -> None:
        folder.put(STARTED, Started(job_id=job_id, started=datetime.now(UTC).isoformat()).model_dump_json())

    def _write_usage(self, job_id: str) -> None:
        """Write down what the job is charged for, so that budgets count it. Nothing fails for its sake."""
        with suppress(Exception):
            used = self._service.used(job_id)
            if used is None:
                return
            instance = self._instance
            write_attempt(
                self._settings,
                Attempt(
                    use_case=getattr(self._task, "use_case", None),
                    dag_id=instance.dag_id,
                    run_id=instance.run_id,
                    task_id=instance.task_id,
                    map_index=instance.map_index,
                    try_number=instance.try_number,
                    module=getattr(self._task, "module", ""),
                    started=used.began,
                    measured=used.began + timedelta(seconds=used.billed_seconds),
                    ended=True,
                    cpu_seconds=used.cpu_seconds,
                    memory_gib_seconds=used.memory_gib_seconds,
                ),
            )
            return
        log.warning("what %s used could not be written down", job_id)


def request_of(
    settings: Settings,
    module: str,
    flags: tuple[str, ...],
    environment: Mapping[str, str],
    *,
    connections: tuple[str, ...],
    optional_connections: tuple[str, ...],
) -> Request:
    """The request for `module`; `environment` is what the run adds to the settings'."""
    needs = RUNS_ELSEWHERE[module]
    given = settings_elsewhere(settings)
    told = sorted(name for name, value in given.items() if _SECRET.search(value))
    if told:
        raise SettingsError(
            expected=f"no secret in {', '.join(told)}: it would lie on S3",
            found="a password",
            next_step="mount it as a secret (AIRLOOP_SECRETS_DIR), and create its like in Secrets Manager",
        )
    urls = [str(getattr(settings, name) or "") for name in needs.settings]
    return Request(
        module=module,
        flags=flags,
        environment={**given, **environment},
        connections=connections,
        optional_connections=optional_connections,
        secret_settings=tuple(name for name in secret_settings(settings) if name in needs.settings),
        secrets_prefix=settings.secrets_prefix,
        needs_database_passwords=any(url.startswith("postgresql") for url in urls),
        several_hosts=needs.several_hosts,
    )


def _service(place: Compute, settings: Settings) -> Service:
    if isinstance(place, EmrServerless):
        return OnEmrServerless(place, settings)
    if isinstance(place, SageMaker):
        return OnSageMaker(place, settings)
    assert place.kind == "batch"  # a process is not elsewhere
    return OnBatch(place, settings)
