"""What is reason to train a candidate: from what monitoring found last.

Belongs here: reading the newest findings as causes. Does not belong here: finding them
(`airloop.monitoring`), or whether they lead to a training (`decision`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from pyiceberg.catalog import Catalog
from pyiceberg.expressions import And, EqualTo

from airloop.intervals import ONE_HOUR, Interval
from airloop.monitoring.findings import windows_table
from airloop.monitoring.judge_quality import table_name as quality_table
from airloop.monitoring.score_table import days_needed
from airloop.monitoring.scores import EVERYTHING
from airloop.monitoring.silences import Silence, silence_of
from airloop.monitoring.tables import ending_in, existing, rows_where, starting_in
from airloop.use_cases.retraining_policy import DECAY, DRIFT, NEW_EVENTS
from airloop.use_cases.spec import UseCase
from airloop.wording import listed

FRESH: Final = timedelta(hours=6)
"""A window that ended longer ago says nothing of now: monitoring stands still, which alerts by itself."""
LAYER: Final = "clean"


class Cause(NamedTuple):
    """One reason."""

    name: str
    """One of `airloop.use_cases.retraining_policy.CAUSES`."""
    why: str
    """In words, with the numbers."""
    silence: Silence | None = None
    """What a person said of it."""


def causes(
    catalog: Catalog,
    spec: UseCase,
    version: int,
    known_until: datetime | None,
    at: datetime,
    silences: Mapping[str, Silence],
) -> tuple[Cause, ...]:
    """What speaks at `at` for training again, of what the spec takes for a reason, about `version`.

    `known_until` is the end of the data that the newest candidate was judged on, if there is one. Features
    that one of `silences` is about are not named as long as others drift too.
    """
    policy = spec.retraining
    found: list[Cause] = []
    if policy.on_drift:
        found += _drift(catalog, spec, version, at, silences)
    if policy.on_decay:
        found += _decay(catalog, spec, version, at, silences.get(DECAY))
    if policy.after_new_events is not None and known_until is not None:
        found += _new_events(
            catalog, spec, policy.after_new_events, known_until, at, silences.get(NEW_EVENTS)
        )
    return tuple(found)


def _drift(
    catalog: Catalog, spec: UseCase, version: int, at: datetime, silences: Mapping[str, Silence]
) -> Iterator[Cause]:
    where = And(EqualTo(term="version", value=version), ending_in("window_end", Interval(at - FRESH, at)))
    judged = [row for row in rows_where(catalog, windows_table(spec), where) if row["judged"]]
    last = _newest(judged, "window_end")
    if last is None or not last["alarmed"]:
        return
    silent = {name: silence_of(silences, name) for name in sorted(last["alarmed"])}
    heard = [name for name, silence in silent.items() if silence is None]
    until = last["window_end"].astimezone(UTC)
    yield Cause(
        DRIFT,
        f"drift of {listed(heard or list(silent))} in the window until {until:%Y-%m-%d %H:%M} UTC",
        None if heard else next(iter(silent.values())),
    )


def _decay(
    catalog: Catalog, spec: UseCase, version: int, at: datetime, silence: Silence | None
) -> Iterator[Cause]:
    # What can still be judged: of what lies before, nothing new will be known.
    days = days_needed(spec, Interval(at - ONE_HOUR, at))
    where = And(
        And(EqualTo(term="version", value=version), EqualTo(term="slice", value=EVERYTHING)),
        ending_in("day_end", days),
    )
    judged = [row for row in rows_where(catalog, quality_table(spec), where) if row["p_value"] is not None]
    last = _newest(judged, "day_end")
    if last and last["alarmed"]:
        day = (last["day_end"] - timedelta(days=1)).astimezone(UTC)
        yield Cause(
            DECAY,
            f"version {version} decays: on {day:%Y-%m-%d} a gain over a base rate of {last['gain']:.4f}, on "
            f"its test days {last['usual_gain']:.4f} (p {last['p_value']:.2g}, {last['labelled']:,} labels)",
            silence,
        )


def _new_events(
    catalog: Catalog, spec: UseCase, wanted: int, since: datetime, at: datetime, silence: Silence | None
) -> Iterator[Cause]:
    event_time = spec.clean_table(str(spec.event_table)).event_time
    due = at - spec.prediction_lead - spec.label.matures_after
    table = existing(catalog, f"{LAYER}.{spec.event_table}")
    if table is None or event_time is None or due <= since:
        return
    # Counted in the files' statistics wherever a file lies inside whole.
    happened = table.scan(row_filter=starting_in(event_time, Interval(since, due))).count()
    if happened >= wanted:
        yield Cause(
            NEW_EVENTS,
            f"{happened:,} events whose labels are due since {since:%Y-%m-%d %H:%M} UTC, the end of what the "
            f"newest candidate was judged on (wanted: {wanted:,})",
            silence,
        )


def _newest(rows: list[dict[str, Any]], time: str) -> Mapping[str, Any] | None:
    return max(rows, key=lambda row: row[time], default=None)
