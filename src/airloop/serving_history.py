"""What served when: which version took the traffic in which period, who promoted it, and why it stopped.

    python -m airloop.serving_history --use-case flight_delay
    python -m airloop.serving_history --use-case flight_delay --at 2026-11-20T12:00Z --json

Belongs here: the promotions' records in the audit log, writing them and reading them as periods. Does not
belong here: the promotion itself (`serving.promote`), or the log's chain of hashes (`airloop.audit_log`).
Importing this module imports neither MLflow nor TensorFlow: the answer outlives the registry.

Going back to an earlier version is a promotion too. A revoked version (an erasure says so, in the same log)
goes on serving until the next promotion; its period ends as revoked, whichever version follows it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from airloop.airflow_run import run_id
from airloop.audit_log import append_record, records
from airloop.errors import EXIT_PERMANENT, AirloopError
from airloop.intervals import parse_instant
from airloop.references import Reference
from airloop.settings import Settings, load_settings
from airloop.use_cases.catalogue import use_case

PROMOTION: Final = "promotion"
"""Kind of an audit record: a version took the traffic."""
ERASURE: Final = "erasure proved"
"""Kind of the audit record that names the versions which an erasure revoked."""


class ServedPeriod(Reference):
    """One version's time as the champion, from `start` to before `end`."""

    version: int
    start: datetime | None
    """None where it served before there was a record."""
    end: datetime | None
    """None while it serves."""
    promoted_by: str | None
    """A person, or the Airflow run; `by-hand` for a job that neither started."""
    run: str | None
    """The Airflow run of the promotion."""
    reason: str | None
    """Why it was promoted, if somebody said."""
    stopped: Literal["superseded", "rolled back", "revoked"] | None = None
    replaced_by: int | None = None
    why_stopped: str | None = None
    """The whole of it in words."""
    revoked: datetime | None = None
    """Since when it ought not to serve."""

    def holds(self, moment: datetime) -> bool:
        """Whether the version served at `moment`."""
        return (self.start is None or self.start <= moment) and (self.end is None or moment < self.end)


class ServingHistory(Reference):
    """The periods of a use case's model, earliest first; there is no time between them."""

    use_case: str
    at: datetime | None = None
    """The moment that was asked about; without one, all periods are there."""
    periods: tuple[ServedPeriod, ...]


def serving_history(settings: Settings, use_case: str, at: datetime | None = None) -> ServingHistory:
    """What served, or what served `at` a moment: no period where nothing did, or no record goes back to it.

    Raises `AuditLogError` when the log is not as it was written.
    """
    found = records(settings)
    periods = tuple(_periods(_promotions(found, use_case), _revoked(found, use_case)))
    if at is not None:
        periods = tuple(period for period in periods if period.holds(at))
    return ServingHistory(use_case=use_case, at=at, periods=periods)


def recorded_champion(settings: Settings, use_case: str) -> int | None:
    """The version that was promoted last; None where no promotion is on record. Raises `AuditLogError`."""
    promotions = _promotions(records(settings), use_case)
    return int(promotions[-1]["what"]["version"]) if promotions else None


def record_promotion(
    settings: Settings,
    *,
    use_case: str,
    version: int,
    replaces: int | None,
    facts: Mapping[str, str],
    reason: str = "",
    who: str = "",
    approved_by: str = "",
) -> None:
    """Write down that `version` takes the traffic from `replaces`, unless the last record says so already.

    A version that replaces itself served before there was a record. `facts` tell what it is (its MLflow run,
    its signature). One process at a time promotes (the caller sees to it). Raises `AuditLogError`.
    """
    promotions = _promotions(records(settings), use_case)
    if promotions and promotions[-1]["what"]["version"] == version:
        return
    append_record(
        settings,
        kind=PROMOTION,
        key=f"{use_case} {len(promotions) + 1}",
        who=who or run_id(),
        what={
            **facts,
            "use_case": use_case,
            "version": version,
            "replaces": replaces,
            "reason": reason,
            "run": run_id(),
            **({"approved_by": approved_by} if approved_by else {}),
        },
    )


