"""What a job's result document says, as figures for dashboards and alert rules.

Belongs here: which documents have figures, under which names, and sending them as Airflow sends its own
metrics. Does not belong here: where they go (`airloop.stack.programs`, docker-compose.yaml), what becomes of
them on the way (serving/observability/statsd_mapping.yml), or messages to people (`monitoring`, `rollout`).

A gauge is what is so now. A past interval that is run again is history, and moves none; it is counted all the
same. Names and units are Prometheus' own (https://prometheus.io/docs/practices/naming/).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

from airflow.sdk.observability import stats

from airloop.intervals import parse_instant
from airloop_airflow.monitoring import NEWS, QUALITY_NEWS, SKEW_NEWS

log = logging.getLogger(__name__)

BACKFILL: Final = "backfill"
DATA_NEWS: Final = timedelta(days=2)
"""A day of data is published after it ended, and that may take a try or two."""
Document = Mapping[str, Any]


class Figure(NamedTuple):
    """One number."""

    name: str
    value: float | None
    """None where there is none: it is not sent."""
    labels: Mapping[str, str] = {}
    kind: Literal["gauge", "counter"] = "gauge"


class _Source(NamedTuple):
    """How to read the documents of one job."""

    read: Callable[[Document, Document], Iterator[Figure]]
    """From the document and the job's flags."""
    moment: Callable[[Document, Document], str | None] = lambda _document, _flags: None
    """What the gauges are of, ISO 8601; None where that is always the present."""
    news: timedelta = DATA_NEWS
    """How long after that moment a run is due at the latest, unless it is about the past."""


def send(module: str, use_case: str | None, flags: Document, document: Document, context: Any) -> None:
    """Send the figures of what the job `module` returned, if it has any.

    `context` is Airflow's; its run says whether this is about the present. Nothing fails for a figure's sake.
    """
    try:
        _send(module, use_case, flags, document, context)
    except Exception:
        # The job has done its work: tried again, a stage of a rollout would look a second time.
        log.exception("the figures of %s were not sent", module)


def _send(module: str, use_case: str | None, flags: Document, document: Document, context: Any) -> None:
    source = _SOURCES.get(module)
    if source is None:
        return
    moment = source.moment(document, flags)
    is_present = moment is None or _is_present(context["dag_run"], parse_instant(moment), source.news)
    for figure in figures_of(module, use_case, flags, document):
        if figure.kind == "counter":
            stats.incr(figure.name, int(figure.value or 0), tags=dict(figure.labels))
        elif is_present and figure.value is not None:
            stats.gauge(figure.name, float(figure.value), tags=dict(figure.labels))


def figures_of(module: str, use_case: str | None, flags: Document, document: Document) -> Iterator[Figure]:
    """The figures in the document of the job `module`; none of a job that has none."""
    source = _SOURCES.get(module)
    if source is None:
        return
    owner = {} if use_case is None else {"use_case": use_case}
    for figure in source.read(document, flags):
        labels = owner | {name: _label(value) for name, value in figure.labels.items()}
        yield figure._replace(labels=labels)


def _is_present(run: Any, moment: datetime, news: timedelta) -> bool:
    return str(run.run_type) != BACKFILL and run.run_after - moment <= news


def _label(value: str) -> str:
    """As the protocol takes it: it has no way to quote."""
    return stats.normalize_name_for_stats(value, log_warning=False)


def _seconds(moment: str) -> float:
    return parse_instant(moment).timestamp()


def _ingested(document: Document, flags: Document) -> Iterator[Figure]:
    for snapshot in document["snapshots"]:
        yield Figure("airloop_ingested_rows", snapshot["rows"], {"table": snapshot["table"]})
    yield Figure("airloop_duplicate_records", document["duplicates"])
    yield Figure("airloop_quarantined_records", document["quarantined"])


def _published(document: Document, flags: Document) -> Iterator[Figure]:
    for snapshot in document["snapshots"]:
        table = {"table": snapshot["table"]}
        yield Figure("airloop_published_rows", snapshot["rows"], table)
        yield Figure("airloop_published_until_timestamp_seconds", _seconds(flags["end"]), table)


def _materialised(document: Document, flags: Document) -> Iterator[Figure]:
    yield Figure(
        "airloop_features_until_timestamp_seconds", _seconds(document["end"]), {"way": "materialise"}
    )


