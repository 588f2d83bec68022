"""What the prediction log says of two versions: who answered what, how fast, and what became of it.

Belongs here: reading the log's tables. Does not belong here: what follows from it (`serving.analysis`).

The spool is landed first, so that the tables have all that gateways wrote until a moment ago.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, LessThan

from airloop.lakehouse.catalog import open_catalog
from airloop.prediction_log import answers, outcome, variants
from airloop.prediction_log.answers import one_number, shaped
from airloop.prediction_log.labels import known_labels
from airloop.prediction_log.land import land
from airloop.prediction_log.logs import OUTCOMES, PREDICTIONS, Log
from airloop.prediction_log.tables import table_of
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from airloop.use_cases.target import Target
from serving.analysis import Arm, Labelled

_COLUMNS: Final = (
    *("request_id", "instance", "version", "variant", "predicted_at", answers.COLUMN, "error"),
    *("model_seconds", "missing_features", "unit", "event", "prediction_time"),
)
_OUTCOME_COLUMNS: Final = ("request_id", "instance", "label", "received_at", "writer", "sequence")
_OF_CANDIDATE: Final = "_of_candidate"
_REQUEST: Final = ["request_id", "instance"]
"""What names a request, if its client gave it an id of its own."""
_CLIENTS: Final = (
    variants.CHAMPION,
    variants.CANARY,
    variants.FALLBACK,
    variants.CONTROL,
    variants.TREATMENT,
)
NOT_KNOWN: Final = 0
"""The version of an attempt at the champion that failed: it did not say who it was."""


@dataclass(frozen=True)
class Observed:
    """A stretch of the log of one use case, with the labels that are known of it."""

    target: Target
    rows: pa.Table
    """Attempts, with the numbers of their answers in the columns `names_of(target)`; `label` is null where
    the outcome is not known."""

    def since(self, moment: datetime) -> Observed:
        """The later part, from `moment` on."""
        return Observed(
            self.target, self.rows.filter(pc.greater_equal(self.rows["predicted_at"], pa.scalar(moment)))
        )

    @property
    def requests(self) -> int:
        """Answers that clients got."""
        answered = self.rows.filter(pc.is_null(self.rows["error"]))
        return int(pc.sum(pc.is_in(answered["variant"], pa.array(_CLIENTS))).as_py() or 0)

    def arm(self, *versions: int) -> Arm:
        """What these versions did, all of them together, shadows' copies included."""
        rows = self.rows.filter(pc.is_in(self.rows["version"], pa.array(versions, pa.int64())))
        failed = pc.is_valid(rows["error"])
        # A batch fails or is slow as one.
        first = pc.equal(rows["instance"], 0)
        own = pc.and_(pc.and_(failed, first), pc.not_equal(rows["error"], variants.DOWN))
        answered = rows.filter(pc.invert(failed))
        return Arm(
            errors=int(pc.sum(pc.fill_null(own, False)).as_py() or 0),
            seconds=_floats(rows.filter(pc.and_(pc.invert(failed), first))["model_seconds"]),
            numbers=one_number(self.target, answers_in(self.target, answered)),
            lacking=int(pc.sum(answered["lacks"]).as_py() or 0),
        )

    def pairs(self, champion: int, candidate: int) -> Labelled:
        """Requests that both versions answered; labels are NaN where they are not known."""
        first = self._answers(champion)
        names = names_of(self.target)
        second = self._answers(candidate).select([*_REQUEST, *names])
        joined = first.join(second, _REQUEST, join_type="inner", right_suffix=_OF_CANDIDATE)
        joined = joined.sort_by([(key, "ascending") for key in _REQUEST])
        # What is about nothing that has a name is about something of its own.
        number = pc.cast(joined["instance"], pa.large_string())
        own = pc.binary_join_element_wise(joined["request_id"], number, pa.scalar("/", pa.large_string()))
        events = pc.coalesce(joined["event"], own).combine_chunks().dictionary_encode()
        return Labelled(
            label=_floats(joined["label"]),
            champion=answers_in(self.target, joined),
            candidate=answers_in(self.target, joined, _OF_CANDIDATE),
            event=events.indices.to_numpy(),
        )

    def labelled(self, champion: int, candidate: int) -> Labelled:
        """Of those, the requests whose outcome is known."""
        return self.pairs(champion, candidate).known

    def _answers(self, version: int) -> pa.Table:
        """What `version` answered; not what clients gave an id that they had used before."""
        rows = self.rows
        answers = rows.filter(
            pc.and_(pc.equal(rows["version"], pa.scalar(version, pa.int64())), pc.is_null(rows["error"]))
        )
        values = [*names_of(self.target), "label", "event"]
        found = answers.group_by(_REQUEST, use_threads=False).aggregate(
            [*((name, "first") for name in values), ([], "count_all")]
        )
        found = found.filter(pc.equal(found["count_all"], 1))
        return found.select([*_REQUEST, *(f"{name}_first" for name in values)]).rename_columns(
            [*_REQUEST, *values]
        )


