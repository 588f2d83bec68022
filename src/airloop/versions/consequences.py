"""What was made of published data since: features, training sets and registered models.

Belongs here: finding what a rollback leaves stale. Does not belong here: rolling back, or building anything
again. Importing this module imports MLflow.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.exceptions import MlflowException
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from airloop.intervals import ONE_DAY, Interval
from airloop.lakehouse.history import Publication, publications
from airloop.lakehouse.properties import SOURCES, properties_of
from airloop.references import StaleFeatures, StaleModel
from airloop.registry import open_registry
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase

FEATURES, TRAINING = "features", "training"


class Consequences(NamedTuple):
    """What stands on data that is not published any more."""

    days: Interval
    """The days whose features must be built again."""
    features: tuple[StaleFeatures, ...]
    training_sets: tuple[str, ...]
    models: tuple[StaleModel, ...]
    notes: tuple[str, ...]


def consequences(
    settings: Settings,
    spec: UseCase,
    catalog: Catalog,
    first_undone: Mapping[str, tuple[Table, Publication]],
    days: Interval,
) -> Consequences:
    """What was made since `first_undone` (by table name) of the clean rows of `days`.

    A feature row reaches back over the spec's lookback, so days after `days` are stale too where their
    features were built since.
    """
    since = min(publication.at for _, publication in first_undone.values())
    features = _stale_features(spec, catalog, since, days)
    last = max((parse_end(item) for item in features), default=days.end)
    reach = days.end + -(-spec.lookback // ONE_DAY) * ONE_DAY
    training_sets = _stale_training_sets(spec, catalog, since, first_undone)
    models, notes = _stale_models(settings, spec, training_sets)
    return Consequences(
        days=Interval(days.start, max(days.end, min(last, reach))),
        features=features,
        training_sets=training_sets,
        models=models,
        notes=notes,
    )


def parse_end(features: StaleFeatures) -> datetime:
    """The end of the stale interval."""
    return datetime.fromisoformat(features.end)


def _stale_features(
    spec: UseCase, catalog: Catalog, since: datetime, days: Interval
) -> tuple[StaleFeatures, ...]:
    found = []
    for declared in spec.own_feature_tables:
        name = f"{FEATURES}.{declared.name}"
        if not catalog.table_exists(name):
            continue
        for item in publications(catalog.load_table(name)):
            span = item.interval
            if span is None or item.at < since:
                continue
            if span.end > days.start and span.start < days.end + spec.lookback:
                found.append(
                    StaleFeatures(
                        table=name,
                        start=span.start.isoformat(),
                        end=span.end.isoformat(),
                        snapshot_id=item.snapshot_id,
                    )
                )
    return tuple(found)


def _stale_training_sets(
    spec: UseCase,
    catalog: Catalog,
    since: datetime,
    first_undone: Mapping[str, tuple[Table, Publication]],
) -> tuple[str, ...]:
    """Tags of the training sets that were built from an undone publication or from what came after it."""
    name = f"{TRAINING}.{spec.name}"
    if not catalog.table_exists(name):
        return ()
    table, found = catalog.load_table(name), []
    for tag, ref in table.refs().items():
        snapshot = table.snapshot_by_id(ref.snapshot_id)
        if ref.snapshot_ref_type != SnapshotRefType.TAG or snapshot is None:
            continue
        if _built_from(snapshot, since, first_undone):
            found.append(tag)
    return tuple(sorted(found))


def _built_from(
    training_set: Snapshot, since: datetime, first_undone: Mapping[str, tuple[Table, Publication]]
) -> bool:
    """Whether the set's sources have an undone publication behind them; by the clock where they expired."""
    sources = json.loads(properties_of(training_set).get(SOURCES, "{}"))
    for name, (table, publication) in first_undone.items():
        source = table.snapshot_by_id(sources[name]) if name in sources else None
        if source is None:
            if training_set.timestamp_ms >= since.timestamp() * 1000:
                return True
        elif publication.snapshot_id in {s.snapshot_id for s in ancestors_of(source, table.metadata)}:
            return True
    return False


def _stale_models(
    settings: Settings, spec: UseCase, training_sets: Collection[str]
) -> tuple[tuple[StaleModel, ...], tuple[str, ...]]:
    """The registered versions of `training_sets`, and a note where the registry does not answer.

    A rollback is urgent: it does not wait for a registry that is down.
    """
    if not training_sets:
        return (), ()
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(1)  # type: ignore[no-untyped-call]  # MLflow publishes no types
    try:
        client = open_registry(settings)
        found = []
        for version in client.search_model_versions(f"name='{spec.model_name}'"):
            if (made_of := version.tags.get("training_set")) in training_sets:
                # A search leaves the aliases out.
                aliases = client.get_model_version(spec.model_name, version.version).aliases
                found.append(
                    StaleModel(
                        name=spec.model_name,
                        version=int(version.version),
                        training_set=made_of,
                        aliases=tuple(sorted(aliases)),
                    )
                )
    except MlflowException as error:
        note = (
            f"the models trained on {', '.join(training_sets)} are not known: the registry at "
            f"{settings.tracking_uri} did not answer ({str(error).splitlines()[0][:200]}); "
            "repeat the dry run when it does"
        )
        return (), (note,)
    return tuple(sorted(found, key=lambda model: model.version)), ()
