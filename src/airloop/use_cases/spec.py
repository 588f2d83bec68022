"""The type of a use case: everything that makes one model different from another, as frozen, checked data.

Belongs here: the shape of a spec; its policies have a module each, beside this one. Does not belong here: any
use case's own facts (likewise), and anything heavy: a spec names heavy code by dotted path, so that Airflow
can parse every spec without Spark, TensorFlow or Feast.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from airloop.errors import SpecError
from airloop.use_cases.budget_policy import Budget
from airloop.use_cases.contradictions import contradictions
from airloop.use_cases.gates import Gates
from airloop.use_cases.monitoring_policy import Monitoring
from airloop.use_cases.part import Cron, DottedPath, Identifier, SpecPart
from airloop.use_cases.retraining_policy import Retraining
from airloop.use_cases.rollout_policy import Rollout
from airloop.use_cases.target import Binary, Target
from airloop.use_cases.training_policy import TrainingPolicy

LOCAL_SUFFIX = "_local"
"""An event has each datetime of its request twice: the instant, and with this suffix the wall clock."""
ColumnType = Literal[
    "string", "long", "integer", "double", "float", "boolean", "timestamp", "local_timestamp"
]


class Column(SpecPart):
    """One column of a feed."""

    name: Identifier
    type: ColumnType
    required: bool = True
    """Whether a null breaks the source's contract."""
    personal: Literal["hash", "drop"] | None = None
    """Personal data: `hash` lands a keyed hash in the value's place, `drop` lands nothing."""
    renamed_from: Identifier | None = None
    """The column's former name: tables that have it under that name are renamed, not rewritten."""


