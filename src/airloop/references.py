"""The small typed references that tasks hand to each other: where data is, and which version of it.

Belongs here: what fits in an XCom. Does not belong here: data.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Reference(BaseModel):
    """Base of all references: frozen, unknown fields rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TableSnapshot(Reference):
    """One version of an Iceberg table."""

    table: str
    """`namespace.table`, without the catalog."""
    snapshot_id: int
    """Iceberg's snapshot id."""
    rows: int
    """Rows that the run wrote or covers (not the rows of the whole table)."""


class Ingested(Reference):
    """What an ingestion appended to the raw tables."""

    snapshots: tuple[TableSnapshot, ...]
    duplicates: int
    """Delivered records that were there already, by source key and offset, and were not appended again."""
    withdrawn: int = 0
    """Records of the interval that a source delivered before and does not any more; they were taken out."""
    quarantined: int = 0
    """Malformed records that went to the quarantine table."""


class StreamIngested(Reference):
    """What a stream brought into the raw tables since a run last reported on it.

    Commits of an earlier run that was killed before it could report are included.
    """

    stream: str
    rows: dict[str, int]
    """Records appended, by feed."""
    quarantined: int
    """Malformed messages that went to the quarantine table."""
    days: tuple[str, ...]
    """UTC days (ISO 8601) that have new records, by event time, earliest first; at most `MOST_DAYS`."""
    days_omitted: int = 0
    """Days beyond those; they are the earliest ones."""
    snapshots: tuple[TableSnapshot, ...] = ()
    """The last commit of the stream to each table, with the rows of all its commits."""


class StreamPublished(Reference):
    """What a replay sent to a stream."""

    stream: str
    messages: dict[str, int]
    """Messages, by feed."""


class AuditBranch(Reference):
    """Clean data written aside, on a branch of each table, waiting for its audit."""

    branch: str
    snapshots: tuple[TableSnapshot, ...]


class AuditReport(Reference):
    """The outcome of a passed audit."""

    branch: str
    expectations: int
    report_uri: str
    """Where the machine-readable validation results are."""
    data_docs_uri: str = ""
    """The first page of Great Expectations' Data Docs of this audit."""
    not_judged: int = 0
    """Expectations that compare with published history, of which there is too little yet."""
    changed_days: dict[str, tuple[str, ...]] = {}
    """By table, the days (ISO 8601) that were published before and whose rows are not the same now."""


class Published(Reference):
    """Tables whose `main` now has the run's data."""

    snapshots: tuple[TableSnapshot, ...]
    changed_days: tuple[str, ...] = ()
    """Days (ISO 8601) that were published before with other rows: what was made of those is stale."""


class UndonePublication(Reference):
    """An interval of a clean table that a run published, and a rollback takes back."""

    table: str
    run_id: str
    start: str
    end: str
    snapshot_id: int


class StaleFeatures(Reference):
    """An interval of a feature table that was computed from data which is not published any more."""

    table: str
    start: str
    end: str
    snapshot_id: int


class StaleModel(Reference):
    """A registered version that was trained on such data."""

    name: str
    version: int
    training_set: str
    aliases: tuple[str, ...]


class StaleTrainingSet(Reference):
    """A pinned training set whose source rows are not what is published now."""

    tag: str
    reason: str


class MarkedStale(Reference):
    """The training sets and models of a use case that were made of rows which changed since."""

    use_case: str
    training_sets: tuple[StaleTrainingSet, ...]
    models: tuple[StaleModel, ...]
    retrain: bool
    """Whether the champion is among them and the use case's spec wants another one trained."""


class RolledBack(Reference):
    """Clean tables set back to before a run, or with `dry_run` what that would mean."""

    use_case: str
    before_run: str
    dry_run: bool
    start: str
    """First day whose features must be built again, ISO 8601."""
    end: str
    """Day after the last one."""
    snapshots: tuple[TableSnapshot, ...]
    """What `main` of each table is (or, in a dry run, whose rows it would get)."""
    changed: bool
    """Whether any table moved; false for a dry run and for one that was rolled back before."""
    undone: tuple[UndonePublication, ...]
    features: tuple[StaleFeatures, ...]
    training_sets: tuple[str, ...]
    """Tags."""
    models: tuple[StaleModel, ...]
    notes: tuple[str, ...]
    """What could not be found out, or was left as it is, in words."""