def _promotions(found: Sequence[Mapping[str, Any]], use_case: str) -> list[Mapping[str, Any]]:
    return [
        record for record in found if record["kind"] == PROMOTION and record["what"]["use_case"] == use_case
    ]


def _revoked(found: Sequence[Mapping[str, Any]], use_case: str) -> dict[int, datetime]:
    """When each revoked version was, as far as the log knows."""
    revoked: dict[int, datetime] = {}
    for record in found:
        if record["kind"] != ERASURE:
            continue
        for model in record["what"]["models"]["models"]:
            if (model["use_case"], model["action"]) == (use_case, "revoke") and model["version"] is not None:
                revoked.setdefault(int(model["version"]), _moment(record))
    return revoked


def _periods(
    promotions: Sequence[Mapping[str, Any]], revoked: Mapping[int, datetime]
) -> Iterator[ServedPeriod]:
    if promotions:
        # What the first promotion on record replaced served before there was a record.
        what = promotions[0]["what"]
        if what["replaces"] is not None and what["replaces"] != what["version"]:
            unknown = ServedPeriod(
                version=what["replaces"],
                start=None,
                end=None,
                promoted_by=None,
                run=None,
                reason=None,
                revoked=revoked.get(what["replaces"]),
            )
            yield _ended(unknown, promotions[0])
    for place, record in enumerate(promotions):
        what = record["what"]
        # One that replaces itself was found serving: when and by whom it was promoted is not known.
        found_serving = what["replaces"] == what["version"]
        period = ServedPeriod(
            version=what["version"],
            start=None if found_serving else _moment(record),
            end=None,
            promoted_by=None if found_serving else record["who"],
            run=None if found_serving else what["run"],
            reason=what["reason"] or None,
            revoked=revoked.get(what["version"]),
        )
        following = promotions[place + 1] if place + 1 < len(promotions) else None
        yield period if following is None else _ended(period, following)


def _ended(period: ServedPeriod, following: Mapping[str, Any]) -> ServedPeriod:
    """The period as `following`, a promotion's record, ended it."""
    new, reason, end = following["what"]["version"], following["what"]["reason"], _moment(following)
    stopped: Literal["superseded", "rolled back", "revoked"]
    if period.revoked is not None and period.revoked <= end:
        stopped, why = "revoked", f"revoked at {_shown(period.revoked)} (erasure), replaced by version {new}"
    elif new < period.version:
        stopped, why = "rolled back", f"rolled back to version {new}"
    else:
        stopped, why = "superseded", f"superseded by version {new}"
    if reason:
        why += f": {reason}"
    elif stopped == "rolled back":
        why += ": no reason given"
    return period.model_copy(update={"end": end, "stopped": stopped, "replaced_by": new, "why_stopped": why})


def _moment(record: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(record["at"])


def lines_of(history: ServingHistory) -> Iterator[str]:
    """The history as a table."""
    if not history.periods:
        about = f" at {_shown(history.at)}" if history.at else ""
        yield f"{history.use_case}: no version on record{about}"
        return
    rows = [("version", "from", "until", "promoted by", "why it stopped")]
    for period in history.periods:
        by = period.promoted_by or "no record"
        if period.run not in (None, period.promoted_by):
            by += f" ({period.run})"
        since = _shown(period.start) if period.start else "before the record"
        until = _shown(period.end) if period.end else "serves"
        why = period.why_stopped or (
            f"revoked at {_shown(period.revoked)} (erasure), still serves" if period.revoked else ""
        )
        rows.append((str(period.version), since, until, by, why))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Which version served when, and why it stopped.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--at", help="a moment, ISO 8601; without an offset, UTC")
    parser.add_argument("--json", action="store_true", help="all of it, as JSON")
    arguments = parser.parse_args(argv)
    try:
        at = parse_instant(arguments.at) if arguments.at else None
        history = serving_history(load_settings(), use_case(arguments.use_case).name, at)
    except AirloopError as error:
        print(error, file=sys.stderr)
        return EXIT_PERMANENT
    print(history.model_dump_json(indent=2) if arguments.json else "\n".join(lines_of(history)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
