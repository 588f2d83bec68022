"""Traces of runs: what the span of a job's task says, what the job is handed of it, and what leads on to the
runs that the task's Assets start.

Belongs here: what a task adds to Airflow's own spans. Does not belong here: those spans (Airflow makes one of
each run, task and worker where its setting `[traces] otel_on` says so), or the job's (`airloop.jobs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from opentelemetry import trace
from structlog.contextvars import bind_contextvars

from airloop.settings import Settings
from airloop.traces import carried, from_headers, to_environment

CARRIER: Final = "traceparent"
"""Under which an Asset's event carries, in its extra, the span of the task that made it."""


def job_environment(context: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, str]:
    """The variables that make the job's span one below its task's.

    The task's span gets the attributes `about` that have a value, the runs and tasks whose events started
    this run (`airloop.started_by`), and links to their spans. Events that the task is to make lead to it.
    """
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attributes({name: str(value) for name, value in about.items() if value})
        events = list(_events(context))
        # An event that was made by hand has no source.
        sources = {_source(event) for event in events if event.source_dag_id}
        span.set_attribute("airloop.started_by", sorted(sources))
        for event in events:
            above = trace.get_current_span(from_headers(_texts(event.extra))).get_span_context()
            if above.is_valid:
                span.add_link(above)
        _mark_events(context)
    return to_environment()


def bind_ids(settings: Settings, use_case: str | None) -> None:
    """Have the task log's further lines bear the trace's id and the use case, where lines are to be searched.

    Airflow puts the run's own ids there itself; its page shows what is bound, so people who read there are
    spared this.
    """
    if settings.log_format == "json":
        current = trace.get_current_span().get_span_context()
        ids = {"trace_id": f"{current.trace_id:032x}" if current.is_valid else None, "use_case": use_case}
        bind_contextvars(**{name: value for name, value in ids.items() if value})


def _events(context: Mapping[str, Any]) -> Iterable[Any]:
    return (
        event for of_asset in (context.get("triggering_asset_events") or {}).values() for event in of_asset
    )


def _source(event: Any) -> str:
    return f"{event.source_dag_id}/{event.source_run_id}/{event.source_task_id}"


def _texts(extra: Mapping[str, Any] | None) -> dict[str, str]:
    return {name: value for name, value in (extra or {}).items() if isinstance(value, str)}


def _mark_events(context: Mapping[str, Any]) -> None:
    task, events = context.get("task"), context.get("outlet_events")
    for asset in task.outlets if task is not None and events is not None else ():
        events[asset].extra[CARRIER] = carried()[CARRIER]
