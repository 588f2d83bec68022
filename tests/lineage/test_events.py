"""What each job's lineage event says, and that the events of one loop join into one chain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from airloop.lineage.events import _JOBS, Dataset, Touched, touched
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
from airloop.use_cases.catalogue import use_case

SPEC = use_case("flight_delay")
SETTINGS = Settings(state_dir=Path("/state"), mlflow_uri="http://mlflow:5000")
SPAN = {"start": "2013-03-05", "end": "2013-03-06"}
BRANCH = "audit_20130305_20130306"
RAW = [feed.name for feed in SPEC.feeds]
CLEAN = [item.name for item in SPEC.clean_tables]
FEATURES = [item.name for item in SPEC.feature_tables]


def snapshots(layer: str, names: list[str], first: int) -> tuple[TableSnapshot, ...]:
    return tuple(
        TableSnapshot(table=f"{layer}.{name}", snapshot_id=first + number, rows=10 + number)
        for number, name in enumerate(names)
    )


PUBLISHED = snapshots("clean", CLEAN, 200)
COMPUTED = snapshots("features", FEATURES, 300)
TRAINING_SET = TrainingSet(
    table="training.flight_delay",
    tag="as_of_20130307_1_1_1",
    snapshot_id=400,
    rows=90,
    train_rows=70,
    validation_rows=10,
    test_rows=10,
    as_of="2013-03-07T00:00:00+00:00",
    sources=(*PUBLISHED, *COMPUTED),
)
CANDIDATE = Candidate(run_id="r1", model_uri="mlflow-artifacts:/1/r1/artifacts/saved_model")
EVALUATED = Evaluated(
    run_id="r1",
    accepted=True,
    verdict_uri="mlflow-artifacts:/1/r1/artifacts/verdict.json",
    figures={"test_roc_auc": 0.7, "test_log_loss": 0.4, "baseline_roc_auc": 0.6},
)
ROLLED_BACK = RolledBack(
    use_case="flight_delay",
    before_run="flight_delay_features/bad",
    dry_run=False,
    start="2013-03-05",
    end="2013-03-06",
    snapshots=snapshots("clean", CLEAN, 500),
    changed=True,
    undone=(),
    features=(),
    training_sets=(),
    models=(),
    notes=(),
)

RUNS: dict[str, tuple[dict[str, Any], Reference]] = {
    "spark_jobs.ingest": (
        SPAN,
        Ingested(snapshots=snapshots("raw", RAW, 100), duplicates=0, quarantined=3),
    ),
    "spark_jobs.stream_ingest": (
        {"stream": "airport_kafka", "accept-loss": ""},
        StreamIngested(
            stream="airport_kafka",
            rows={"flights": 5},
            quarantined=0,
            days=("2013-03-05",),
            snapshots=snapshots("raw", ["flights"], 150),
        ),
    ),
    "spark_jobs.clean": (SPAN, AuditBranch(branch=BRANCH, snapshots=PUBLISHED)),
    "spark_jobs.audit": (
        {**SPAN, "branch": BRANCH},
        AuditReport(branch=BRANCH, expectations=41, report_uri="file:///state/reports/audit.json"),
    ),
    "airloop.lakehouse.publish": ({**SPAN, "branch": BRANCH}, Published(snapshots=PUBLISHED)),
    "airloop.versions.rollback": ({"before-run": "flight_delay_features/bad"}, ROLLED_BACK),
    "spark_jobs.features": (SPAN, Published(snapshots=COMPUTED)),
    "feature_repo.materialise": (
        SPAN,
        Materialised(feature_views=tuple(FEATURES), start="2013-03-05", end="2013-03-06"),
    ),
    "spark_jobs.training_set": ({"as-of": "2013-03-07"}, TRAINING_SET),
    "airloop.training.train": ({"training-set": TRAINING_SET.model_dump(mode="json")}, CANDIDATE),
    "airloop.training.evaluate": (
        # Airflow passes a reference as the mapping that it is in XCom, a person as text.
        {"training-set": TRAINING_SET.model_dump_json(), "candidate": CANDIDATE.model_dump(mode="json")},
        EVALUATED,
    ),
    "airloop.training.register": (
        {"evaluated": EVALUATED.model_dump(mode="json")},
        RegisteredModel(name="flight_delay", version=7, run_id="r1"),
    ),
    "serving.infra_check": (
        {"version": ""},
        InfraChecked(
            name="flight_delay", version=7, champion=6, requests_replayed=20, largest_difference=0.0
        ),
    ),
    "serving.promote": ({"version": 7}, LiveModel(name="flight_delay", version=7, previous_version=6)),
    "serving.abandon": ({"version": "7"}, Abandoned(name="flight_delay", version=7, live_version=6)),
}
"""Each job's flags, as its DAG passes them, and its result."""


def after(module: str) -> Touched:
    flags, result = RUNS[module]
    return touched(SETTINGS, SPEC, module, flags, result.model_dump(mode="json"))


def before(module: str, flags: Mapping[str, Any] | None = None) -> Touched:
    return touched(SETTINGS, SPEC, module, RUNS[module][0] if flags is None else flags, None)


def places(datasets: tuple[Dataset, ...]) -> set[tuple[str, str]]:
    return {(item.namespace, item.name) for item in datasets}


def tables(datasets: tuple[Dataset, ...]) -> dict[str, str | None]:
    """The tables among them, by their name in the catalog, with their versions."""
    return {item.symlink[1]: item.version for item in datasets if item.symlink is not None}


def versions(written: tuple[TableSnapshot, ...]) -> dict[str, str | None]:
    return {item.table: str(item.snapshot_id) for item in written}


