"""The type of a use case: everything that makes one model different from another, as frozen, checked data.

Belongs here: the shape of a spec. Does not belong here: any use case's
own facts (one module each, beside this one), and anything heavy: a spec names heavy code by dotted path,
so that Airflow can parse every spec without Spark, TensorFlow or Feast.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from airloop.errors import SpecError
from airloop.use_cases.contradictions import contradictions

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
DottedPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?$")]
Cron = Annotated[str, StringConstraints(pattern=r"^(\S+\s+){4}\S+$")]
LOCAL_SUFFIX = "_local"
"""An event has each datetime of its request twice: the instant, and with this suffix the wall clock."""
ColumnType = Literal[
    "string", "long", "integer", "double", "float", "boolean", "timestamp", "local_timestamp"
]


class SpecPart(BaseModel):
    """Base of every part of a spec: frozen, unknown fields rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
    options: dict[str, str] = {}
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
    renamed: dict[Identifier, Identifier] = {}
    """Columns that had another name before, as new name to former: tables are renamed, not rewritten."""


class FeatureTable(SpecPart):
    """A table of feature values, each row true from its `event_timestamp` on; a view's source."""

    name: Identifier
    entities: tuple[Identifier, ...] = Field(min_length=1)
    features: dict[Identifier, ColumnType] = Field(min_length=1)
    time_to_live: timedelta
    """A value older than this at the moment of prediction counts as missing, offline and online."""
    pushed: bool = False
    """Whether rows also reach the online store as each hour ends, before the day's audit."""


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
    matures_after: timedelta
    """How long after the prediction time nearly all labels are known."""
    outcome: Outcome | None = None

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Where the outcome is cut to be learned beside the label; none without an outcome."""
        return self.outcome.thresholds if self.outcome else ()


class Range(SpecPart):
    """The numbers from `low` to `high`, both included, that tuning may give a parameter."""

    low: int | float
    high: int | float
    log: bool = False
    """Whether to look evenly over the orders of magnitude, as for a learning rate."""
    integer: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low} has no logarithm")
        if self.integer and not all(float(end).is_integer() for end in (self.low, self.high)):
            raise ValueError(f"{self.low} and {self.high} are not both integers")
        return self

    def has(self, value: int | float) -> bool:
        """Whether `value` is one of them."""
        return self.low <= value <= self.high and (float(value).is_integer() or not self.integer)


class Choices(SpecPart):
    """The few values that tuning may give a parameter."""

    values: tuple[int | float, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"a value appears twice in {list(self.values)}")
        return self

    def has(self, value: int | float) -> bool:
        """Whether `value` is one of them."""
        return value in self.values


class Tuning(SpecPart):
    """Which parameters a study searches, and what it may cost."""

    space: dict[Identifier, Range | Choices] = Field(min_length=1)
    """By parameter; the spec's own value is among them, for it is the first that is tried."""
    trials: int = Field(ge=2)
    minutes: int = Field(ge=1)
    """From the study's opening on; no trial starts after them, and one that runs may end."""
    warm_up_epochs: int = Field(1, ge=0)
    """Epochs of each trial after which it may be pruned, at the earliest."""
    unpruned_trials: int = Field(4, ge=1)
    """Trials that must have finished before any is pruned."""
    parallel_trials: int = Field(1, ge=1)
    """How many run at once; with more than one their order, and so the study, is not repeatable."""


class CrossValidation(SpecPart):
    """Folds in order of time, over the train and validation windows."""

    folds: int = Field(ge=2)
    fold_days: int = Field(ge=1)
    """Days that each fold is measured on; as many before them say when its training stops."""
    parallel_folds: int = Field(1, ge=1)

    @property
    def held_out_days(self) -> int:
        """Days that the first fold does not learn from."""
        return (self.folds + 1) * self.fold_days


