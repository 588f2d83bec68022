"""What a task's lineage event says: the datasets that its job read and wrote, from the job's own references.

Belongs here: which datasets a job touches, and how each is called and versioned outside of Airloop (by
OpenLineage's naming). Does not belong here: OpenLineage's classes and Airflow (`airloop_airflow.lineage`),
or answering questions (`chain`): an event log may have gaps, so nothing is answered from it.

DAGs import this module through their operator, so it stays light.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlparse

from pydantic import ValidationError

from airloop.references import (
    Abandoned,
    AuditBranch,
    AuditReport,
    Candidate,
    Evaluated,
    InfraChecked,
    Ingested,
    LiveModel,
    Materialised,
    Published,
    Reference,
    RegisteredModel,
    RolledBack,
    StreamIngested,
    TableSnapshot,
    TrainingSet,
)
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase

QUARANTINE: Final = "raw.quarantine"


class Dataset(NamedTuple):
    """One dataset, as an event names it."""

    namespace: str
    name: str
    version: str | None = None
    """An Iceberg snapshot id, or a model's version; None where the job's reference does not say."""
    rows: int | None = None
    """Rows that the run wrote; None for what it read."""
    symlink: tuple[str, str] | None = None
    """Another namespace and name of the same dataset: a table's in its catalog."""
    tags: Mapping[str, str] = {}


class Touched(NamedTuple):
    """What a job read and wrote."""

    inputs: tuple[Dataset, ...] = ()
    outputs: tuple[Dataset, ...] = ()


class Run(NamedTuple):
    """A job's run as far as it is known: before it ended, and after a failure, without a `result`."""

    settings: Settings
    spec: UseCase
    flags: Mapping[str, Any]
    result: Reference | None

    def given(self, flag: str, kind: type[Reference]) -> Any:
        """The reference that was passed as `flag`; None for anything else."""
        value = self.flags.get(flag)
        try:
            return kind.model_validate_json(value if isinstance(value, str) else json.dumps(value))
        except (ValidationError, TypeError):
            return None


def touched(
    settings: Settings,
    spec: UseCase,
    module: str,
    flags: Mapping[str, Any],
    document: Mapping[str, Any] | None,
) -> Touched:
    """What the job `module` of `spec`, started with `flags`, read and wrote; nothing for a job without data.

    `document` is the job's result, None where there is none. A document that is not what the job promises
    counts as none: an event must not fail the task that it is about.
    """
    if module not in _JOBS:
        return Touched()
    kind, of = _JOBS[module]
    try:
        result = kind.model_validate(document) if document is not None else None
    except ValidationError:
        result = None
    return of(Run(settings, spec, flags, result))


def table(
    settings: Settings,
    name: str,
    *,
    version: int | None = None,
    rows: int | None = None,
    tags: Mapping[str, str] | None = None,
) -> Dataset:
    """The Iceberg table `namespace.table`: called by its place, as Spark's integration calls it."""
    location = urlparse(settings.warehouse_location)
    bucket = location.scheme == "s3"
    path = "/".join([location.path, *name.split(".")])
    return Dataset(
        namespace=f"s3://{location.netloc}" if bucket else "file",
        name=path.lstrip("/") if bucket else unquote(path),
        version=None if version is None else str(version),
        rows=rows,
        symlink=(settings.warehouse_location.replace("file:///", "file:/"), name),
        tags=tags or {},
    )


def source(name: str, feed: str) -> Dataset:
    """What the source or stream `name` delivers of `feed`; where it is, is in a connection."""
    return Dataset(namespace=f"airloop-source:{name}", name=feed)


def online(view: str) -> Dataset:
    """A feature view in the online store."""
    return Dataset(namespace="feast-online", name=view)


def model_of_run(settings: Settings, run_id: str) -> Dataset:
    """A trained model that is not registered, or not yet."""
    return Dataset(namespace=settings.tracking_uri, name=f"runs/{run_id}/saved_model")


def verdict(settings: Settings, evaluated: Evaluated) -> Dataset:
    """The verdict on a trained model."""
    said = "accepted" if evaluated.accepted else "rejected"
    return Dataset(
        namespace=settings.tracking_uri,
        name=f"runs/{evaluated.run_id}/verdict.json",
        tags={"verdict": said},
    )


def registered_model(settings: Settings, name: str, version: int | None) -> Dataset:
    """A version in the model registry."""
    return Dataset(
        namespace=settings.tracking_uri,
        name=f"models/{name}",
        version=None if version is None else str(version),
    )


def live_model(settings: Settings, name: str, version: int) -> Dataset:
    """What the model server answers with."""
    return Dataset(namespace=f"grpc://{settings.model_server_place}", name=name, version=str(version))


def _written(run: Run, snapshots: tuple[TableSnapshot, ...], **tags: str) -> tuple[Dataset, ...]:
    return tuple(
        table(run.settings, item.table, version=item.snapshot_id, rows=item.rows, tags=tags)
        for item in snapshots
    )


def _read(run: Run, layer: str, names: list[str], **tags: str) -> tuple[Dataset, ...]:
    return tuple(table(run.settings, f"{layer}.{name}", tags=tags) for name in names)


def _clean_names(run: Run) -> list[str]:
    return [item.name for item in run.spec.clean_tables]


def _ingest(run: Run) -> Touched:
    read = tuple(source(item.name, feed.name) for item in run.spec.sources for feed in item.feeds)
    if not isinstance(run.result, Ingested):
        return Touched(read)
    wrote = _written(run, run.result.snapshots)
    if run.result.quarantined:
        wrote += (table(run.settings, QUARANTINE, rows=run.result.quarantined),)
    return Touched(read, wrote)


