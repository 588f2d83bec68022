"""The small typed references that tasks hand to each other: where data is, and which version of it.

Belongs here: what fits in an XCom. Does not belong here: data.
"""

from __future__ import annotations

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


class Published(Reference):
    """Tables whose `main` now has the run's data."""

    snapshots: tuple[TableSnapshot, ...]


class Materialised(Reference):
    """Feature views written to the online store for an explicit interval."""

    feature_views: tuple[str, ...]
    start: str
    end: str


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
    test_roc_auc: float | None
    test_log_loss: float | None
    baseline_roc_auc: float | None


class RegisteredModel(Reference):
    """A version in the MLflow registry; the model server uses the same number."""

    name: str
    version: int
    run_id: str


class InfraChecked(Reference):
    """A candidate that loads on the model server and answers as training predicted."""

    name: str
    version: int
    requests_replayed: int
    largest_difference: float


class LiveModel(Reference):
    """The version that takes the traffic."""

    name: str
    version: int
    previous_version: int | None


class Abandoned(Reference):
    """A candidate that was unloaded; what serves is what served before."""

    name: str
    version: int
    """The candidate."""
    live_version: int | None
    """The champion, which no candidate's failure touches; none before the first promotion."""
