"""What monitoring found, day by day: drift by feature, traffic and quality.

Belongs here: from monitoring's tables to series of days. Does not belong here: judging
(`airloop.monitoring`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import And, EqualTo

from airloop.intervals import ONE_DAY, Interval
from airloop.monitoring import counts, judge_quality
from airloop.monitoring.counts import ANSWERED, FAILED, REQUESTS
from airloop.monitoring.findings import features_table, windows_table
from airloop.monitoring.scores import EVERYTHING, scoring_of
from airloop.monitoring.skew import table_name as skew_table
from airloop.monitoring.tables import ending_in, existing, rows_where, starting_in
from airloop.overview.document import Drift, FeatureDrift, FigureByDay, Quality, Traffic
from airloop.use_cases.spec import UseCase
from airloop.use_cases.target import Figure

INSTANT: Final = timedelta(microseconds=1)
DIGITS: Final = 4
WORST: Final = 3
HOURS_A_DAY: Final = 24
SKEW_KNOWN: Final = timedelta(days=31)


def days_of(span: Interval) -> tuple[date, ...]:
    """The UTC days that `span` touches."""
    first, last = span.start.date(), (span.end - INSTANT).date()
    return tuple(first + number * ONE_DAY for number in range((last - first).days + 1))


def drift_of(catalog: Catalog, spec: UseCase, span: Interval) -> Drift:
    """Each feature's drift on each day of `span`; without features before a window was judged."""
    days = days_of(span)
    rows = _columns(
        catalog,
        features_table(spec),
        span,
        ("window_end", "feature", "distance", "missing_share", "usual_missing_share"),
    )
    if rows is None or not len(rows):
        return Drift(days=days, features=())
    place = {day: number for number, day in enumerate(days)}
    # A window belongs to the day that it ends with: one that ends at midnight to the day before.
    ended = pc.cast(pc.subtract(rows["window_end"], pa.scalar(INSTANT)), pa.date32())
    by_day = rows.append_column("day", ended).group_by(["feature", "day"]).aggregate([("distance", "max")])
    distance: dict[str, list[float | None]] = {}
    for row in by_day.to_pylist():
        series = distance.setdefault(row["feature"], [None] * len(days))
        series[place[row["day"]]] = round(row["distance_max"], DIGITS)
    alarmed = _alarmed(catalog, spec, span, place)
    end: datetime = pc.max(rows["window_end"]).as_py()
    last = {row["feature"]: row for row in rows.filter(pc.equal(rows["window_end"], end)).to_pylist()}
    features = [
        FeatureDrift(
            feature=name,
            distance=tuple(series),
            alarmed=tuple(sorted(alarmed.get(name, ()))),
            missing_share=last[name]["missing_share"] if name in last else None,
            usual_missing_share=last[name]["usual_missing_share"] if name in last else None,
        )
        for name, series in distance.items()
    ]
    features.sort(key=lambda one: (-last[one.feature]["distance"] if one.feature in last else 0, one.feature))
    return Drift(days=days, features=tuple(features), last_window=end)


def traffic_of(catalog: Catalog, spec: UseCase, span: Interval) -> Traffic:
    """The answers of each day of `span`; None for a day of which an hour was not counted."""
    days = days_of(span)
    where = And(starting_in("hour", span), EqualTo(term="feature", value=REQUESTS))
    rows = rows_where(catalog, counts.table_name(spec), where)
    answered, failed = (_by_day(row for row in rows if row["cell"] == cell) for cell in (ANSWERED, FAILED))
    lost = {_day(row["window_end"]) for row in _windows(catalog, spec, span) if row["lost_traffic"]}
    return Traffic(
        days=days,
        requests=tuple(answered.get(day) for day in days),
        failed=tuple(failed.get(day) for day in days),
        lost=tuple(number for number, day in enumerate(days) if day in lost),
    )


def _by_day(rows: Iterable[Mapping[str, Any]]) -> dict[date, int]:
    """The requests of each whole day, from `rows` of hours."""
    hours: dict[datetime, int] = {}
    for row in rows:
        # An hour is counted once for each version that was the champion near it: all count every request.
        hours[row["hour"]] = max(hours.get(row["hour"], 0), row["rows"])
    found: dict[date, list[int]] = {}
    for hour, requests in hours.items():
        found.setdefault(hour.date(), []).append(requests)
    return {day: sum(requests) for day, requests in found.items() if len(requests) == HOURS_A_DAY}