def _stream_ingest(run: Run) -> Touched:
    asked = run.flags.get("stream")
    streams = [item for item in run.spec.streams if item.name == asked]
    read = tuple(source(item.name, feed) for item in streams for feed in sorted(item.topics))
    wrote = _written(run, run.result.snapshots) if isinstance(run.result, StreamIngested) else ()
    return Touched(read, wrote)


def _clean(run: Run) -> Touched:
    read = _read(run, "raw", [feed.name for feed in run.spec.feeds])
    if not isinstance(run.result, AuditBranch):
        return Touched(read)
    return Touched(read, _written(run, run.result.snapshots, branch=run.result.branch))


def _audit(run: Run) -> Touched:
    said = {"branch": str(run.flags.get("branch", ""))}
    if isinstance(run.result, AuditReport):
        said = {
            "branch": run.result.branch,
            "audit": "passed",
            "expectations": str(run.result.expectations),
            "report": run.result.report_uri,
        }
    return Touched(_read(run, "clean", _clean_names(run), **said))


def _publish(run: Run) -> Touched:
    read = _read(run, "clean", _clean_names(run), branch=str(run.flags.get("branch", "")))
    wrote = _written(run, run.result.snapshots) if isinstance(run.result, Published) else ()
    return Touched(read, wrote)


def _features(run: Run) -> Touched:
    wrote = _written(run, run.result.snapshots) if isinstance(run.result, Published) else ()
    return Touched(_read(run, "clean", _clean_names(run)), wrote)


def _materialise(run: Run) -> Touched:
    read = _read(run, "features", [item.name for item in run.spec.own_feature_tables])
    views = run.result.feature_views if isinstance(run.result, Materialised) else ()
    return Touched(read, tuple(map(online, views)))


def _pinned(run: Run, training_set: TrainingSet, rows: int | None = None) -> Dataset:
    said = {"training_set": training_set.tag, "as_of": training_set.as_of}
    return table(run.settings, training_set.table, version=training_set.snapshot_id, rows=rows, tags=said)


def _training_set(run: Run) -> Touched:
    if not isinstance(run.result, TrainingSet):
        names = [item.name for item in run.spec.feature_tables]
        return Touched(_read(run, "clean", _clean_names(run)) + _read(run, "features", names))
    read = tuple(table(run.settings, item.table, version=item.snapshot_id) for item in run.result.sources)
    return Touched(read, (_pinned(run, run.result, run.result.rows),))


def _train(run: Run) -> Touched:
    training_set = run.given("training-set", TrainingSet)
    read = (_pinned(run, training_set),) if training_set else ()
    wrote = (model_of_run(run.settings, run.result.run_id),) if isinstance(run.result, Candidate) else ()
    return Touched(read, wrote)


def _evaluate(run: Run) -> Touched:
    training_set, candidate = run.given("training-set", TrainingSet), run.given("candidate", Candidate)
    read: tuple[Dataset, ...] = (_pinned(run, training_set),) if training_set else ()
    if candidate:
        read += (model_of_run(run.settings, candidate.run_id),)
    if not isinstance(run.result, Evaluated):
        return Touched(read)
    return Touched(read, (verdict(run.settings, run.result),))


def _register(run: Run) -> Touched:
    evaluated = run.given("evaluated", Evaluated)
    read: tuple[Dataset, ...] = ()
    if evaluated:
        read = (model_of_run(run.settings, evaluated.run_id), verdict(run.settings, evaluated))
    if not isinstance(run.result, RegisteredModel):
        return Touched(read)
    return Touched(read, (registered_model(run.settings, run.result.name, run.result.version),))


def _candidate_version(run: Run) -> Dataset:
    if isinstance(run.result, InfraChecked | LiveModel | Abandoned):
        return registered_model(run.settings, run.result.name, run.result.version)
    asked = str(run.flags.get("version") or "")
    return registered_model(run.settings, run.spec.model_name, int(asked) if asked.isdecimal() else None)


def _infra_check(run: Run) -> Touched:
    return Touched((_candidate_version(run),))


def _promote(run: Run) -> Touched:
    live = run.result
    wrote = (live_model(run.settings, live.name, live.version),) if isinstance(live, LiveModel) else ()
    return Touched((_candidate_version(run),), wrote)


def _roll_back(run: Run) -> Touched:
    if not isinstance(run.result, RolledBack) or not run.result.changed:
        return Touched()
    return Touched(outputs=_written(run, run.result.snapshots, rolled_back=run.result.before_run))


_JOBS: Final[Mapping[str, tuple[type[Reference], Callable[[Run], Touched]]]] = {
    "spark_jobs.ingest": (Ingested, _ingest),
    "spark_jobs.stream_ingest": (StreamIngested, _stream_ingest),
    "spark_jobs.clean": (AuditBranch, _clean),
    "spark_jobs.audit": (AuditReport, _audit),
    "airloop.lakehouse.publish": (Published, _publish),
    "airloop.versions.rollback": (RolledBack, _roll_back),
    "spark_jobs.features": (Published, _features),
    "feature_repo.materialise": (Materialised, _materialise),
    "spark_jobs.training_set": (TrainingSet, _training_set),
    "airloop.training.train": (Candidate, _train),
    "airloop.training.evaluate": (Evaluated, _evaluate),
    "airloop.training.register": (RegisteredModel, _register),
    "serving.infra_check": (InfraChecked, _infra_check),
    "serving.promote": (LiveModel, _promote),
    "serving.abandon": (Abandoned, _infra_check),
}
