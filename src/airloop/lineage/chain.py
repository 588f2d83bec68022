"""The chain from a source's records to the model that serves, and back, from the primary records.

Belongs here: walking from snapshots' properties to training sets to the model registry, in both directions.
Does not belong here: the event log (`airloop.lineage.events`), which may have gaps, or how a chain is shown.
Importing this module imports MLflow.

A link that no record proves is shown as missing; nothing is guessed from dates or names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mlflow.entities.model_registry import ModelVersion
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from airloop.errors import HistoryError
from airloop.intervals import Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.lakehouse.history import Publication, publications
from airloop.lakehouse.properties import COMMIT, RUN_ID, SOURCE_OFFSETS, SOURCES, properties_of
from airloop.registry import CHAMPION, PROMOTED_BY, open_registry
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase

CLEAN, TRAINING = "clean", "training"
MISSING = "no record"
"""What stands where a link is not recorded."""


class Link(NamedTuple):
    """One thing of the chain, and what it leads to in the direction that was asked for."""

    kind: str
    """`source`, `publication`, `snapshot`, `training set`, `model version` or `live version`."""
    name: str
    facts: Mapping[str, str]
    links: tuple[Link, ...] = ()

    def as_document(self) -> dict[str, Any]:
        """The chain as plain JSON values."""
        return {
            "kind": self.kind,
            "name": self.name,
            "facts": dict(self.facts),
            "links": [link.as_document() for link in self.links],
        }


class Lineage:
    """Answers about one use case, from its tables and its registered model."""

    def __init__(self, settings: Settings, spec: UseCase) -> None:
        self._spec = spec
        self._catalog: Catalog = open_catalog(settings)
        self._registry = open_registry(settings)

    def of_model(self, version: int | None = None) -> Link:
        """Back from a registered version (the champion, without a number) to the records that made it.

        Raises `HistoryError` when there is no such version.
        """
        known = {int(found.version): found for found in self._versions()}
        if version is None:
            champions = [n for n, found in known.items() if CHAMPION in self._aliases(found)]
            version = champions[0] if champions else None
        if version not in known:
            raise HistoryError(
                expected=f"version {version or CHAMPION} of model {self._spec.model_name} in the registry",
                found=", ".join(map(str, sorted(known))) or "no version at all",
                next_step="name one of these, or run the training DAG",
            )
        found = known[version]
        tag = found.tags.get("training_set", "")
        training_set = self._training_sets().get(tag)
        back = (
            self._back_from(tag, training_set)
            if training_set is not None
            else Link("training set", tag or MISSING, {"found": f"{MISSING} of it in {self._training_table}"})
        )
        return self._model(found)._replace(links=(back,))

    def of_data(
        self, table: str | None, *, snapshot_id: int | None, days: Interval | None, source: str | None
    ) -> tuple[Link, ...]:
        """Forward from published data to the models that were trained on it, newest publication first.

        `table` is a clean table (all of them without it); the rest narrows the publications down: one
        snapshot, those about any of `days`, those that have records of `source`. Raises `HistoryError` when
        nothing published fits.
        """
        names = [table] if table else [f"{CLEAN}.{item.name}" for item in self._spec.clean_tables]
        found = [
            self._forward_from(loaded, item)
            for name in names
            if self._catalog.table_exists(name)
            for loaded in [self._catalog.load_table(name)]
            for item in publications(loaded)
            if (snapshot_id is None or item.snapshot_id == snapshot_id)
            and (days is None or _overlaps(item.interval, days))
            and (source is None or source in self._sources(loaded, item))
        ]
        if not found:
            raise HistoryError(
                expected=f"published data in {', '.join(names)} that fits what was asked for",
                found="none",
                next_step="list what there is with: python -m airloop.lakehouse.history --table <table>",
            )
        return tuple(found)

    @property
    def _training_table(self) -> str:
        return f"{TRAINING}.{self._spec.name}"

    def _training_sets(self) -> dict[str, Snapshot]:
        """The pinned training sets, by tag."""
        if not self._catalog.table_exists(self._training_table):
            return {}
        table = self._catalog.load_table(self._training_table)
        return {
            tag: snapshot
            for tag, ref in table.refs().items()
            if ref.snapshot_ref_type == SnapshotRefType.TAG
            and (snapshot := table.snapshot_by_id(ref.snapshot_id)) is not None
        }

    def _back_from(self, tag: str, training_set: Snapshot) -> Link:
        said = properties_of(training_set)
        sources: dict[str, int] = json.loads(said.get(SOURCES, "{}"))
        links = [self._back_from_table(name, snapshot_id) for name, snapshot_id in sorted(sources.items())]
        facts = {**_signed(training_set), "snapshot": str(training_set.snapshot_id)}
        if not sources:
            facts["made from"] = MISSING
        return Link("training set", tag, facts, tuple(links))

    def _back_from_table(self, name: str, snapshot_id: int) -> Link:
        table = self._catalog.load_table(name) if self._catalog.table_exists(name) else None
        head = table.snapshot_by_id(snapshot_id) if table is not None else None
        if table is None or head is None:
            return Link("snapshot", name, {"snapshot": str(snapshot_id), "found": "expired or dropped"})
        made_of = []
        for item in publications(table, head):
            sources = (
                Link("source", source, {key: str(value) for key, value in read.items()})
                for source, read in self._sources(table, item).items()
            )
            made_of.append(_publication(item)._replace(links=tuple(sources)))
        return Link("snapshot", name, {"snapshot": str(snapshot_id)}, tuple(made_of))

    def _sources(self, table: Table, item: Publication) -> dict[str, dict[str, Any]]:
        """What a publication of a clean table read, by source: raw table, its snapshot, records, offsets."""
        snapshot = table.snapshot_by_id(item.snapshot_id)
        said = properties_of(snapshot) if snapshot is not None else {}
        read: dict[str, dict[str, Any]] = json.loads(said.get(SOURCE_OFFSETS, "{}"))
        found: dict[str, dict[str, Any]] = {}
        for raw_table, what in read.items():
            # A clean table may draw on several feeds; those of its own name are what it is made of.
            if raw_table.partition(".")[2] != item.table.partition(".")[2] and len(read) > 1:
                continue
            for source, records in what["sources"].items():
                found[source] = {"raw table": raw_table, "raw snapshot": what["snapshot"], **records}
        return found

    def _forward_from(self, table: Table, item: Publication) -> Link:
        name = ".".join(table.name())
        users = []
        for tag, snapshot in self._training_sets().items():
            sources: dict[str, int] = json.loads(properties_of(snapshot).get(SOURCES, "{}"))
            read = table.snapshot_by_id(sources[name]) if name in sources else None
            if read is not None and item.snapshot_id in set(_line(table, read)):
                facts = {**_signed(snapshot), "snapshot": str(snapshot.snapshot_id)}
                users.append(Link("training set", tag, facts, tuple(self._models_of(tag))))
        return _publication(item)._replace(links=tuple(users))

    def _models_of(self, tag: str) -> Iterator[Link]:
        for version in self._versions():
            if version.tags.get("training_set") == tag:
                yield self._model(version)

    def _versions(self) -> Iterable[ModelVersion]:
        found = self._registry.search_model_versions(f"name='{self._spec.model_name}'")
        return sorted(found, key=lambda version: int(version.version))

    def _aliases(self, version: ModelVersion) -> list[str]:
        # A search leaves the aliases out.
        return list(self._registry.get_model_version(version.name, version.version).aliases)

    def _model(self, version: ModelVersion) -> Link:
        aliases = self._aliases(version)
        facts = {
            "MLflow run": version.run_id or MISSING,
            "aliases": ", ".join(sorted(aliases)) or "none",
            "promoted by": version.tags.get(PROMOTED_BY, MISSING),
        }
        kind = "live version" if CHAMPION in aliases else "model version"
        return Link(kind, f"{version.name}/{version.version}", facts)


def _line(table: Table, head: Snapshot) -> Iterator[int]:
    for snapshot in ancestors_of(head, table.metadata):
        yield snapshot.snapshot_id


def _overlaps(span: Interval | None, days: Interval) -> bool:
    return span is None or (span.start < days.end and days.start < span.end)


def _signed(snapshot: Snapshot) -> dict[str, str]:
    said = properties_of(snapshot)
    return {"run": said.get(RUN_ID, MISSING), "commit": said.get(COMMIT, MISSING)}


def _publication(item: Publication) -> Link:
    span = "everything"
    if item.interval is not None:
        span = f"{item.interval.start:%Y-%m-%d} to {item.interval.end:%Y-%m-%d}"
    facts = {"snapshot": str(item.snapshot_id), "run": item.run_id, "commit": item.commit or MISSING}
    if item.table.startswith(f"{CLEAN}."):
        facts["audit"] = item.audit or MISSING
    return Link("publication", f"{item.table}, {span}", facts)
