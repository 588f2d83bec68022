"""The one place that turns a job of the use case into an Airflow operator.

Belongs here: where a job runs, how its process is started, followed and stopped, and what its exit status
means to Airflow. Does not belong here: what a job does, which jobs a DAG has, or the services of a cloud
(`compute`). A job is a process of its worker, unless the setting `compute` has those of its dependency group
run elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import BaseHook, BaseOperator, XComArg
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
    TaskDeferralError,
    TaskDeferralTimeout,
)

from airloop.compute import Compute, Process, group_of, place_of
from airloop.connections import variable_of
from airloop.cost.attempts import Attempt, write_attempt
from airloop.cost.meter import Meter
from airloop.errors import EXIT_PERMANENT, AirloopError
from airloop.outages import next_step_of, reason_of_status
from airloop.settings import Settings, environment_of, load_settings
from airloop.use_cases.spec import UseCase
from airloop_airflow import figures
from airloop_airflow.failures import PermanentFailure
from airloop_airflow.lineage import lineage_of, parent_environment
from airloop_airflow.policy import owned_by
from airloop_airflow.reports import ReportLink
from airloop_airflow.traces import bind_ids, job_environment

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airloop_airflow.compute.elsewhere import Elsewhere, Ended

USAGE_ERROR = 2
"""argparse's exit status for flags that it refuses: the same flags will be refused again."""
_ABOUT = {"airloop.interval_start": "start", "airloop.interval_end": "end", "airloop.as_of": "as-of"}
"""Attributes of the task's span, as of its job's, and the flags that say them."""