def quality_of(catalog: Catalog, spec: UseCase, span: Interval) -> Quality:
    """The quality of each day of `span`; where two versions answered, of the one that was judged last."""
    days, scoring = days_of(span), scoring_of(spec.label.target)
    rows = rows_where(catalog, judge_quality.table_name(spec), ending_in("day_end", span))
    whole = {
        _day(row["day_end"]): row
        for row in sorted(rows, key=lambda row: (row["day_end"], row["p_value"] is not None, row["version"]))
        if row["slice"] == EVERYTHING
    }
    found = [whole.get(day) for day in days]

    def series(name: str) -> tuple[Any, ...]:
        return tuple(_short(row[name]) if row else None for row in found)

    judged = [row for row in found if row and row["p_value"] is not None]
    return Quality(
        days=days,
        version=tuple(row["version"] if row else None for row in found),
        figures=tuple(
            FigureByDay(
                name=figure.name,
                words=figure.words,
                values=series(figure.name),
                usual=series(f"{judge_quality.USUAL}{figure.name}") if figure in scoring.tested else None,
            )
            for figure in scoring.measured
        ),
        label_share=tuple(
            round(row["labelled"] / row["answers"], DIGITS) if row and row["answers"] else None
            for row in found
        ),
        alarmed=tuple(number for number, row in enumerate(found) if row and row["alarmed"]),
        worst_slices=_worst(scoring.measured[0], judged[-1], rows) if judged else (),
    )


def alarms_of(catalog: Catalog, spec: UseCase, span: Interval) -> tuple[str, ...]:
    """What is an alarm by the last window and the last judged day of `span`, in words."""
    windows = [row for row in _windows(catalog, spec, span) if row["judged"] or row["lost_traffic"]]
    found = [f"drift of {name}" for name in (windows[-1]["alarmed"] or ())] if windows else []
    if windows and windows[-1]["lost_traffic"]:
        found.append("lost traffic")
    rows = rows_where(catalog, judge_quality.table_name(spec), ending_in("day_end", span))
    judged = [row for row in rows if row["slice"] == EVERYTHING and row["p_value"] is not None]
    newest = max(judged, key=lambda row: (row["day_end"], row["version"]), default=None)
    if newest is not None and newest["alarmed"]:
        found.append(f"decay of version {newest['version']}")
    return tuple(found)


def skewed_of(catalog: Catalog, spec: UseCase, at: datetime) -> tuple[str, ...]:
    """The features that were skewed on the last day before `at` on which that could be said."""
    rows = rows_where(catalog, skew_table(spec), starting_in("day", Interval(at - SKEW_KNOWN, at)))
    said = [row for row in rows if row["skewed"] is not None]
    last = max((row["day"] for row in said), default=None)
    return tuple(sorted(row["feature"] for row in said if row["day"] == last and row["skewed"]))


def _windows(catalog: Catalog, spec: UseCase, span: Interval) -> list[dict[str, Any]]:
    rows = rows_where(catalog, windows_table(spec), ending_in("window_end", span))
    return sorted(rows, key=lambda row: row["window_end"])


def _alarmed(catalog: Catalog, spec: UseCase, span: Interval, place: dict[date, int]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for row in _windows(catalog, spec, span):
        for name in row["alarmed"] or ():
            found.setdefault(name, set()).add(place[_day(row["window_end"])])
    return found


def _worst(figure: Figure, day: dict[str, Any], rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    slices = [
        row
        for row in rows
        if row["day_end"] == day["day_end"]
        and row["version"] == day["version"]
        and row["slice"] != EVERYTHING
        and row[figure.name] is not None
    ]
    slices.sort(key=lambda row: row[figure.name], reverse=not figure.higher_is_better)
    return tuple(
        f"{row['slice']}: {figure.words} {row[figure.name]:.3f} of {row['labelled']:,}"
        for row in slices[:WORST]
    )


def _day(end: datetime) -> date:
    return (end - INSTANT).date()


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def _columns(catalog: Catalog, name: str, span: Interval, columns: tuple[str, ...]) -> pa.Table | None:
    table = existing(catalog, name)
    if table is None:
        return None
    return table.scan(row_filter=ending_in("window_end", span), selected_fields=columns).to_arrow()
