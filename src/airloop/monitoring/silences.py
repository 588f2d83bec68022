"""Causes that a person does not want to hear of until a date.

Belongs here: the table of silences, adding one, and which are in force. Does not belong here: what a silence
keeps quiet (alerts, and requests to train).

A silence is never changed: a later one of the same cause takes its place, and one that ends at once lifts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import AlwaysTrue, And, EqualTo

from airloop.airflow_run import run_id
from airloop.errors import MonitoringError
from airloop.intervals import Interval
from airloop.lakehouse.provenance import signature
from airloop.monitoring.monitored import PREDICTION, watched
from airloop.monitoring.tables import replace_rows, rows_where
from airloop.use_cases.retraining_policy import CAUSES, DRIFT
from airloop.use_cases.spec import UseCase

LOST_TRAFFIC: Final = "lost_traffic"
SKEW: Final = "skew"
"""No causes to train; alerts of them can be silenced too."""
ALERTS: Final = (*CAUSES, LOST_TRAFFIC, SKEW)
FEATURE: Final = f"{DRIFT} of "
"""Begins the name of a silence for one feature."""
_UTC: Final = pa.timestamp("us", tz="UTC")
SILENCES: Final = pa.schema(
    [
        pa.field("at", _UTC, nullable=False),
        pa.field("cause", pa.string(), nullable=False),
        pa.field("until", _UTC, nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("who", pa.string(), nullable=False),
        pa.field("run", pa.string(), nullable=False),
    ]
)


class Silence(NamedTuple):
    """What one person decided."""

    cause: str
    until: datetime
    reason: str
    who: str

    @property
    def said(self) -> str:
        """In words, for a log or a message."""
        return f"silenced until {self.until:%Y-%m-%d %H:%M} UTC by {self.who}: {self.reason}"


def table_name(spec: UseCase) -> str:
    """The table of a use case's silences."""
    return f"monitoring.{spec.name}_silences"


def silenceable(spec: UseCase) -> tuple[str, ...]:
    """What can be silenced: each cause, lost traffic, skew, and the drift of each watched feature."""
    return (*ALERTS, *(f"{FEATURE}{name}" for name in (*watched(spec), PREDICTION)))


def add_silence(catalog: Catalog, spec: UseCase, at: datetime, silence: Silence) -> None:
    """Write `silence` down, said at `at`; once however often the same run repeats it.

    Raises `MonitoringError` for a cause that there is not.
    """
    if silence.cause not in silenceable(spec):
        raise MonitoringError(
            expected=f"{', '.join(ALERTS)}, or '{FEATURE}<feature>' of a watched feature",
            found=repr(silence.cause),
            next_step="name one of them; the features are those of the monitoring's drift table",
        )
    row = {"at": at, **silence._asdict(), "run": run_id()}
    replace_rows(
        catalog,
        table_name(spec),
        pa.Table.from_pylist([row], SILENCES),
        And(EqualTo(term="run", value=run_id()), EqualTo(term="at", value=at.isoformat())),
        time="at",
        said=signature(spec.name, Interval(at, max(at, silence.until))),
    )


class Silences:
    """All that was silenced."""

    def __init__(self, said: Sequence[tuple[datetime, Silence]] = ()) -> None:
        """`said` are silences with the moment that each was said at."""
        self._said = sorted(said, key=lambda one: one[0])

    def at(self, moment: datetime) -> dict[str, Silence]:
        """The silences in force at `moment`, by cause; of one cause the last that was said."""
        newest = {silence.cause: silence for at, silence in self._said if at <= moment}
        return {cause: silence for cause, silence in newest.items() if silence.until > moment}


def silences_of(catalog: Catalog, spec: UseCase) -> Silences:
    """What was silenced of the use case, ever."""
    return Silences(
        [
            (
                row["at"].astimezone(UTC),
                Silence(row["cause"], row["until"].astimezone(UTC), row["reason"], row["who"]),
            )
            for row in rows_where(catalog, table_name(spec), AlwaysTrue())
        ]
    )


def silence_of(silences: Mapping[str, Silence], feature: str) -> Silence | None:
    """What keeps the drift of `feature` quiet, if anything does."""
    return silences.get(DRIFT) or silences.get(f"{FEATURE}{feature}")