class JobOperator(BaseOperator):
    """Runs `python -m <module> --use-case <use_case> --<flag> <value> ...` and returns its result document.

    `flags` maps names to values; a mapping is passed as JSON, and a flag whose value is None or empty is left
    out, so that an empty field of the trigger form means the job's own default. The job's lines appear in the
    task's log as they come. A job that ends with `EXIT_PERMANENT` fails the task without another try, with
    what was expected, what was found and what to do next; any other failure is retried, and says its reason
    and the next step too. Stopping the task stops the job's whole process group.

    The task waits in the queue of its job's dependency group unless it has one of its own: workers with that
    group's packages take it. LocalExecutor has no queues, and runs it all the same. A job that runs elsewhere
    (`airloop.compute`) is waited for by the triggerer, and stopped with the task.

    `connections` are Airflow connections that the job needs: they reach its process in the environment, never
    its command line or log. Where one is not defined, the task is skipped with `skip_without_connections`,
    else it fails; `optional_connections` are given where they are defined. `has_report` puts a button on the
    task that opens the report which the job wrote.

    The figures in the document are sent on for dashboards (`figures`).

    A job that finds nothing to do says why in `skipped` of its result: the task is skipped, and what follows
    it.

    `each` names a list in the result document, for another job to be mapped over: it is returned in the
    document's place, whose fields are then XComs of their own. `mapped_job_task` makes that other job's task,
    which gives each instance its `mapped_value` as `mapped_flag`.
    """

    template_fields: Sequence[str] = ("flags", "mapped_value")
    ui_color = "#e7f0fa"

    def __init__(
        self,
        *,
        module: str,
        use_case: str | None,
        flags: Mapping[str, Any],
        connections: Sequence[str] = (),
        optional_connections: Sequence[str] = (),
        skip_without_connections: bool = False,
        has_report: bool = False,
        each: str | None = None,
        mapped_flag: str | None = None,
        mapped_value: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"queue": group_of(module), **kwargs})
        self.module = module
        self.use_case = use_case
        self.flags = dict(flags)
        self.connections = tuple(connections)
        self.optional_connections = tuple(optional_connections)
        self.skip_without_connections = skip_without_connections
        self.each = each
        self.mapped_flag = mapped_flag
        self.mapped_value = mapped_value
        self.report_uri: str | None = None
        self.result: dict[str, Any] | None = None
        if has_report:
            self.operator_extra_links = (ReportLink(),)
        self._process = SubprocessHook()
        self._remote: Elsewhere | None = None

    def execute(self, context: Any) -> dict[str, Any] | list[Any]:
        """Run the job; returns the reference that it wrote, or the list in it that is mapped over.

        Raises `AirflowFailException` for a failure that a retry cannot mend, else `AirflowException`.
        """
        return self.run_job(context)

    def run_job(self, context: Any) -> dict[str, Any] | list[Any]:
        """As `execute`, for operators that run their job more than once."""
        settings = load_settings()
        place = place_of(settings.compute, self.module)
        instance = context["ti"]
        about = {name: self.flags.get(flag) for name, flag in _ABOUT.items()}
        about |= {"airloop.job": self.module, "airloop.use_case": self.use_case}
        connections = self._connections()
        of_run = {
            **parent_environment(self, instance),
            **job_environment(context, about),
            **({} if self.mapped_flag is None else {"AIRFLOW_CTX_MAP_INDEX": str(instance.map_index)}),
            "AIRFLOW_CTX_DAG_ID": instance.dag_id,
            "AIRFLOW_CTX_DAG_RUN_ID": instance.run_id,
            "AIRFLOW_CTX_TASK_ID": instance.task_id,
            "AIRFLOW_CTX_TRY_NUMBER": str(instance.try_number),
            "PYTHONUNBUFFERED": "1",
        }
        bind_ids(settings, self.use_case)
        if not isinstance(place, Process):
            return self._begin_elsewhere(context, settings, place, connections, of_run)
        parts = [instance.dag_id, instance.run_id, instance.task_id]
        if self.mapped_flag is not None:
            parts.append(str(instance.map_index))
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", ".".join(parts))
        result_file = settings.scratch_dir / "results" / f"{name}.json"
        result_file.unlink(missing_ok=True)
        given = {variable_of(connection_id): text for connection_id, text in connections.items()}
        command = [sys.executable, "-m", "airloop.background", sys.executable, "-m", self.module]
        with self._meter(instance, settings):
            status = self._process.run_command(
                [*command, *self._command_flags(), "--result", str(result_file)],
                env={**os.environ, **environment_of(settings), **given, **of_run},
                cwd=str(settings.repository),
            ).exit_code
        document = json.loads(result_file.read_text("utf-8")) if result_file.exists() else None
        return self._finish(context, status, document)

    def _begin_elsewhere(
        self,
        context: Any,
        settings: Settings,
        place: Compute,
        connections: Mapping[str, str],
        of_run: Mapping[str, str],
    ) -> dict[str, Any] | list[Any]:
        """Start the job elsewhere, or find it there; raises `TaskDeferred` until it is over."""
        # Imported here, as all of `compute`: the provider takes a second, and parsing a DAG needs none of it.
        from airloop_airflow.compute.elsewhere import request_of

        try:
            request = request_of(
                settings,
                self.module,
                tuple(self._command_flags()),
                of_run,
                connections=tuple(name for name in self.connections if name in connections),
                optional_connections=tuple(name for name in self.optional_connections if name in connections),
            )
            ended = self._elsewhere(context, settings, place).begin(
                context, request, self.use_case, timeout=self.execution_timeout
            )
        except AirloopError as error:
            raise PermanentFailure(error.as_document()) from None
        return self._take(context, ended)

    def execute_again(self, context: Any, event: Any = None) -> dict[str, Any] | list[Any]:
        """Anew, now that the service which is to run the job has started."""
        return self.execute(context)

    def resume(self, context: Any, event: Any, job_id: str, name: str) -> dict[str, Any] | list[Any]:
        """Go on, now that the job elsewhere is over, or its time is."""
        settings = load_settings()
        bind_ids(settings, self.use_case)
        elsewhere = self._elsewhere(context, settings, place_of(settings.compute, self.module))
        return self._take(context, elsewhere.end(context, event, job_id=job_id, name=name))

    def _take(self, context: Any, ended: Ended) -> dict[str, Any] | list[Any]:
        try:
            result = self._finish(context, ended.status, ended.document)
        except AirflowSkipException:
            # Whoever has the task run again wants it to look again.
            ended.take()
            raise
        ended.take()
        if self._remote is not None:
            self._remote.forget_checkpoints()
        return result

    def _elsewhere(self, context: Any, settings: Settings, place: Compute) -> Elsewhere:
        from airloop_airflow.compute.elsewhere import Elsewhere

        self._remote = Elsewhere(self, settings, place, context["ti"])
        return self._remote

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any
    ) -> dict[str, Any] | list[Any]:
        """As Airflow does; a task that fails while its job runs elsewhere stops the job.

        Not where only the waiting went wrong and there is another try: that one adopts the job.
        """
        try:
            result: dict[str, Any] | list[Any] = super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            instance = context["ti"]
            if isinstance(error, TaskDeferralError) and instance.try_number <= instance.max_tries:
                raise
            settings = load_settings()
            place = place_of(settings.compute, self.module)
            if not isinstance(place, Process):
                self._elsewhere(context, settings, place).stop()
            raise
        return result

    def _command_flags(self) -> list[str]:
        """The job's flags, as its command line has them."""
        flags = {"use-case": self.use_case, **self.flags}
        if self.mapped_flag is not None:
            flags[self.mapped_flag] = self.mapped_value
        found = []
        for flag, value in flags.items():
            if value is None or value == "":
                continue
            found += [f"--{flag}", _as_text(value)]
        return found

    def _finish(
        self, context: Any, status: int, document: dict[str, Any] | None
    ) -> dict[str, Any] | list[Any]:
        """What a job's exit status and result document mean to the task."""
        if status == EXIT_PERMANENT and document and "error" in document:
            error = document["error"]
            self.report_uri = error.get("report_uri")
            raise PermanentFailure(error)
        if status == USAGE_ERROR:
            raise AirflowFailException(f"{self.module} refused its flags; the log above says which and why.")
        if status != 0:
            raise AirflowException(self._failed(context["ti"], status, document))
        if document is None:
            raise AirflowException(f"{self.module} ended well but wrote no result.")
        result: dict[str, Any] = document
        if result.get("skipped"):
            raise AirflowSkipException(result["skipped"])
        self.report_uri = result.get("data_docs_uri") or result.get("page_uri")
        self.result = result
        if "start" in result and "end" in result:
            # Whom the event starts, it tells which days it is about.
            for outlet in self.outlets:
                context["outlet_events"][outlet].extra.update(start=result["start"], end=result["end"])
        figures.send(self.module, self.use_case, self.flags, result, context)
        if self.each is None:
            return result
        for name, value in result.items():
            # Nothing is an XCom that is not there; as a flag, both are left out.
            context["ti"].xcom_push(key=name, value="" if value is None else value)
        listed: list[Any] = result[self.each]
        return listed

    def _failed(self, instance: Any, status: int, document: dict[str, Any] | None) -> str:
        """What on-call reads of a job that ended badly and not on purpose."""
        reason = (document or {}).get("failure") or reason_of_status(status)
        goes_on = (
            "It is tried again by itself."
            if instance.try_number <= instance.max_tries
            else "No try is left: clear the task once that is done."
        )
        return f"{self.module} failed: {reason}. Next: {next_step_of(reason)}. {goes_on}"

    def _meter(self, instance: Any, settings: Settings) -> Meter:
        """Writes down what the job's processes use."""
        now = datetime.now(UTC)
        attempt = Attempt(
            use_case=self.use_case,
            dag_id=instance.dag_id,
            run_id=instance.run_id,
            task_id=instance.task_id,
            map_index=instance.map_index,
            try_number=instance.try_number,
            module=self.module,
            started=now,
            measured=now,
        )
        # Each job has a process of its own, also where an operator runs several.
        earlier = self._process.sub_process

        def pid() -> int | None:
            process = self._process.sub_process
            return None if process is None or process is earlier else process.pid

        return Meter(attempt, pid, partial(write_attempt, settings))

    def _connections(self) -> dict[str, str]:
        """The job's connections by their ids, in Airflow's own JSON form."""
        found = {}
        for connection_id in (*self.connections, *self.optional_connections):
            try:
                found[connection_id] = BaseHook.get_connection(connection_id).as_json()
            except AirflowNotFoundException:
                if connection_id in self.optional_connections:
                    continue
                if self.skip_without_connections:
                    raise AirflowSkipException(
                        f"There is no connection {connection_id}, so this is switched off here; add the "
                        "connection (Admin, Connections) to switch it on."
                    ) from None
                raise AirflowFailException(
                    f"expected the connection {connection_id}; found none. Next: add it (Admin, Connections)."
                ) from None
        return found

    def get_openlineage_facets_on_start(self) -> OperatorLineage:
        """What the job will read, for the listener's START event."""
        return lineage_of(self.module, self.use_case, self.flags, None)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage:
        """What the job read and wrote, for the COMPLETE event; nothing for a task that was skipped."""
        use_case = self.use_case if self.result is not None else None
        return lineage_of(self.module, use_case, self.flags, self.result)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage:
        """What the job was to read, for the FAIL event: what it wrote, no reference says."""
        return lineage_of(self.module, self.use_case, self.flags, None)

    def on_kill(self) -> None:
        """Stop the job's process group, or the job elsewhere."""
        if self._remote is not None:
            self._remote.stop()
        if self._process.sub_process is not None and self._process.sub_process.poll() is None:
            self._process.send_sigterm()