class MaintainedTable(Reference):
    """What maintenance did to one table, or with a dry run would do."""

    table: str
    files_before: int
    """Data files of `main`."""
    files_after: int
    """In a dry run the same: what compaction would leave shows only when it is done."""
    branches_dropped: tuple[str, ...]
    snapshots_expired: int
    orphans_removed: int
    """Files that no snapshot knew."""


class Maintained(Reference):
    """The tables that were maintained."""

    tables: tuple[MaintainedTable, ...]
    dry_run: bool


class Materialised(Reference):
    """Feature views written to the online store for an explicit interval."""

    feature_views: tuple[str, ...]
    start: str
    end: str


class Pushed(Reference):
    """Newest feature values brought to the online store before their day was audited."""

    until: str
    rows: dict[str, int]
    """Entities written, by feature view."""


class TrainingSet(Reference):
    """A point-in-time training set, pinned by a tag."""

    table: str
    tag: str
    snapshot_id: int
    rows: int
    train_rows: int
    validation_rows: int
    test_rows: int
    as_of: str
    """ISO 8601 instant: only what was known then is in the set."""
    sources: tuple[TableSnapshot, ...]
    """The versions of the clean and feature tables that the set was built from."""


class Study(Reference):
    """A search for better parameters that is open."""

    name: str
    slots: tuple[int, ...]
    """One for each trial; the first one tries the spec's own parameters."""


class TrialDone(Reference):
    """What became of a study's slot."""

    study: str
    slot: int
    state: Literal["complete", "pruned", "skipped"]
    """`skipped` when the study's time was over before it began."""
    loss: float | None
    """That of the best epoch on the validation split; where it was pruned, of the last one."""
    parameters: dict[str, int | float]
    """Those that were tried."""
    summary: str
    """For the grid."""


class Tuned(Reference):
    """A closed study, and the parameters to train with: its best ones, or the spec's own."""

    study: str
    parameters: dict[str, int | float]
    """All of the model's parameters."""
    improved: bool
    """Whether they are not the spec's own."""
    loss: float
    """The best trial's, on the validation split."""
    own_loss: float | None
    """That of the spec's own parameters; None when their trial did not finish."""
    complete: int
    pruned: int
    unfinished: int
    """Trials that failed or were killed."""
    run_id: str
    """MLflow run with the plots."""
    page_uri: str


class Folds(Reference):
    """The folds of a training set, by number, in order of time, and what they are to be trained with."""

    training_set: str
    folds: tuple[int, ...]
    tuned: Tuned | None = None
    """None for the spec's own parameters."""


class FoldMeasured(Reference):
    """A model that knew only what was before a fold's days, measured on them."""

    fold: int
    start: str
    """First day that it was measured on, ISO 8601."""
    end: str
    """Day after the last one."""
    train_rows: int
    stopping_rows: int
    """Later rows, still before `start`, that said when to stop, and calibrated."""
    rows: int
    positives: int | None
    """Of a label with classes: rows of the rarest."""
    best_epoch: int
    figures: dict[str, float | None]
    """By name; None where one is not defined."""
    summary: str
    """For the grid."""


class Spread(Reference):
    """One measure over all folds."""

    mean: float
    deviation: float
    """Standard deviation of a fold's value (with n - 1)."""


class CrossValidated(Reference):
    """How good the parameters are over several times, not one."""

    run_id: str
    """MLflow run with each fold's measures."""
    document_uri: str
    folds: int
    figures: dict[str, Spread | None]
    """By name; None when a fold's is not defined."""


class Followed(Reference):
    """A worker other than the first took part in a training; the first one has the result."""

    worker: int


class Candidate(Reference):
    """A trained model that is not registered yet."""

    run_id: str
    """MLflow run."""
    model_uri: str
    """The SavedModel's artifact URI."""


