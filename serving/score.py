"""Job: batch scores: what the champion says of each event of an interval, in a table.

    python -m serving.score --use-case NAME --start 2026-11-20 --end 2026-11-21 --snapshot-id 123

Belongs here: asking the champion, and the table of scores. Does not belong here: which events, and with which
features (`spark_jobs.scoring_set`).

Only the champion scores, and one version scores a whole interval: it is asked by number, so that a promotion
in between changes nothing. The interval's rows are replaced in one commit.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pyiceberg.expressions import And, GreaterThanOrEqual, LessThan
from pyiceberg.transforms import MonthTransform

from airloop.airflow_run import run_id
from airloop.errors import RolloutError
from airloop.intervals import Interval, make_interval, parse_instant
from airloop.jobs import run_job
from airloop.lakehouse.catalog import load_table, open_catalog, read_snapshot
from airloop.lakehouse.provenance import signature
from airloop.lakehouse.replace import despite_conflicts
from airloop.prediction_log import answers
from airloop.references import Scored
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from serving.model_server_client import CHAMPION, ModelServer

log = logging.getLogger(__name__)

ROWS_AT_ONCE: Final = 1000
"""Below the model server's largest batch (`serving/batching.config`)."""
TIMEOUT_SECONDS: Final = 60.0
ARROW_SCHEMA: Final = pa.schema(
    [
        pa.field("prediction_time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("request", pa.string(), nullable=False),
        pa.field(answers.COLUMN, pa.list_(pa.float64()), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
    ]
)
_TIME: Final = "prediction_time"


def score(settings: Settings, spec: UseCase, interval: Interval, snapshot_id: int) -> Scored:
    """Score the events of `interval` in `snapshot_id` of the scoring set.

    Raises `RolloutError` where no champion serves, or it answers what is no finite number; what the table had
    of the interval is then still there.
    """
    catalog = open_catalog(settings)
    names = [item.name for item in spec.inputs]
    wanted = And(
        GreaterThanOrEqual(_TIME, interval.start.isoformat()), LessThan(_TIME, interval.end.isoformat())
    )
    asked = load_table(catalog, f"scoring.{spec.name}_requests")
    rows = read_snapshot(asked, snapshot_id, [*names, _TIME, "request"], wanted)
    with ModelServer.of(settings) as server:
        version = server.labelled(spec.model_name, CHAMPION)
        if version is None:
            raise RolloutError(
                expected=f"a champion of {spec.name} on the model server",
                found="none",
                next_step=f"run {spec.name}_training and {spec.name}_rollout first; batch scores are the "
                "champion's alone",
            )
        answered = _asked(spec, server, version, rows)
    scores = pa.table(
        {
            _TIME: rows[_TIME].cast(ARROW_SCHEMA.field(_TIME).type),
            "request": rows["request"].cast(pa.string()),
            answers.COLUMN: pa.array(answered, pa.list_(pa.float64())),
            "version": pa.array([version] * len(rows), pa.int64()),
        },
        schema=ARROW_SCHEMA,
    )
    name = f"scoring.{spec.name}"
    table = catalog.create_table_if_not_exists(name, schema=ARROW_SCHEMA)
    if table.spec().is_unpartitioned():
        with table.update_spec() as update:
            update.add_field(_TIME, MonthTransform(), f"{_TIME}_month")
    said = {**signature(spec.name, interval), "airloop.version": str(version), "airloop.run": run_id()}

    def attempt() -> None:
        table.overwrite(scores, overwrite_filter=wanted, snapshot_properties=said)

    despite_conflicts(table, attempt)
    means = np.mean(answered, axis=0).tolist() if answered else []
    log.info("version %d scored %d events in %s", version, len(scores), name)
    return Scored(
        table=name,
        version=version,
        rows=len(scores),
        mean_answer=spec.label.named(means) if answered else None,
    )


def _asked(spec: UseCase, server: ModelServer, version: int, rows: pa.Table) -> list[tuple[float, ...]]:
    """The version's answer for each row."""
    inputs = server.inputs(spec.model_name, version)
    found: list[tuple[float, ...]] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = rows.slice(start, ROWS_AT_ONCE)
        columns = {item.name: _values(item.type, part[item.name]) for item in spec.inputs}
        answer = server.predict(spec, columns, version=version, timeout=TIMEOUT_SECONDS, inputs=inputs)
        found += answer.answers
    probable = spec.label.target.has_classes
    strange = [
        answer for answer in found if not all(map(_is_probability if probable else math.isfinite, answer))
    ]
    if strange or len(found) != len(rows):
        raise RolloutError(
            expected=f"version {version} to answer {len(rows)} events, each with "
            + ("probabilities" if probable else "finite numbers"),
            found=f"{len(found)} answers, {len(strange)} of them none, such as {strange[:3]}",
            next_step=f"roll the version back (action rollback of {spec.name}_rollout); no score was written",
        )
    return found


def _is_probability(number: float) -> bool:
    return 0 <= number <= 1


def _values(kind: str, column: pa.ChunkedArray) -> list[Any]:
    values = column.to_pylist()
    return [math.nan if value is None else value for value in values] if kind == "double" else values


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> Scored:
        interval = make_interval(parse_instant(arguments.start), parse_instant(arguments.end))
        return score(settings, use_case(arguments.use_case), interval, arguments.snapshot_id)

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--start", required=True, help="start of the interval, ISO 8601, UTC")
    parser.add_argument("--end", required=True, help="end of the interval, ISO 8601, UTC")
    parser.add_argument("--snapshot-id", type=int, required=True, help="of the scoring set")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
