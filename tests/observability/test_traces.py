"""Traces, as a real collector on loopback receives them: of a prediction, and of a task's job."""

from __future__ import annotations

import contextlib
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import get_current_span

from airloop.settings import PREFIX, REPOSITORY, Settings
from airloop.traces import span, tracing
from airloop_airflow.jobs import JobOperator
from tests.observability.collector import Collector, Received
from tests.observability.conftest import BROKEN_TRACE, PARENT, TRACE, Observed

RUN_ID = "scheduled__2026-01-01T00:00:00+00:00"
UPSTREAM = "00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203332-01"


def _only(spans: list[Received], name: str) -> Received:
    (found,) = [span for span in spans if span.name == name]
    return found


def test_one_trace_follows_a_prediction_from_the_client_to_the_model(observed: Observed) -> None:
    spans = [span for span in observed.collector.spans if span.trace_id == TRACE]
    request = _only(spans, "POST /v1/flight_delay/predict")
    features = _only(spans, "read features")
    call, served = (
        next(span for span in spans if span.service == service and span.name.endswith("/Predict"))
        for service in ("gateway", "model-server")
    )
    model = _only(spans, "run model")
    assert len(spans) == 5
    assert [span.service for span in (request, features, model)] == ["gateway", "gateway", "model-server"]
    assert request.parent_id == PARENT
    assert features.parent_id == call.parent_id == request.span_id
    assert served.parent_id == call.span_id
    assert model.parent_id == served.span_id
    assert not any(span.failed for span in spans)
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["http.request.id"] == observed.answer["request_id"]
    assert call.attributes["airloop.version"] == model.attributes["airloop.version"] == 7


def test_a_failure_shows_where_it_was_and_says_nothing_of_the_request(observed: Observed) -> None:
    spans = [span for span in observed.collector.spans if span.trace_id == BROKEN_TRACE]
    request, features = _only(spans, "POST /v1/flight_delay/predict"), _only(spans, "read features")
    assert len(spans) == 2
    assert request.failed
    assert features.failed
    assert features.attributes["error.type"] == "FeatureStoreDown"
    assert request.attributes["error.type"] == "503"
    assert [span.events for span in spans] == [0, 0], "an exception's message stays out of traces"
    told = str([span.attributes for span in observed.collector.spans])
    for value in ("N14228", "planted"):
        assert value not in told


def test_who_asks_how_the_programs_are_leaves_no_trace(observed: Observed) -> None:
    names = {span.name for span in observed.collector.spans if span.service in ("gateway", "model-server")}
    assert not any("readyz" in name or "Metadata" in name or "Status" in name for name in names)


@pytest.fixture
def run(tmp_path, monkeypatch, collector: Collector):
    """Runs the small job as a task of Airflow's, within a span like Airflow's own; returns that span."""
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}:{REPOSITORY / 'src'}")
    monkeypatch.setenv(f"{PREFIX}STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv(f"{PREFIX}OTLP_ENDPOINT", collector.endpoint)

    def start(events: Any = None, outlets: Any = (), **flags: Any) -> tuple[Any, dict[Asset, Any]]:
        kept = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(kept))
        made = {asset: SimpleNamespace(extra={}) for asset in outlets}
        task = JobOperator(
            task_id="small",
            module="tests.observability.small_job",
            use_case="flight_delay",
            flags=flags,
            outlets=list(outlets),
        )
        instance = SimpleNamespace(
            dag_id="d", run_id=RUN_ID, task_id="small", try_number=2, max_tries=2, map_index=-1
        )
        context = {"ti": instance, "task": task, "triggering_asset_events": events, "outlet_events": made}
        worker = provider.get_tracer("airflow").start_as_current_span("worker.small")
        with worker, contextlib.suppress(AirflowException, AirflowFailException):
            task.execute(context)
        return kept.get_finished_spans()[0], made

    return start


def test_a_job_is_a_child_of_its_task_and_says_its_interval(run, collector: Collector) -> None:
    worker, _ = run(start="2026-01-01", end="2026-01-02")
    above = worker.get_span_context()
    (job,) = [span for span in collector.spans if span.trace_id == f"{above.trace_id:032x}"]
    assert (job.service, job.name) == ("job", "job tests.observability.small_job")
    assert job.parent_id == f"{above.span_id:016x}"
    assert not job.failed
    expected = {
        "airloop.job": "tests.observability.small_job",
        "airloop.use_case": "flight_delay",
        "airloop.interval_start": "2026-01-01",
        "airloop.interval_end": "2026-01-02",
        "airflow.dag_id": "d",
        "airflow.run_id": RUN_ID,
        "airflow.task_id": "small",
        "airflow.try_number": 2,
    }
    assert job.attributes == expected
    assert {name: value for name, value in expected.items() if name.startswith("airloop.")} == {
        name: value for name, value in worker.attributes.items() if name != "airloop.started_by"
    }


@pytest.mark.parametrize(("end_as", "kind"), [("refused", "IntervalError"), ("broken", "ZeroDivisionError")])
def test_a_job_that_fails_fails_its_span_without_its_message(
    run, collector: Collector, end_as: str, kind: str
) -> None:
    worker, _ = run(**{"end-as": end_as})
    trace = f"{worker.get_span_context().trace_id:032x}"
    (job,) = [span for span in collector.spans if span.trace_id == trace]
    assert job.failed
    assert job.attributes["error.type"] == kind
    assert job.events == 0


def test_an_assets_event_carries_the_span_on_to_the_runs_that_it_starts(run) -> None:
    asset = Asset("candidate")
    event = SimpleNamespace(
        source_dag_id="up",
        source_run_id="r",
        source_task_id="t",
        extra={"traceparent": UPSTREAM, "days": ["2026-01-01"]},
    )
    by_hand = SimpleNamespace(source_dag_id=None, source_run_id=None, source_task_id=None, extra=None)
    worker, made = run(events={asset: [event, by_hand]}, outlets=[asset])
    assert [f"{link.context.span_id:016x}" for link in worker.links] == [UPSTREAM.split("-")[2]]
    assert worker.attributes["airloop.started_by"] == ("up/r/t",)
    above = worker.get_span_context()
    assert made[asset].extra["traceparent"].startswith(f"00-{above.trace_id:032x}-{above.span_id:016x}-")


def test_without_an_endpoint_nothing_is_sent_and_nothing_is_started(
    run, monkeypatch, collector: Collector
) -> None:
    monkeypatch.delenv(f"{PREFIX}OTLP_ENDPOINT")
    # Another collector of the deployment's, which is no wish for our spans.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    before, threads = len(collector.spans), threading.active_count()
    with tracing(Settings(), "gateway") as tracer, span("below nothing") as begun:
        assert tracer is None
        assert begun is get_current_span()
        assert threading.active_count() == threads
    worker, _ = run()
    assert len(collector.spans) == before
    (result,) = Settings().scratch_dir.glob("results/*.json")
    assert result.read_text("utf-8") == '{"threads": 1, "has_sdk": false}'
    assert worker.name == "worker.small"


def test_a_collector_that_is_down_costs_no_job(run, monkeypatch) -> None:
    monkeypatch.setenv(f"{PREFIX}OTLP_ENDPOINT", "http://127.0.0.1:9")
    run()
    (result,) = Settings().scratch_dir.glob("results/*.json")
    assert '"has_sdk": true' in result.read_text("utf-8")