def _pushed(document: Document, flags: Document) -> Iterator[Figure]:
    yield Figure("airloop_features_until_timestamp_seconds", _seconds(document["until"]), {"way": "push"})


def _landed(document: Document, flags: Document) -> Iterator[Figure]:
    for name, field in (
        ("predictions", "rows"),
        ("outcomes", "outcomes"),
        ("damaged_lines", "damaged_lines"),
    ):
        yield Figure(f"airloop_landed_{name}_total", document[field], kind="counter")


def _windows(document: Document, flags: Document) -> Iterator[Figure]:
    if document["last_end"] is None:
        return
    yield Figure("airloop_window_end_timestamp_seconds", _seconds(document["last_end"]))
    yield Figure("airloop_champion_version", document["version"])
    yield Figure("airloop_window_requests", document["requests"])
    yield Figure("airloop_window_failed_attempts", document["failed"])
    yield Figure("airloop_lost_traffic_alarm", document["lost_traffic"])
    for feature, distance in document["distances"].items():
        yield Figure("airloop_drift_distance", distance, {"feature": feature})
        yield Figure("airloop_drift_alarm", feature in document["alarmed"], {"feature": feature})


def _quality(document: Document, flags: Document) -> Iterator[Figure]:
    if document["last_day"] is None:
        return
    yield Figure("airloop_quality_day_timestamp_seconds", _seconds(document["last_day"]))
    yield Figure("airloop_quality_answers", document["answers"])
    yield Figure("airloop_quality_labelled_answers", document["labelled"])
    for name, value in document["figures"].items():
        if value is not None:
            yield Figure(f"airloop_quality_{name}", value)
    for name, value in document["usual"].items():
        yield Figure(f"airloop_quality_usual_{name}", value)
    yield Figure("airloop_decay_alarm", document["alarmed"])


def _skew(document: Document, flags: Document) -> Iterator[Figure]:
    for feature, share in document["unequal_shares"].items():
        yield Figure("airloop_skew_unequal_ratio", share, {"feature": feature})
        yield Figure("airloop_skew_alarm", feature in document["skewed"], {"feature": feature})


def _retraining(document: Document, flags: Document) -> Iterator[Figure]:
    outcome = "requested" if document["requested"] else document["refusal"] or "no_cause"
    yield Figure("airloop_retraining_decisions_total", 1, {"outcome": outcome}, "counter")


def _evaluated(document: Document, flags: Document) -> Iterator[Figure]:
    verdict = "accepted" if document["accepted"] else "rejected"
    yield Figure("airloop_candidates_total", 1, {"verdict": verdict}, "counter")
    for name, value in document["figures"].items():
        yield Figure(f"airloop_candidate_{name.removeprefix('test_')}", value)


def _stage(document: Document, flags: Document) -> Iterator[Figure]:
    look = {
        "version": str(document["version"]),
        "stage": document["stage"],
        "decision": document["decision"],
    }
    yield Figure("airloop_rollout_look_timestamp_seconds", _seconds(document["until"]), look)
    if document["decision"] != "hold":
        del look["version"]
        yield Figure("airloop_rollout_decisions_total", 1, look, "counter")


_SOURCES: Final[Mapping[str, _Source]] = {
    "spark_jobs.ingest": _Source(_ingested, lambda _document, flags: flags["end"]),
    "airloop.lakehouse.publish": _Source(_published, lambda _document, flags: flags["end"]),
    "feature_repo.materialise": _Source(_materialised, lambda document, _flags: document["end"]),
    "spark_jobs.push": _Source(_pushed, lambda document, _flags: document["until"]),
    "airloop.prediction_log.land": _Source(_landed),
    "airloop.monitoring.judge": _Source(_windows, lambda document, _flags: document["last_end"], NEWS),
    "airloop.monitoring.judge_quality": _Source(
        _quality, lambda document, _flags: document["last_day"], QUALITY_NEWS
    ),
    "spark_jobs.count_skew": _Source(_skew, lambda document, _flags: document["day"], SKEW_NEWS),
    "airloop.retraining.decide": _Source(_retraining),
    "airloop.training.evaluate": _Source(_evaluated),
    "serving.stage": _Source(_stage),
    "serving.experiment": _Source(_stage),
}