def observe(settings: Settings, spec: UseCase, since: datetime, until: datetime) -> Observed:
    """What gateways did for `spec` from `since` to before `until`, after landing what they wrote."""
    land(settings, OUTCOMES)
    land(settings, PREDICTIONS)
    catalog = open_catalog(settings)
    rows = _read(catalog, PREDICTIONS, spec, since, until, _COLUMNS)
    told = _read(catalog, OUTCOMES, spec, since, until, _OUTCOME_COLUMNS)
    # Joins take no lists.
    rows = _spread(spec.label.target, rows)
    lacks = pc.greater(pc.fill_null(pc.list_value_length(rows["missing_features"]), 0), 0)
    rows = rows.drop_columns("missing_features").append_column("lacks", lacks)
    joined = rows.join(_named_once(rows, outcome.latest(told)), _REQUEST, join_type="left outer")
    return Observed(spec.label.target, _with_known(catalog, spec, joined))


def names_of(target: Target) -> list[str]:
    """The columns that an answer's numbers are spread over."""
    return [f"{answers.COLUMN}_{number}" for number in range(len(target.answers))]


def answers_in(target: Target, rows: pa.Table, suffix: str = "") -> np.ndarray:
    """The answers of `rows`, float64 [rows], or [rows, numbers of an answer] where these are several."""
    found = np.stack([_floats(rows[f"{name}{suffix}"]) for name in names_of(target)], axis=1)
    return shaped(target, found)


def _spread(target: Target, rows: pa.Table) -> pa.Table:
    """`rows` with a column for each number of an answer; without those that answered another spec's label."""
    found = answers.numbers_of(rows[answers.COLUMN], target).reshape(len(rows), len(target.answers))
    rows = rows.drop_columns(answers.COLUMN)
    for name, numbers in zip(names_of(target), found.T, strict=True):
        rows = rows.append_column(name, pa.array(numbers))
    return rows.filter(pa.array(np.isfinite(found).all(axis=1) | rows["error"].is_valid().to_numpy()))


def _named_once(rows: pa.Table, told: pa.Table) -> pa.Table:
    """`told` without the ids that clients used for more than one request: which one is meant nobody knows."""
    counts = rows.group_by([*_REQUEST, "version", "variant"]).aggregate([([], "count_all")])
    again = counts.filter(pc.greater(counts["count_all"], 1)).select(_REQUEST)
    return told.join(again, _REQUEST, join_type="left anti")


def _with_known(catalog: Catalog, spec: UseCase, rows: pa.Table) -> pa.Table:
    """`rows` with the lakehouse's label where nobody told one."""
    times = pc.min_max(rows["prediction_time"]).as_py()
    if times["min"] is None:
        return rows
    known = known_labels(catalog, spec, times["min"], times["max"]).rename_columns(["event", "known"])
    joined = rows.join(known, "event", join_type="left outer")
    label = pc.coalesce(joined["label"], joined["known"])
    return joined.drop_columns(["label", "known"]).append_column("label", label)


def _read(
    catalog: Catalog, kept: Log, spec: UseCase, since: datetime, until: datetime, columns: tuple[str, ...]
) -> pa.Table:
    wanted = And(
        EqualTo("use_case", spec.name),
        And(GreaterThanOrEqual(kept.day, since.isoformat()), LessThan(kept.day, until.isoformat())),
    )
    found = table_of(catalog, kept).scan(row_filter=wanted, selected_fields=columns).to_arrow()
    # Texts come as small or large ones, and joins tell these apart.
    fields = [
        field.with_type(pa.large_string()) if pa.types.is_string(field.type) else field
        for field in found.schema
    ]
    return found.cast(pa.schema(fields))


def _floats(values: pa.ChunkedArray) -> np.ndarray:
    found: np.ndarray = values.to_numpy().astype(np.float64)
    return found
