"""Job: how good the champion's answers were, day by day, once enough of a day's labels are in.

    python -m airloop.monitoring.judge_quality --use-case NAME --version 3 --run-id ... --end ...

Belongs here: from scores in their table to days in theirs. Does not belong here: the sums (`scores`), the
verdict on a day (`decay`), or who is told.

Days are UTC days of the answers. One is judged again whenever this runs, for as long as its labels may still
come in, so that a late label counts.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import reduce
from typing import Any, Final

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import And, EqualTo

from airloop.airflow_run import run_id
from airloop.intervals import ONE_DAY, Interval
from airloop.jobs import run_job
from airloop.lakehouse.catalog import open_catalog
from airloop.lakehouse.properties import RUN_ID
from airloop.lakehouse.provenance import signature
from airloop.monitoring import score_table
from airloop.monitoring.arguments import moment_of, span_of, watching_parser
from airloop.monitoring.decay import Quality, decay_alarmed, quality
from airloop.monitoring.profile import Profile, kept_profile
from airloop.monitoring.score_table import COUNTED_LABELS, counted_labels, days_needed, scores_in
from airloop.monitoring.scores import EVERYTHING, Figures, Scores, Scoring, scoring_of
from airloop.monitoring.silences import silences_of
from airloop.monitoring.tables import ending_in, existing, replace_rows
from airloop.references import JudgedQuality
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.retraining_policy import DECAY
from airloop.use_cases.spec import UseCase

log = logging.getLogger(__name__)

USUAL: Final = "usual_"
"""What the column of a figure's mean over the test days begins with."""


def table_name(spec: UseCase) -> str:
    """The table of a use case's quality, a row for each day and slice."""
    return f"monitoring.{spec.name}_quality"


def arrow_schema(scoring: Scoring) -> pa.Schema:
    """The table's columns. Only the slice "", all answers, is judged: `p_value` is null of others."""
    usual = [f"{USUAL}{figure.name}" for figure in scoring.tested]
    measured = [figure.name for figure in scoring.measured]
    return pa.schema(
        [
            pa.field("day_end", pa.timestamp("us", tz="UTC"), nullable=False),
            pa.field("version", pa.int64(), nullable=False),
            pa.field("slice", pa.string(), nullable=False),
            pa.field("answers", pa.int64(), nullable=False),
            pa.field("labelled", pa.int64(), nullable=False),
            *(pa.field(name, pa.float64()) for name in (*measured, *usual, "p_value")),
            pa.field("decayed", pa.bool_(), nullable=False),
            pa.field("alarmed", pa.bool_(), nullable=False),
        ]
    )


def judge_quality(
    settings: Settings,
    spec: UseCase,
    profile: Profile,
    version: int,
    span: Interval,
    at: datetime | None = None,
) -> JudgedQuality:
    """Judge the days of `span`, of whole days; what the table had of the version there is replaced.

    The first days of the span, as many as may have to agree with a later one, are only looked at: what agrees
    with them lies before. Silences count as of `at`, by default the end of the span.
    """
    catalog, rule = open_catalog(settings), spec.monitoring.decay
    scoring = scoring_of(spec.label.target)
    silences = silences_of(catalog, spec)
    silenced = silences.at(at or span.end).get(DECAY)
    counted = counted_labels(catalog, score_table.table_name(spec))
    hours = scores_in(catalog, spec, version, span)
    usual = [one.figures for one in profile.test_days]
    kept = Interval(span.start + (rule.windows - 1) * ONE_DAY, span.end)
    rows: list[dict[str, Any]] = []
    judged: list[Quality] = []
    days: list[dict[str, Any]] = []
    for day in span.pieces(ONE_DAY):
        slices = _of_day(hours, day)
        if EVERYTHING not in slices:
            continue
        found = quality(scoring.figures(slices.pop(EVERYTHING)), usual, rule)
        if found.judged:
            judged.append(found)
        row = _row(day, version, EVERYTHING, found.figures, found)
        row["alarmed"] = found.judged and decay_alarmed(judged, rule)
        if found.judged:
            days.append(row)
        if day.start >= kept.start:
            rows += [
                row,
                *(_row(day, version, name, scoring.figures(one)) for name, one in sorted(slices.items())),
            ]
    last, before = (days or [{}])[-1], (days[:-1] or [{}])[-1]
    known, when = _known_before_this_run(catalog, spec, version, last["day_end"]) if last else (None, None)
    # Who was not told then, for it was silenced, is told now.
    ended = when is not None and DECAY in silences.at(when)
    replace_rows(
        catalog,
        table_name(spec),
        pa.Table.from_pylist(rows, arrow_schema(scoring)),
        # Not another version's: each had answers of its own on a day that they shared.
        And(EqualTo(term="version", value=version), ending_in("day_end", kept)),
        time="day_end",
        said=signature(spec.name, kept),
        properties={COUNTED_LABELS: counted or ""},
    )
    alarmed, was = bool(last.get("alarmed")), bool(before.get("alarmed"))
    return JudgedQuality(
        version=version,
        days=len(days),
        last_day=(last["day_end"] - ONE_DAY).date().isoformat() if last else None,
        alarmed=alarmed,
        # A day is judged again each time that a label comes in, and a run may be repeated: told once.
        began=alarmed
        and silenced is None
        and (ended or (not was and not (known or {}).get("alarmed", False))),
        cleared=bool(last) and was and not alarmed and (known is None or known["alarmed"]),
        silenced=silenced.said if silenced is not None else None,
        figures={figure.name: last.get(figure.name) for figure in scoring.measured if last},
        usual={figure.name: last[f"{USUAL}{figure.name}"] for figure in scoring.tested if last},
        said=_in_words(scoring, last) if last else "",
        labelled=last.get("labelled", 0),
        answers=last.get("answers", 0),
        waiting=sum(row["slice"] == EVERYTHING and row["p_value"] is None for row in rows),
        has_test_days=bool(profile.test_days),
    )


