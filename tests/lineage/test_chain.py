"""The chain in both directions, over real Iceberg tables and a real MLflow registry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from mlflow import MlflowClient
from pyiceberg.table import Table

from airloop import registry
from airloop.errors import HistoryError
from airloop.intervals import day_interval
from airloop.lakehouse.catalog import open_catalog
from airloop.lakehouse.properties import (
    AUDIT,
    COMMIT,
    INTERVAL,
    RUN_ID,
    SOURCE_OFFSETS,
    SOURCES,
    interval_text,
)
from airloop.lineage.__main__ import lines_of
from airloop.lineage.chain import Lineage, Link
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase

DAYS = [day_interval(date(2013, 3, day)) for day in (4, 5, 6)]
ROWS = pa.table({"flight_id": ["a"], "published_at": pa.array([DAYS[0].start], pa.timestamp("us", tz="UTC"))})


class Planted:
    """Three published days of clean.flights; version 1 is trained on the first two."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        catalog = open_catalog(settings)
        for namespace in ("clean", "training"):
            catalog.create_namespace(namespace)
        self.flights = catalog.create_table("clean.flights", ROWS.schema)
        self.snapshots = [self._publish(number) for number in range(3)]
        self.training = catalog.create_table("training.flight_delay", ROWS.schema)
        self.training.append(
            ROWS,
            snapshot_properties={
                RUN_ID: "flight_delay_training/weekly",
                COMMIT: "c0ffee",
                SOURCES: json.dumps({"clean.flights": self.snapshots[1]}),
            },
        )
        head = self.training.current_snapshot()
        assert head is not None
        self.training.manage_snapshots().create_tag(head.snapshot_id, "as_of_20130307_1_1_1").commit()
        client = MlflowClient(settings.tracking_uri, settings.tracking_uri)
        run = client.create_run(client.create_experiment("flight_delay"))
        self.version = registry.register_version(
            settings,
            name="flight_delay",
            run_id=run.info.run_id,
            source=f"{run.info.artifact_uri}/saved_model",
            tags={"training_set": "as_of_20130307_1_1_1"},
        )

    def _publish(self, number: int) -> int:
        offsets = {"nycflights": {"records": 1, "first": "7", "last": "7", "latest": "2013-03-04"}}
        read = {"raw.flights": {"snapshot": 70 + number, "sources": offsets}}
        self.flights.append(
            ROWS,
            snapshot_properties={
                RUN_ID: f"flight_delay_features/day{number}",
                COMMIT: "c0ffee",
                INTERVAL: interval_text(DAYS[number]),
                AUDIT: json.dumps({"passed": True, "expectations": 41}),
                SOURCE_OFFSETS: json.dumps(read),
            },
        )
        return _head(self.flights)

    def promote(self) -> None:
        registry.tag_version(
            self.settings, "flight_delay", self.version, registry.PROMOTED_BY, "flight_delay_rollout/r1"
        )
        registry.set_alias(self.settings, "flight_delay", registry.CHAMPION, self.version)


def _head(table: Table) -> int:
    head = table.current_snapshot()
    assert head is not None
    return head.snapshot_id


@pytest.fixture
def spec() -> UseCase:
    return use_case("flight_delay")


@pytest.fixture
def planted(tmp_path: Path, new_registry: Path) -> Planted:
    shutil.copyfile(new_registry, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    return Planted(Settings(state_dir=tmp_path / "state", mlflow_uri=uri))


def _find(link: Link, wanted: Callable[[Link], bool]) -> list[Link]:
    here = [link] if wanted(link) else []
    return here + [found for child in link.links for found in _find(child, wanted)]


def test_the_live_model_leads_back_to_the_source_records(planted: Planted, spec: UseCase) -> None:
    planted.promote()
    model = Lineage(planted.settings, spec).of_model()
    assert (model.kind, model.name) == ("live version", "flight_delay/1")
    assert model.facts["promoted by"] == "flight_delay_rollout/r1"
    (training_set,) = model.links
    assert training_set.name == "as_of_20130307_1_1_1"
    assert training_set.facts["run"] == "flight_delay_training/weekly"
    published = _find(model, lambda link: link.kind == "publication")
    assert [link.facts["run"] for link in published] == [
        "flight_delay_features/day1",
        "flight_delay_features/day0",
    ], "the third day came after the training set, and has no part in it"
    sources = _find(model, lambda link: link.kind == "source")
    assert {link.name for link in sources} == {"nycflights"}
    assert sources[0].facts["raw snapshot"] == "71"


def test_a_day_leads_forward_to_the_model_that_serves(planted: Planted, spec: UseCase) -> None:
    lineage = Lineage(planted.settings, spec)
    (day,) = lineage.of_data("clean.flights", snapshot_id=None, days=DAYS[0], source=None)
    (model,) = _find(day, lambda link: link.name == "flight_delay/1")
    assert model.kind == "model version"
    planted.promote()
    (day,) = lineage.of_data("clean.flights", snapshot_id=None, days=DAYS[0], source=None)
    assert [link.kind for link in _find(day, lambda link: link.name == "flight_delay/1")] == ["live version"]


def test_data_that_no_model_used_leads_nowhere(planted: Planted, spec: UseCase) -> None:
    (day,) = Lineage(planted.settings, spec).of_data(
        None, snapshot_id=planted.snapshots[2], days=None, source=None
    )
    assert day.links == ()


def test_a_source_leads_forward_over_all_that_was_read_from_it(planted: Planted, spec: UseCase) -> None:
    lineage = Lineage(planted.settings, spec)
    assert len(lineage.of_data(None, snapshot_id=None, days=None, source="nycflights")) == 3
    with pytest.raises(HistoryError, match=r"published data in clean\.flights"):
        lineage.of_data(None, snapshot_id=None, days=None, source="airport_kafka")


def test_a_missing_record_is_said_not_guessed(planted: Planted, spec: UseCase) -> None:
    tagged = planted.training.refs()["as_of_20130307_1_1_1"]
    planted.training.manage_snapshots().remove_tag("as_of_20130307_1_1_1").commit()
    model = Lineage(planted.settings, spec).of_model(1)
    assert "no record of it" in model.links[0].facts["found"]
    assert model.facts["promoted by"] == "no record"
    planted.training.manage_snapshots().create_tag(tagged.snapshot_id, "as_of_20130307_1_1_1").commit()
    planted.flights.maintenance.expire_snapshots().by_id(planted.snapshots[1]).commit()
    (back,) = Lineage(planted.settings, spec).of_model(1).links
    assert back.links[0].facts["found"] == "expired or dropped"


def test_an_unknown_version_names_those_there_are(planted: Planted, spec: UseCase) -> None:
    with pytest.raises(HistoryError, match=r"version 9 .* found 1\."):
        Lineage(planted.settings, spec).of_model(9)
    with pytest.raises(HistoryError, match="version champion"):
        Lineage(planted.settings, spec).of_model()


def test_the_printed_chain_is_indented_and_cut_openly() -> None:
    days = tuple(Link("publication", f"day {n}", {}) for n in range(10))
    lines = list(lines_of(Link("snapshot", "clean.flights", {"snapshot": "7"}, days)))
    assert lines[0] == "snapshot clean.flights (snapshot 7)"
    assert lines[1] == "  publication day 0"
    assert lines[-1] == "  and 2 more (--json lists them)"