def _as_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        # What the instances of a mapped task returned comes as a lazy sequence.
        return json.dumps(list(value))
    return str(value)


def job_task(
    use_case: UseCase | None,
    task_id: str,
    module: str,
    flags: Mapping[str, Any],
    *,
    timeout: timedelta = timedelta(hours=2),
    **kwargs: Any,
) -> JobOperator:
    """The task `task_id` that runs the job `module` in this deployment, for `use_case` if it is one's job."""
    return JobOperator(
        task_id=task_id,
        module=module,
        use_case=use_case.name if use_case is not None else None,
        flags=flags,
        execution_timeout=timeout,
        **({} if use_case is None else owned_by(use_case)),
        **kwargs,
    )


def mapped_job_task(
    use_case: UseCase,
    task_id: str,
    module: str,
    flags: Mapping[str, Any],
    *,
    flag: str,
    values: XComArg,
    at_once: int,
    timeout: timedelta = timedelta(hours=2),
    **kwargs: Any,
) -> MappedOperator:
    """The task `task_id` once for each of `values`, the output of a task with `each`, passed as `flag`.

    At most `at_once` of a run's instances run at a time. The grid shows each with its value, and with the
    `summary` of its result document.
    """
    return JobOperator.partial(
        task_id=task_id,
        module=module,
        use_case=use_case.name,
        flags=flags,
        mapped_flag=flag,
        execution_timeout=timeout,
        max_active_tis_per_dagrun=at_once,
        # A mapped task asks the class for nothing of its instances.
        queue=kwargs.pop("queue", group_of(module)),
        map_index_template=f"{task_id} {{{{ task.mapped_value }}}}"
        "{% if task.result %}: {{ task.result.summary }}{% endif %}",
        **kwargs,
    ).expand(mapped_value=values)