class Feed(SpecPart):
    """The records of one kind that a source delivers, landing in the raw table of the same name."""

    name: Identifier
    key: tuple[Identifier, ...]
    """Columns that identify a record at the source."""
    event_time: Identifier | None
    """Column that places a record in a data interval; none for reference data, delivered whole each time."""
    columns: tuple[Column, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = {column.name for column in self.columns}
        for name in (*self.key, *([self.event_time] if self.event_time else [])):
            if name not in names:
                raise ValueError(f"feed {self.name!r}: {name!r} is not one of its columns")
        for column in self.columns:
            if column.personal == "drop" and column.name in (*self.key, self.event_time):
                raise ValueError(f"feed {self.name!r}: {column.name!r} cannot be dropped")
            if column.personal == "hash" and (column.type != "string" or column.name == self.event_time):
                raise ValueError(f"feed {self.name!r}: {column.name!r} cannot be hashed, it is no string")
        return self

    @property
    def landed(self) -> tuple[Column, ...]:
        """The columns that reach the raw table: all but the dropped ones."""
        return tuple(column for column in self.columns if column.personal != "drop")

    @property
    def has_hashed_columns(self) -> bool:
        """Whether landing needs the key that personal columns are hashed with."""
        return any(column.personal == "hash" for column in self.columns)


class Source(SpecPart):
    """Where data comes from in batches: an adapter and what it delivers."""

    name: Identifier
    adapter: DottedPath
    """`nycflights`, `files`, `sql`, `http`, or `module:Class` of a `SourceAdapter`."""
    feeds: tuple[Feed, ...] = Field(min_length=1)
    options: dict[str, str] = Field(default_factory=dict)
    """What the adapter needs to know; each documents its own."""
    connection: Identifier | None = None
    """The Airflow connection with the source's address and secrets."""
    max_malformed_share: float = Field(default=0.01, ge=0, le=1)
    """Share of a feed's records that may go to quarantine before the whole delivery is refused."""


class Stream(SpecPart):
    """Where data comes from as it happens: topics of a broker that land in the feeds' raw tables."""

    name: Identifier
    broker: Literal["kafka", "kinesis"]
    connection: Identifier
    """The Airflow connection with the broker's address; without it the stream is off in this deployment."""
    topics: dict[Identifier, str] = Field(min_length=1)
    """The Kafka topic or Kinesis stream of each feed that is streamed."""


class Expectation(SpecPart):
    """One Great Expectations expectation."""

    type: Annotated[str, StringConstraints(pattern=r"^Expect[A-Za-z]+$")]
    """Class name in `great_expectations.expectations` or `spark_jobs.auditing.expectations`."""
    arguments: dict[str, Any]
    why: str = Field(min_length=1)
    """What a failure means, for the person who is woken by it."""


class ReferenceTo(SpecPart):
    """Rows that refer to rows of another clean table: they should be there."""

    column: Identifier
    """The referring column; a null refers to nothing."""
    table: Identifier
    key: Identifier
    """The column of `table` that it names."""
    columns: tuple[Identifier, ...] = ()
    """Columns of `table` that expectations on referring rows look at, there called `_<table>_<column>`."""
    within_days: int | None = Field(None, ge=0)
    """How long before a row the row that it refers to may have come: only so much of `table` is read, and
    where it has no data for all those days, references are not judged. None when `table` is read whole."""
    mostly: float = Field(1.0, gt=0, le=1)
    """The share of references that must exist."""
    why: str = Field(min_length=1)


class CleanTable(SpecPart):
    """A typed, audited table."""

    name: Identifier
    event_time: Identifier | None
    """Column that places a row in an interval; none for reference data, replaced whole."""
    min_rows_per_day: int = Field(ge=1)
    """Fewer rows than this on average over an interval fail the audit, as does a day without any."""
    expectations: tuple[Expectation, ...] = Field(min_length=1)
    references: tuple[ReferenceTo, ...] = ()
    reference_days: int = Field(28, ge=3)
    """How many published days before an interval say what is usual for it."""
    usual_volume: tuple[float, float] | None = None
    """Lowest and highest rows of a day, as shares of the median published day before."""
    hours: tuple[int, ...] = ()
    """Hours of the UTC day in which there is always data."""
    missing_hours: float = Field(0, ge=0)
    """How many of those may lack data, per day of the interval."""
    fresh_within: timedelta | None = None
    """How long before its interval's end the newest row may be."""
    renamed: dict[Identifier, Identifier] = Field(default_factory=dict)
    """Columns that had another name before, as new name to former: tables are renamed, not rewritten."""
    made_by: Identifier | None = None
    """The use case that writes it, where this one only reads it (`UseCase.lends`)."""


class FeatureTable(SpecPart):
    """A table of feature values, each row true from its `event_timestamp` on; a view's source."""

    name: Identifier
    entities: tuple[Identifier, ...] = Field(min_length=1)
    features: dict[Identifier, ColumnType] = Field(min_length=1)
    time_to_live: timedelta
    """A value older than this at the moment of prediction counts as missing, offline and online."""
    pushed: bool = False
    """Whether rows also reach the online store as each hour ends, before the day's audit."""
    made_by: Identifier | None = None
    """The use case that writes it, where this one only reads it (`UseCase.lends`)."""


class OnDemandView(SpecPart):
    """Features that are computed from others and from the request, at the moment they are asked for.

    The function gets and returns equally long lists by name: what the tables of `tables` have, None where it
    is missing; each `datetime` field of `request` as `<field>_seconds` since the epoch and as
    `<field>_local_seconds`, the same of the wall clock; its other fields as they are; and
    `prediction_time_seconds`. It is the same function offline and online.
    """

    name: Identifier
    features: dict[Identifier, ColumnType] = Field(min_length=1)
    function: DottedPath
    """`module:function`."""
    tables: tuple[Identifier, ...] = ()
    """Feature tables whose features it is given."""
    request: tuple[Identifier, ...] = ()
    """Request fields that it is given."""


class RequestField(SpecPart):
    """One field of a prediction request."""

    name: Identifier
    type: Literal["string", "integer", "number", "datetime"]
    """`datetime` is ISO 8601 with an offset; its wall-clock time is local to the event."""
    description: str
    example: str | int | float
    required: bool = True
    """A missing optional field is the empty string or NaN, which the model knows as unknown."""


class ModelInput(SpecPart):
    """One named input of the SavedModel's serving signature, a vector of length batch."""

    name: Identifier
    type: Literal["string", "double", "instant", "local_time"]
    """`string`: an embedded category. `double`: a number, NaN when missing. `instant`: int64 seconds since
    the epoch in UTC, 0 when missing. `local_time`: int64 seconds from 1970-01-01 00:00 on the wall clock."""
    request_field: Identifier | None = None
    """The request field that it is taken from; none when it is a feature of the feature service."""


class Elapsed(SpecPart):
    """A number that the model derives from two of its inputs: the hours from one instant to another."""

    name: Identifier
    since: Identifier
    until: Identifier


class Outcome(SpecPart):
    """The number that the label cuts in two, such as a delay in minutes; known when the label is.

    A network learns on which side of each of `thresholds` it lies, beside the label, which is only one of
    them. It is a column of the training set, never an input, and nothing of it is served.
    """

    name: Identifier
    description: str
    thresholds: tuple[float, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError(f"thresholds must rise, found {list(self.thresholds)}")
        return self


class Label(SpecPart):
    """What is predicted."""

    name: Identifier
    description: str
    target: Target = Binary()
    matures_after: timedelta
    """How long after the prediction time nearly all labels are known."""
    outcome: Outcome | None = None

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Where the outcome is cut to be learned beside the label; none without an outcome."""
        return self.outcome.thresholds if self.outcome else ()

    def named(self, answer: Sequence[float]) -> dict[str, float]:
        """An answer's numbers as clients are given them: by the label's name, or by classes or quantiles."""
        names = self.target.answers if self.target.is_wide else (self.name,)
        return dict(zip(names, answer, strict=True))


class Retention(SpecPart):
    """How much of its tables' past a use case keeps; what a training set's tag pins stays in any case."""

    snapshots_days: int = Field(30, ge=1)
    """How far back a table can be rolled back or looked at."""
    min_snapshots: int = Field(10, ge=1)
    """Snapshots of `main` that are kept whatever their age."""
    branches_days: int = Field(30, ge=1)
    """How long failed audits' branches, and what a rollback undid, can be inspected."""
    orphan_hours: int = Field(72, ge=24)
    """Files that no snapshot knows are removed at this age: a job that still writes may be slow."""


class Erasure(SpecPart):
    """How everything about one subject (a person, a customer, here a plane) is erased on request."""

    subject: Identifier
    """The column that names the subject. Tables of every layer are searched by the column of this name."""
    tables: dict[str, Identifier] = Field(default_factory=dict)
    """Tables, as `layer.name`, that name the subject in a column of another name."""
    texts: dict[str, Identifier] = Field(default_factory=dict)
    """Tables with a text column that may mention the subject; requests and quarantine are known already."""
    models: Literal["retrain", "revoke"]
    """What becomes of models whose training set had the subject's rows."""


class Schedules(SpecPart):
    """When the DAGs run, as cron expressions in UTC, and by when their work is to be there."""

    features: Cron = "0 0 * * *"
    push: Cron = "5 * * * *"
    """Hourly, a few minutes after the hour, when its last records are there."""
    training: Cron | None = "0 2 * * 1"
    """After the day's features: training needs the outcomes of the day before. None: only on request."""
    scoring: Cron = "0 3 * * *"
    """After the day's features; batch scores of the day before."""
    skew: Cron = "30 3 * * *"
    """After the day's features, with which those that were served are compared."""
    drill: Cron = "0 5 * * 1"
    """Weekly: the version to go back to loads and answers."""
    monitoring: Cron = "20 * * * *"
    """After the hour's predictions have landed."""
    rollout: Cron = "0 6 * * *"
    """The rollout also starts whenever a candidate is registered; the schedule catches what was missed."""
    features_within: timedelta = Field(timedelta(hours=6), gt=timedelta(0))
    """How long after a day's end its rows are to be published, at the latest; then they are late."""
    predictions_within: timedelta = Field(timedelta(hours=3), gt=timedelta(0))
    """How long what a gateway wrote down may wait for its table; then it is late."""


class Lent(NamedTuple):
    """Tables of one use case as another's spec names them."""

    clean: tuple[CleanTable, ...]
    features: tuple[FeatureTable, ...]


class UseCase(SpecPart):
    """One model's whole life, from its source to its rollout."""

    name: Identifier
    owner: str = Field(min_length=1)
    description: str = Field(min_length=1)
    intended_use: str = ""
    """For the model card: who decides what with a prediction."""
    not_for: tuple[str, ...] = ()
    """For the model card: what a prediction must not be used for."""
    limits: tuple[str, ...] = ()
    """For the model card: what is known to be wrong or missing, and what is not known."""
    schedules: Schedules = Schedules()
    serving: Literal["online", "batch"] = "online"
    """`online`: the gateway answers requests, and what it answered is watched. `batch`: the champion scores
    the events of each day into a table, and that is all; no value goes to the online store."""
    sources: tuple[Source, ...] = ()
    """None where all clean tables are another use case's."""
    streams: tuple[Stream, ...] = ()
    transform: DottedPath
    """Module with `clean`, `features` and `examples`, pure functions of Spark data frames; without sources of
    its own, without `clean`."""
    lookback: timedelta
    """How much history before its interval the features step reads."""
    clean_tables: tuple[CleanTable, ...]
    feature_tables: tuple[FeatureTable, ...] = ()
    """None where the request alone is the model's input."""
    on_demand: tuple[OnDemandView, ...] = ()
    feature_definitions: DottedPath | None = None
    """Module with `definitions(use_case, settings)`, Feast's objects for it; none without features."""
    feature_service: Identifier | None = None
    """The features that models trained now are given; a change is a new name. None without features."""
    earlier_feature_services: dict[Identifier, tuple[Identifier, ...]] = Field(default_factory=dict)
    """By name, the features of services that models which may still serve, or be rolled back to, ask for."""
    prediction_lead: timedelta
    """How long before `event_field` a prediction is asked; nothing later may be known."""
    event_field: Identifier
    """The `datetime` request field that a prediction is about."""
    event_table: Identifier | None = None
    """Clean table with a row per event to predict: it has the request fields, datetimes also as `_local`.
    Without it no sample request can be made from live data."""
    request: tuple[RequestField, ...]
    event_key: tuple[Identifier, ...] = ()
    """Request fields that tell one event from every other, for joining a prediction to its label once that
    is known; the required fields by default."""
    inputs: tuple[ModelInput, ...]
    identifiers: tuple[Identifier, ...] = ()
    """Fields that name one thing among many, such as a plane or a flight. No input may be one: a model would
    learn its history by heart, and answer by the name."""
    elapsed: tuple[Elapsed, ...] = ()
    label: Label
    training: TrainingPolicy
    gates: Gates
    rollout: Rollout
    monitoring: Monitoring = Monitoring()
    retraining: Retraining = Retraining()
    budget: Budget | None = None
    """Without it nothing is refused for its price. It needs a price table (the setting `prices`)."""
    retention: Retention = Retention()
    erasure: Erasure | None = None
    """Without it there is no erasing by this use case's subject."""

    def lends(self, *names: str) -> Lent:
        """These clean tables and feature tables, for another use case to read; raises `KeyError`.

        It reads them as they are published here, and its own features follow whenever these do.
        """
        made_by = {"made_by": self.name}
        clean = {table.name: table.model_copy(update=made_by) for table in self.own_clean_tables}
        features = {table.name: table.model_copy(update=made_by) for table in self.own_feature_tables}
        if unknown := set(names) - {*clean, *features}:
            raise KeyError(f"{self.name} has no tables {', '.join(sorted(unknown))} of its own")
        return Lent(
            clean=tuple(table for name, table in clean.items() if name in names),
            features=tuple(table for name, table in features.items() if name in names),
        )

    @property
    def own_clean_tables(self) -> tuple[CleanTable, ...]:
        """Those that no other use case writes."""
        return tuple(table for table in self.clean_tables if table.made_by is None)

    @property
    def own_feature_tables(self) -> tuple[FeatureTable, ...]:
        """Those that no other use case writes."""
        return tuple(table for table in self.feature_tables if table.made_by is None)

    @property
    def lender(self) -> str | None:
        """The use case whose tables this one reads, if it has none of its own."""
        of_clean = (table.made_by for table in self.clean_tables)
        of_features = (table.made_by for table in self.feature_tables)
        return next((name for name in (*of_clean, *of_features) if name is not None), None)

    @property
    def model_name(self) -> str:
        """The model's name in the registry, on the model server and in the gateway."""
        return self.name

    @property
    def entities(self) -> tuple[str, ...]:
        """The join keys of all feature tables, each once, in order of appearance."""
        return tuple(dict.fromkeys(key for table in self.feature_tables for key in table.entities))

    @property
    def event_fields(self) -> tuple[RequestField, ...]:
        """The request fields that tell one event from every other, in the request's order."""
        return tuple(
            field
            for field in self.request
            if (field.name in self.event_key if self.event_key else field.required and field.type != "number")
        )

    @property
    def is_online(self) -> bool:
        """Whether the gateway answers for it."""
        return self.serving == "online"

    @property
    def is_pushed(self) -> bool:
        """Whether any feature reaches the online store as each hour ends."""
        return self.is_online and any(table.pushed for table in self.own_feature_tables)

    @property
    def features(self) -> tuple[str, ...]:
        """The names of all stored features, those of the feature tables."""
        return tuple(name for table in self.feature_tables for name in table.features)

    @property
    def on_demand_features(self) -> tuple[str, ...]:
        """The names of all features that are computed when they are asked for."""
        return tuple(name for view in self.on_demand for name in view.features)

    @property
    def has_features(self) -> bool:
        """Whether Feast knows anything of it: features that are stored, or computed on demand."""
        return bool(self.features or self.on_demand_features)

    @property
    def feeds(self) -> tuple[Feed, ...]:
        """The feeds of all sources."""
        return tuple(feed for source in self.sources for feed in source.feeds)

    def feed(self, name: str) -> Feed:
        """The feed called `name`; raises `KeyError`."""
        return {feed.name: feed for feed in self.feeds}[name]

    def clean_table(self, name: str) -> CleanTable:
        """The clean table called `name`; raises `KeyError`."""
        return {table.name: table for table in self.clean_tables}[name]

    def feature_table(self, name: str) -> FeatureTable:
        """The feature table called `name`; raises `KeyError`."""
        return {table.name: table for table in self.feature_tables}[name]

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = list(contradictions(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self


def define(**fields: Any) -> UseCase:
    """A `UseCase` from its fields; raises `SpecError` naming every field that is wrong."""
    try:
        return UseCase(**fields)
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'spec'}: {item['msg']}" for item in error.errors()
        )
        raise SpecError(
            expected=f"a valid spec for use case {fields.get('name', '(without a name)')!r}",
            found=found,
            next_step="correct the named fields in its module under src/airloop/use_cases/",
        ) from None