class Evaluated(Reference):
    """The verdict on a candidate; a figure that is not defined is None, and the candidate rejected for it."""

    run_id: str
    accepted: bool
    verdict_uri: str
    page_uri: str = ""
    """The verdict as a page, in the reports folder."""
    figures: dict[str, float | None]
    """As they are called in MLflow: the candidate's that ranks it and its loss, and the baseline's that ranks
    it."""
    failed: tuple[str, ...] = ()
    """Why it is rejected: each failed rule's name and detail."""


class RegisteredModel(Reference):
    """A version in the MLflow registry; the model server uses the same number."""

    name: str
    version: int
    run_id: str


class PromotedModel(Reference):
    """A version that came from another environment's registry, or may come."""

    name: str
    version: int | None
    """In the target; None where nothing was copied."""
    run_id: str | None
    """The copied run there."""
    origin: str
    """`<use case>/<version>/<run>` in the source."""
    code_commit: str
    training_set: str


class InfraChecked(Reference):
    """A candidate that loads on the model server and answers as training predicted."""

    name: str
    version: int
    champion: int | None
    """What serves."""
    requests_replayed: int
    largest_difference: float
    single_row_p99_seconds: float | None = None
    """On a server of its own; None for the version that serves."""
    memory_mebibytes: float | None = None
    """What that server needed."""


class RolloutCheck(Reference):
    """What one rule of a rollout found."""

    name: str
    value: float | None
    """The candidate's; None where there is nothing to measure."""
    champion: float | None
    """The champion's, in the same minutes."""
    threshold: float | None
    """What the candidate may reach."""
    low: float | None = None
    """Lower bound of the value: a rule is breached when that is above its threshold."""
    high: float | None = None
    requests: int
    """What it was measured on."""
    outcome: Literal["passed", "breached", "unknown"]
    detail: str


class ExperimentMeasure(Reference):
    """One measure of an A/B test's two versions; None where too few units have it."""

    name: str
    control: float | None
    """Mean over units."""
    treatment: float | None
    effect: float | None
    """Treatment less control."""
    low: float | None
    """Of the 95% interval of the effect."""
    high: float | None
    control_units: int
    treatment_units: int


class ExperimentResult(Reference):
    """What an A/B test found at its end."""

    name: str
    champion: int
    """Version A."""
    version: int
    """Version B."""
    share: float
    control_units: int
    treatment_units: int
    sample_ratio_p_value: float | None
    sample_ratio_mismatch: bool
    """The split is not as it was drawn: the rest is not to be trusted."""
    measures: tuple[ExperimentMeasure, ...]


class StageDecision(Reference):
    """What a look at a rollout's stage decided, with its numbers."""

    name: str
    version: int
    stage: str
    """A rollout's, or `experiment`."""
    decision: Literal["go_on", "hold", "roll_back", "superseded"]
    reason: str
    champion: int | None
    """What the candidate was compared with."""
    since: datetime | None
    """When the stage began; None for one that waits until it can."""
    until: datetime
    """What came after is not in the numbers."""
    look_again_at: datetime | None = None
    """For a hold: when to look again."""
    requests: int = 0
    """Requests that clients sent since the stage began."""
    checks: tuple[RolloutCheck, ...] = ()
    disagreement: float | None = None
    """Mean absolute difference between the two on the same requests."""
    seconds_to_roll_back: float | None = None
    """For a candidate that was given up: from the decision until it had no traffic."""
    experiment: ExperimentResult | None = None
    """For an experiment that ended."""
    page_uri: str | None = None
    """The rollout's report."""


class LiveModel(Reference):
    """The version that takes the traffic."""

    name: str
    version: int
    previous_version: int | None


class WentBack(Reference):
    """What going back by hand did."""

    name: str
    version: int
    """What has the traffic."""
    given_up: int | None
    """What lost it."""
    was_candidate: bool
    """Whether that was a candidate in its rollout; else it was the champion."""
    seconds: float
    """From the start until clients were answered by `version` again."""
    reason: str


class Abandoned(Reference):
    """A candidate that was unloaded; what serves is what served before."""

    name: str
    version: int
    """The candidate."""
    live_version: int | None
    """The champion, which no candidate's failure touches; none before the first promotion."""