def test_every_job_with_lineage_is_looked_at_here() -> None:
    assert set(RUNS) == set(_JOBS)


@pytest.mark.parametrize("module", sorted(_JOBS))
def test_before_the_end_and_after_a_failure_only_inputs_are_known(module: str) -> None:
    known = before(module)
    assert known.outputs == ()
    assert bool(known.inputs) == (module != "airloop.versions.rollback"), "a rollback reads what it writes"
    if module != "spark_jobs.training_set":
        assert places(known.inputs) == places(after(module).inputs)


@pytest.mark.parametrize("module", sorted(_JOBS))
def test_a_result_that_is_not_the_jobs_own_counts_as_none(module: str) -> None:
    flags, _ = RUNS[module]
    assert touched(SETTINGS, SPEC, module, flags, {"error": {"type": "AuditError"}}) == before(module)
    assert touched(SETTINGS, SPEC, module, {}, None).outputs == ()


def test_a_job_without_data_touches_nothing() -> None:
    assert touched(SETTINGS, SPEC, "spark_jobs.maintenance", {}, {"tables": []}) == Touched()


def test_an_ingestion_reads_its_sources_and_writes_raw_and_quarantine() -> None:
    run = after("spark_jobs.ingest")
    assert places(run.inputs) == {("airloop-source:nycflights", name) for name in RAW}
    quarantined = {"raw.quarantine": None}
    assert tables(run.outputs) == {**versions(snapshots("raw", RAW, 100)), **quarantined}
    rows = {item.name: item.rows for item in run.outputs}
    assert rows["/state/warehouse/raw/flights"] == 10
    assert rows["/state/warehouse/raw/quarantine"] == 3


def test_a_stream_reads_its_own_topics_and_lands_where_batches_do() -> None:
    run = after("spark_jobs.stream_ingest")
    assert {item.namespace for item in run.inputs} == {"airloop-source:airport_kafka"}
    assert places(run.outputs) <= places(after("spark_jobs.ingest").outputs)


def test_an_audit_says_what_it_found_and_where_the_report_is() -> None:
    run = after("spark_jobs.audit")
    assert run.outputs == ()
    assert {item.tags["audit"] for item in run.inputs} == {"passed"}
    assert {item.tags["report"] for item in run.inputs} == {"file:///state/reports/audit.json"}
    assert "audit" not in before("spark_jobs.audit").inputs[0].tags


def test_a_rollback_writes_what_main_is_now_and_a_dry_one_nothing() -> None:
    assert tables(after("airloop.versions.rollback").outputs) == versions(ROLLED_BACK.snapshots)
    dry = ROLLED_BACK.model_copy(update={"dry_run": True, "changed": False}).model_dump(mode="json")
    assert touched(SETTINGS, SPEC, "airloop.versions.rollback", {}, dry) == Touched()


def test_an_abandoned_candidate_becomes_nothing() -> None:
    (candidate,) = after("serving.abandon").inputs
    assert (candidate.name, candidate.version) == ("models/flight_delay", "7")
    assert after("serving.abandon").outputs == ()


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("spark_jobs.ingest", "spark_jobs.clean"),
        ("spark_jobs.stream_ingest", "spark_jobs.clean"),
        ("spark_jobs.clean", "spark_jobs.audit"),
        ("spark_jobs.clean", "airloop.lakehouse.publish"),
        ("airloop.lakehouse.publish", "spark_jobs.features"),
        ("airloop.versions.rollback", "spark_jobs.features"),
        ("spark_jobs.features", "feature_repo.materialise"),
        ("spark_jobs.features", "spark_jobs.training_set"),
        ("airloop.lakehouse.publish", "spark_jobs.training_set"),
        ("spark_jobs.training_set", "airloop.training.train"),
        ("spark_jobs.training_set", "airloop.training.evaluate"),
        ("airloop.training.train", "airloop.training.evaluate"),
        ("airloop.training.evaluate", "airloop.training.register"),
        ("airloop.training.register", "serving.infra_check"),
        ("airloop.training.register", "serving.promote"),
    ],
)
def test_what_a_job_writes_the_next_one_reads_under_the_same_name(earlier: str, later: str) -> None:
    written, read = after(earlier).outputs, after(later).inputs
    shared = places(written) & places(read)
    assert shared
    if earlier != "spark_jobs.ingest":  # Its quarantine is read by people.
        assert shared == places(written)
    version = {(item.namespace, item.name): item.version for item in written}
    for item in read:
        if item.version is not None and (item.namespace, item.name) in shared:
            assert item.version == version[item.namespace, item.name]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("airloop.lakehouse.publish", "spark_jobs.training_set"),
        ("spark_jobs.features", "spark_jobs.training_set"),
        ("spark_jobs.training_set", "airloop.training.train"),
        ("airloop.training.register", "serving.promote"),
    ],
)
def test_from_published_data_on_the_next_job_names_the_version_too(earlier: str, later: str) -> None:
    written = {(item.name, item.version) for item in after(earlier).outputs}
    assert None not in {version for _, version in written}
    assert written <= {(item.name, item.version) for item in after(later).inputs}


def test_the_events_of_one_loop_lead_from_the_source_to_the_live_version() -> None:
    reached = places(after("spark_jobs.ingest").inputs)
    for module in RUNS:
        run = after(module)
        if reached & places(run.inputs):
            reached |= places(run.outputs)
    (live,) = after("serving.promote").outputs
    assert (live.name, live.version) == ("flight_delay", "7")
    assert (live.namespace, live.name) in reached