class TrainingPolicy(SpecPart):
    """How a candidate is trained; windows end at the run's as-of instant, the test window last."""

    model_builder: DottedPath
    """`module:function`, called with the spec, the training data's statistics and `parameters`."""
    parameters: dict[str, int | float]
    train_days: int = Field(ge=1)
    validation_days: int = Field(ge=1)
    test_days: int = Field(ge=1)
    seed: int = 2013
    when_stale: Literal["mark", "retrain"] = "mark"
    """What follows when published rows change that the champion was trained on, beside marking it."""
    tuning: Tuning | None = None
    """Without it the parameters cannot be tuned."""
    cross_validation: CrossValidation | None = None
    """Without it there is no cross-validation."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = list(self._contradictions())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _contradictions(self) -> Iterable[str]:
        for name, values in (self.tuning.space if self.tuning else {}).items():
            if name not in self.parameters:
                yield f"tuning.space: {name!r} is not one of the parameters"
            elif not values.has(self.parameters[name]):
                yield f"tuning.space.{name}: the spec's own {self.parameters[name]} is not in it"

    @property
    def total_days(self) -> int:
        """Length of the three windows together."""
        return self.train_days + self.validation_days + self.test_days


class Slicing(SpecPart):
    """A model input that cuts the test rows into slices, each judged for itself."""

    name: Identifier
    input: Identifier
    """A string input is cut by value, a local time by the hour of the day, a double by its value."""
    edges: tuple[float, ...] = ()
    """Hours or values at which a slice ends and the next one begins; none for a string input."""


class Behaviour(SpecPart):
    """What a model must do when rows are changed in a way whose effect is known beforehand."""

    name: Identifier
    changes: dict[Identifier, float] = Field(min_length=1)
    """What is added to which inputs (hours for instants and local times); rows that lack one are left out."""
    effect: Literal["rises", "falls", "stays"]
    """What the mean probability may do: rise or stay, fall or stay, or stay."""
    only: dict[Identifier, tuple[float, float]] = {}
    """Only rows whose value lies between these (hours of the day for local times)."""
    tolerance: float = Field(0.001, ge=0)
    """By how much the mean may go the other way."""
    why: str = Field(min_length=1)


class Gates(SpecPart):
    """What a candidate must show before it is registered. Every rule fails closed."""

    baseline: tuple[Identifier, ...] = Field(min_length=1)
    """Columns of the base-rate baseline: model inputs, or `<local_time input>_hour`."""
    min_test_rows: int = Field(ge=1)
    min_test_positives: int = Field(ge=1)
    min_roc_auc_gain_over_baseline: float = Field(ge=0)
    max_roc_auc_loss_to_champion: float = Field(ge=0)
    max_log_loss_excess_over_champion: float = Field(ge=0)
    slices: tuple[Slicing, ...] = ()
    min_slice_positives: int = Field(100, ge=1)
    """Slices with fewer positive or negative test rows are measured, but not judged."""
    max_slice_log_loss_excess_over_baseline: float = Field(0.0, ge=0)
    """No slice may be served worse than by a base rate."""
    behaviours: tuple[Behaviour, ...] = ()
    max_single_input_roc_auc: float = Field(0.9, gt=0.5, le=1)
    """An input that alone tells the label better than this knows it: it leaks."""
    max_calibration_error: float = Field(0.1, gt=0, le=1)
    """How far predictions may be from the observed rates (`airloop.training.measures.calibration_error`). The
    weather of a few weeks alone moves a base rate by a few hundredths."""
    max_model_mebibytes: float = Field(500.0, gt=0)
    """Size of the exported model: each replica of the server holds it in memory, twice during a rollout."""
    max_single_row_p99_milliseconds: float = Field(250.0, gt=0)
    """Generous, for it is measured where training runs, beside whatever else runs there."""


class Guardrails(SpecPart):
    """What traffic must not suffer from a candidate, however good its predictions are."""

    max_error_rate: float = Field(0.001, ge=0, lt=1)
    """Share of requests without a usable answer; more is forgiven only where the champion fails too."""
    max_latency_ratio: float = Field(1.5, ge=1)
    """Median and 99th percentile of the model server's time, beside the champion's in the same minutes."""
    latency_slack_seconds: float = Field(0.01, ge=0)
    """Slower than the champion by less than this is not slow."""
    max_population_stability_index: float = Field(0.25, gt=0)
    """How far the distribution of its predictions may be from the champion's. Above 0.25 is by convention a
    major shift (Siddiqi, Credit Risk Scorecards, 2006)."""
    max_missing_rate_excess: float = Field(0.05, ge=0, le=1)
    """How much larger the share of predictions that lack a feature may be than the champion's."""
    max_log_loss_excess: float = Field(0.0, ge=0)
    """How much worse than the champion it may be on the same requests, once labels are in."""
    min_labels: int = Field(200, ge=2)
    """Labels before quality is judged."""