class ErasureTable(Reference):
    """What one table had of an erased subject."""

    table: str
    rows: dict[str, int]
    """The subject's rows by branch and tag."""
    snapshots: int
    """Snapshots that know a file with the subject: to be expired, or expired."""
    files: int
    """In a plan, data files that hold the subject; afterwards, files removed, metadata too."""


class ErasureTrainingSet(Reference):
    """A training set that has, or had before its erasure, rows of the subject."""

    use_case: str
    tag: str
    snapshot_id: int
    """What the tag pins now."""
    rows: int
    """The subject's rows in it now."""
    erased_rows: int
    """The subject's rows that were taken out of it."""


class ErasurePlan(Reference):
    """What an erasure would do, or is about to do; a dry run ends here."""

    subject: str
    """The subject's digest."""
    use_case: str
    tables: tuple[ErasureTable, ...]
    online_entries: int
    texts: int
    """Logs, reports and scratch files that mention the subject."""
    training_sets: tuple[ErasureTrainingSet, ...]


class ErasureDone(Reference):
    """What an erasure did; all zeros when there was nothing left to do."""

    subject: str
    use_case: str
    tables: tuple[ErasureTable, ...]
    online_entries: int
    texts_masked: int
    """Places in logs and reports that were overwritten."""
    strays_removed: int
    """Files of dead writers that held the subject and that no table knew."""
    training_sets: tuple[ErasureTrainingSet, ...]
    """Those that it was taken out of, by this run or an earlier one, with what their tags pin now."""


class ErasureProof(Reference):
    """Everything was scanned and nothing of the subject was found; there is no proof of anything else."""

    subject: str
    files_scanned: int
    values_scanned: int
    online_entries_scanned: int
    unreadable: int
    """Files that their own format cannot decode; they were scanned as bytes."""
    similar: int
    """Longer names that contain the subject, which a person said are others'."""
    found: Literal[0] = 0


class ErasureModel(Reference):
    """A training run, and the version made from it if any, that used the subject's rows."""

    use_case: str
    run_id: str
    version: int | None
    training_set: str
    aliases: tuple[str, ...]
    action: Literal["retrain", "revoke", "none"]


class ErasureModels(Reference):
    """The models that used the subject's rows, and what was (or would be) done about them."""

    subject: str
    models: tuple[ErasureModel, ...]
    retrain: tuple[str, ...]
    """Use cases that are to be trained again."""
    next_step: str
    """What is left for a person."""


class AuditEntry(Reference):
    """A record of the audit log. Its hash in Airflow anchors the log against being cut short."""

    sequence: int
    hash: str


class ScoringSet(Reference):
    """What a batch scoring asks the champion."""

    table: str
    snapshot_id: int
    rows: int
    start: str
    end: str


class Scored(Reference):
    """What the champion said of the events of an interval."""

    table: str
    version: int
    rows: int
    mean_answer: dict[str, float] | None
    """By the label's name, or those of classes or quantiles."""


class Drilled(Reference):
    """The version to go back to, which loads and answers."""

    name: str
    version: int
    why: str
    """Why it is that one."""
    loaded: bool
    """Whether the model server holds it: then going back is a matter of a label."""
    requests_replayed: int
    largest_difference: float
    seconds: float
    """From the registry to its answers."""


class LandedPredictions(Reference):
    """Records that were taken from the gateways' spool into their table."""

    table: str
    rows: int
    outcomes: int = 0
    """Outcomes of predictions, which go to a table of their own."""
    files: int
    """Files of the spool that the table has all of, and that were removed."""
    damaged_lines: int
    """Lines that could not be read; they are in no table."""


class Watched(Reference):
    """The version whose traffic is compared with its own window."""

    use_case: str
    version: int | None = None
    run_id: str | None = None
    skipped: str | None = None
    """Why there is none."""


class CountedPredictions(Reference):
    """Hours of the prediction log that were counted for one version."""

    table: str
    run_id: str
    start: str
    end: str
    """ISO 8601, UTC; the hours that were counted now, those of earlier runs not among them."""
    hours: int
    rows: int