def _of_day(hours: Mapping[datetime, Mapping[str, Scores]], day: Interval) -> dict[str, Scores]:
    inside = [slices for hour, slices in hours.items() if day.start <= hour < day.end]
    names = sorted({name for slices in inside for name in slices})
    return {name: reduce(Scores.plus, (s[name] for s in inside if name in s)) for name in names}


def _row(
    day: Interval,
    version: int,
    name: str,
    found: Figures,
    judged: Quality | None = None,
) -> dict[str, Any]:
    return {
        "day_end": day.end,
        "version": version,
        "slice": name,
        "answers": found.answers,
        "labelled": found.labelled,
        **found.named,
        **({f"{USUAL}{figure}": value for figure, value in judged.usual.items()} if judged else {}),
        "p_value": judged.p_value if judged else None,
        "decayed": judged.decayed if judged else False,
        "alarmed": False,
    }


def _in_words(scoring: Scoring, day: Mapping[str, Any]) -> str:
    """A judged day's figures."""
    said = []
    for figure in scoring.measured:
        if (value := day.get(figure.name)) is not None:
            usual = day.get(f"{USUAL}{figure.name}")
            beside = "" if usual is None else f" (on its test days {usual:.4f})"
            said.append(f"{figure.words} {value:.4f}{beside}")
    return ", ".join([*said, f"p {day['p_value']:.2g}"])


def _known_before_this_run(
    catalog: Catalog, spec: UseCase, version: int, end: datetime
) -> tuple[dict[str, Any] | None, datetime | None]:
    """What the table had of a judged day before the present Airflow run wrote to it, and since when."""
    table = existing(catalog, table_name(spec))
    if table is None:
        return None, None
    for entry in reversed(table.history()):
        snapshot = table.snapshot_by_id(entry.snapshot_id)
        if snapshot is None or snapshot.summary is None or snapshot.summary.get(RUN_ID) == run_id():
            continue
        where = And(
            EqualTo(term="version", value=version),
            And(EqualTo(term="day_end", value=end.isoformat()), EqualTo(term="slice", value=EVERYTHING)),
        )
        rows = table.scan(row_filter=where, snapshot_id=entry.snapshot_id).to_arrow().to_pylist()
        written = datetime.fromtimestamp(entry.timestamp_ms / 1000, UTC)
        return next((row for row in rows if row["p_value"] is not None), None), written
    return None, None


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> JudgedQuality:
        spec = use_case(arguments.use_case)
        asked = span_of(arguments)
        profile = kept_profile(settings, spec.name, arguments.run_id)
        span = days_needed(spec, asked)
        return judge_quality(settings, spec, profile, arguments.version, span, moment_of(arguments))

    parser = watching_parser("Judge the quality of the days whose labels are in.")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
