"""What clients asked: the same requests in both worlds, some of them as if they had been asked in 2013.

Belongs here: asking the gateway, and dating its records back. Does not belong here: what is made of them.

Monitoring, skew and labels are about hours that are over, and the gateway answers now. So its own records of
some requests are put into its spool a second time, under other names and at the moment that each is about.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Final

import httpx

from airloop import audit_log
from airloop.intervals import Interval
from airloop.prediction_log.spool import line_of, segments_of
from airloop.upcoming import upcoming_requests
from airloop.use_cases.catalogue import use_case
from tests.faults.survival.world import World

ASKED_THEN: Final = 240
"""A day: monitoring judges no window of fewer than 200."""
ASKED_NOW: Final = 20
WRITER: Final = "0" * 32
"""The name of a gateway process that never was."""


def ask(world: World, name: str, day: Interval) -> None:
    """Ask about upcoming events; and, for each of the two days before the start of `day`, dated back."""
    spec = use_case(name)
    soon = Interval(day.start + spec.prediction_lead, day.end)
    for number, body in enumerate(upcoming_requests(world.settings, spec, soon, ASKED_NOW)):
        _ask(world, name, f"now-{number}", body)
    for ago in (2, 1):
        start = day.start - timedelta(days=ago)
        then = Interval(start + spec.prediction_lead, start + timedelta(days=1))
        for number, body in enumerate(upcoming_requests(world.settings, spec, then, ASKED_THEN)):
            _ask(world, name, f"then-{ago}-{number}", body)
    _date_back(world)


def begin_a_new_audit_log(world: World) -> None:
    """Put the log aside, as after a loss: the champion of before then counts as that of any time before."""
    log = audit_log.audit_log_file(world.settings)
    log.rename(log.with_name("before.jsonl"))


def _ask(world: World, name: str, request_id: str, body: str) -> None:
    answer = httpx.post(
        f"{world.settings.gateway_url}/v1/{name}/predict",
        content=body,
        headers={"content-type": "application/json", "X-Request-ID": request_id},
        timeout=60,
    )
    answer.raise_for_status()


def _date_back(world: World) -> None:
    folder = world.settings.prediction_spool_dir
    # The last try of a request is the one whose answer came.
    records: dict[str, dict[str, Any]] = {}
    for segment in segments_of(folder):
        for line in segment.lines():
            record = json.loads(line)["record"]
            if record["request_id"].startswith("then-"):
                records[record["request_id"]] = record
    lines = []
    for number, (request_id, record) in enumerate(sorted(records.items()), start=1):
        dated = {
            **record,
            "request_id": f"dated-{request_id}",
            "trace_id": WRITER,
            "predicted_at": record["prediction_time"],
            "latency_seconds": 0.01,
            "model_seconds": 0.001,
        }
        lines.append(line_of(WRITER, number, json.dumps(dated)))
    if len(lines) < 2 * ASKED_THEN:
        raise ValueError(f"only {len(lines)} answers of {2 * ASKED_THEN} are in the gateway's spool")
    (folder / f"{WRITER}-{1:08}.jsonl").write_bytes(b"".join(lines))