class JudgedWindows(Reference):
    """Windows of one version's traffic, and what the last of them showed."""

    version: int
    windows: int
    """Those of the span that could be judged, or were found to have too few requests."""
    last_end: str | None = None
    requests: int = 0
    failed: int = 0
    requests_before: int | None = None
    """A week before."""
    alarmed: tuple[str, ...] = ()
    heard: tuple[str, ...] = ()
    """Alarms that nobody silenced."""
    began: tuple[str, ...] = ()
    """Alarms that nobody silenced and that the judged window before did not have, or only silenced."""
    cleared: tuple[str, ...] = ()
    """Alarms of the judged window before that are over."""
    lost_traffic: bool = False
    lost_traffic_began: bool = False
    lost_traffic_cleared: bool = False
    silenced: tuple[str, ...] = ()
    """What is silenced, until when, by whom and why."""
    not_compared: tuple[str, ...] = ()
    """Features with too few days in the version's own window."""
    lines: tuple[str, ...] = ()
    """What drifted, largest first, in words."""
    distances: dict[str, float] = {}
    """How far each feature of the last window is from the version's own; empty where it was too quiet."""


class CountedScores(Reference):
    """Hours whose answers were joined to labels and added up."""

    table: str = ""
    start: str = ""
    end: str = ""
    hours: int = 0
    rows: int = 0
    skipped: str | None = None
    """Why there was nothing to count."""


class JudgedQuality(Reference):
    """Days of one version's answers, and how good they were on the last that enough labels are in of."""

    version: int
    days: int
    """Those that could be judged."""
    waiting: int
    """Those with too few labels yet, or with too few answers."""
    last_day: str | None = None
    answers: int = 0
    labelled: int = 0
    figures: dict[str, float | None] = {}
    usual: dict[str, float] = {}
    """Of those that tell decay, the means of the test days."""
    said: str = ""
    """Both in words."""
    alarmed: bool = False
    began: bool = False
    """Alarmed, as the day before and the same day, judged by an earlier run, were not; or a silence ended."""
    cleared: bool = False
    """Not alarmed any more, and no earlier run said so."""
    silenced: str | None = None
    """Until when, by whom and why nobody hears that it decays."""
    has_test_days: bool = True
    """Whether there is anything to judge by."""


class RetrainingDecision(Reference):
    """Whether a candidate is to be trained, and why."""

    version: int | None = None
    """The champion."""
    requested: bool = False
    causes: tuple[str, ...] = ()
    refusal: str | None = None
    """Why nothing is requested though there is cause to (`airloop.retraining.decision.Refusal`)."""
    said: str = ""
    """All of it in words."""
    needs_a_person: bool = False
    """It is refused for a reason that does not pass by itself, and was not the time before."""
    skipped: str | None = None
    """Why there was nothing to decide."""


class Silenced(Reference):
    """A cause that nobody hears of until a moment."""

    cause: str
    until: str
    lifted: bool
    """The moment is past: the cause is heard again."""


class JudgedSkew(Reference):
    """Days of served features against those that training would have had, and what is new on the last."""

    day: str | None = None
    rows: int = 0
    """Answers that were compared."""
    skewed: tuple[str, ...] = ()
    began: tuple[str, ...] = ()
    """Features that were not skewed the day before, where nobody silenced it."""
    cleared: tuple[str, ...] = ()
    silenced: str | None = None
    lines: tuple[str, ...] = ()
    """Features by the share of unequal values, the largest first, in words."""
    unequal_shares: dict[str, float] = {}
    """Of the answers of the day, by feature; only features with enough answers to be judged."""
    skipped: str | None = None
    """Why there was nothing to compare."""


class LateData(Reference):
    """What was not published in time."""

    use_case: str
    at: str
    """ISO 8601, UTC."""
    late: dict[str, str] = {}
    """By table, what it lacks, in words."""


class DayReport(Reference):
    """Evidently's reports of a day of one version."""

    page_uri: str = ""
    rows: int = 0
    """Answers in the sample."""
    compared_with: dict[str, int] = {}
    """By report, the rows of the other side's sample."""
    skipped: str | None = None
    """Why there is none."""