class Rollout(SpecPart):
    """How a registered candidate becomes the champion."""

    replayed_requests: int = Field(ge=1)
    """Recorded requests that the model server must answer as training predicted."""
    max_absolute_difference: float = Field(gt=0)
    load_timeout_seconds: float = Field(gt=0)
    max_memory_mebibytes: float = Field(2048.0, gt=0)
    """What a model server may need with the candidate alone."""
    max_single_row_p99_milliseconds: float = Field(100.0, gt=0)
    """Of a model server with the candidate alone, one request at a time."""
    canary_percent: tuple[int, ...] = (5, 25, 50)
    """The share of clients that each canary step gives to the candidate."""
    bake: timedelta = timedelta(minutes=10)
    """How long the shadow and each canary step last at least."""
    watch: timedelta = timedelta(minutes=30)
    """How long a new champion is held against the one before, and given up for it."""
    look_every: timedelta = timedelta(seconds=30)
    longest_hold: timedelta = timedelta(hours=24)
    """A stage that can still decide nothing then is taken for a failure."""
    min_requests: int = Field(200, ge=1)
    """Answers of the candidate before a stage may end well."""
    when_quiet: Literal["go_on", "hold"] = "hold"
    """What a stage does when its time is over and there were fewer: what little traffic there is risks
    little, or nothing goes on unseen."""
    candidate_timeout_seconds: float = Field(0.25, gt=0)
    """Then the champion answers a canary's client; a copy for a shadow may take ten times as long."""
    sticky_by: tuple[Identifier, ...] = ()
    """Request fields; requests that agree in them get the same version. Entities and event by default."""
    approval: bool = False
    """Whether a person must approve before a candidate becomes the champion."""
    guardrails: Guardrails = Guardrails()

    @model_validator(mode="after")
    def _check(self) -> Self:
        percent = list(self.canary_percent)
        if percent != sorted(set(percent)) or any(not 0 < step < 100 for step in percent):
            raise ValueError(f"canary_percent must rise between 0 and 100, found {percent}")
        return self


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
    tables: dict[str, Identifier] = {}
    """Tables, as `layer.name`, that name the subject in a column of another name."""
    texts: dict[str, Identifier] = {}
    """Tables with a text column that may mention the subject; requests and quarantine are known already."""
    models: Literal["retrain", "revoke"]
    """What becomes of models whose training set had the subject's rows."""


class Schedules(SpecPart):
    """When the DAGs run, as cron expressions in UTC."""

    features: Cron = "0 0 * * *"
    push: Cron = "5 * * * *"
    """Hourly, a few minutes after the hour, when its last records are there."""
    training: Cron = "0 2 * * 1"
    """After the day's features: training needs the outcomes of the day before."""
    scoring: Cron = "0 3 * * *"
    """After the day's features; batch scores of the day before."""
    drill: Cron = "0 5 * * 1"
    """Weekly: the version to go back to loads and answers."""
    rollout: Cron = "0 6 * * *"
    """The rollout also starts whenever a candidate is registered; the schedule catches what was missed."""


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
    sources: tuple[Source, ...]
    streams: tuple[Stream, ...] = ()
    transform: DottedPath
    """Module with `clean`, `features` and `examples`, pure functions of Spark data frames."""
    lookback: timedelta
    """How much history before its interval the features step reads."""
    clean_tables: tuple[CleanTable, ...]
    feature_tables: tuple[FeatureTable, ...]
    on_demand: tuple[OnDemandView, ...] = ()
    feature_definitions: DottedPath
    """Module with `definitions(use_case, settings)`, Feast's objects for the use case."""
    feature_service: Identifier
    """The features that models trained now are given; a change of them is a new name."""
    earlier_feature_services: dict[Identifier, tuple[Identifier, ...]] = {}
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
    retention: Retention = Retention()
    erasure: Erasure | None = None
    """Without it there is no erasing by this use case's subject."""

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
    def features(self) -> tuple[str, ...]:
        """The names of all stored features, those of the feature tables."""
        return tuple(name for table in self.feature_tables for name in table.features)

    @property
    def on_demand_features(self) -> tuple[str, ...]:
        """The names of all features that are computed when they are asked for."""
        return tuple(name for view in self.on_demand for name in view.features)

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
