"""Evidently's reports of a day, by real Evidently: what is in them, and what is not."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pyarrow as pa
import pytest

from airloop.intervals import ONE_DAY, Interval
from airloop.lakehouse.catalog import ensure_namespace, open_catalog
from airloop.monitoring import day_report as job
from airloop.monitoring.day_report import WEEK, day_report, logged_sample
from airloop.monitoring.day_report_files import day_folder, remove_day_reports_before
from airloop.monitoring.monitored import PREDICTION, watched
from airloop.prediction_log import record, variants
from airloop.references import DayReport
from airloop.registry import open_registry
from airloop.settings import Settings
from airloop.use_cases.flight_delay import USE_CASE

DAY = Interval(datetime(2026, 11, 19, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC))
VERSION = 3
ROWS = 60
DRIFTED = "wind_speed_mph"
SPEC = USE_CASE.model_copy(
    update={
        "inputs": tuple(
            item
            for item in USE_CASE.inputs
            if item.request_field is not None or item.name in (DRIFTED, "temperature_f")
        ),
        "elapsed": (),
    }
)
"""Of its many features two: Evidently draws each."""
SECRET = "N14228"
"""A tail number: in the request, and no input of the model."""


def answers(span: Interval, shift: float, **fields: object) -> list[dict[str, object]]:
    """Rows of the prediction log."""
    random = np.random.default_rng(int(shift))
    rows = []
    for number in range(ROWS):
        request: dict[str, object] = {"tail_number": SECRET}
        for field in SPEC.request:
            if field.name != "tail_number":
                request[field.name] = field.example
        features = {
            item.name: float(random.normal()) + shift * (item.name == DRIFTED)
            for item in SPEC.inputs
            if item.request_field is None
        }
        rows.append(
            {
                "predicted_at": span.start + timedelta(minutes=number),
                "use_case": SPEC.name,
                "version": VERSION,
                "variant": variants.CHAMPION,
                "error": None,
                "request": json.dumps(request),
                "features": json.dumps(features),
                "answer": [float(random.random())],
            }
            | fields
        )
    return rows


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, str]:
    """A day and the day a week before in the log, and a training set; with them the champion's run."""
    folder = tmp_path_factory.mktemp("day report")
    settings = Settings(state_dir=folder, mlflow_uri=f"sqlite:///{folder / 'mlflow.db'}")
    catalog = open_catalog(settings)
    for namespace in ("serving", "training"):
        ensure_namespace(catalog, namespace)
    names = [*answers(DAY, 0)[0]]
    schema = pa.schema([record.ARROW_SCHEMA.field(name).with_nullable(True) for name in names])
    rows = [
        *answers(DAY, 5),
        *answers(DAY, 50, variant=variants.SHADOW),
        *answers(DAY, 60, version=VERSION + 1),
        *answers(DAY, 70, use_case="another"),
        *answers(DAY, 80, error=variants.LATE),
        *answers(Interval(DAY.start - WEEK, DAY.end - WEEK), 0),
    ]
    log = catalog.create_table(record.TABLE, schema=schema)
    log.append(pa.Table.from_pylist(rows, schema=schema))
    random = np.random.default_rng(9)
    columns: dict[str, pa.Array] = {"split": pa.array(["test", "train"] * ROWS)}
    for item in SPEC.inputs:
        if item.type == "string":
            columns[item.name] = pa.array(random.choice(["EWR", "JFK", "UA"], 2 * ROWS).tolist())
        elif item.type == "double":
            # Training rows would look like the day's.
            columns[item.name] = pa.array(random.normal(size=2 * ROWS) + np.tile([0, 5], ROWS))
        else:
            moments = [DAY.start + timedelta(minutes=int(m)) for m in random.integers(0, 1000, 2 * ROWS)]
            zone = "UTC" if item.type == "instant" else None
            naive = [moment if zone else moment.replace(tzinfo=None) for moment in moments]
            columns[item.name] = pa.array(naive, pa.timestamp("us", tz=zone))
    table = catalog.create_table("training.some", schema=pa.table(columns).schema)
    table.append(pa.table(columns))
    client = open_registry(settings)
    experiment = client.create_experiment("some", (folder / "artifacts").as_uri())
    pinned = table.current_snapshot()
    assert pinned is not None
    tags = {"airloop.training_table": "training.some", "airloop.snapshot_id": str(pinned.snapshot_id)}
    return settings, client.create_run(experiment, tags=tags).info.run_id


@pytest.fixture(scope="module")
def reported(deployment: tuple[Settings, str]) -> DayReport:
    settings, run_id = deployment
    return day_report(settings, SPEC, VERSION, run_id, DAY)


def _folder(reported: DayReport) -> Path:
    return Path(urlparse(reported.page_uri).path.replace("%20", " ")).parent


def _drift(folder: Path, name: str) -> dict[str, float]:
    """Each column's drift score."""
    found = json.loads((folder / f"{name}.json").read_text())
    scores = {}
    for metric in found["metrics"]:
        if (config := metric.get("config", {})).get("type", "").endswith("ValueDrift"):
            scores[config["column"]] = float(metric["value"])
    return scores


def test_a_day_is_compared_with_the_training_and_with_the_week_before(
    deployment: tuple[Settings, str], reported: DayReport
) -> None:
    assert reported.rows == ROWS
    assert reported.compared_with == {"training": ROWS, "week_before": ROWS}
    folder = _folder(reported)
    assert folder == deployment[0].reports_dir / SPEC.name / "monitoring" / "2026-11-19"
    index = (folder / "index.html").read_text()
    for name in ("training", "week_before"):
        assert f'href="{name}.html"' in index
        scores = _drift(folder, name)
        assert set(scores) <= {*watched(SPEC), PREDICTION}
        assert (PREDICTION in scores) == (name == "week_before")
        # Evidently's scores of few rows are p values: small ones are drift.
        assert scores[DRIFTED] < 0.001
    calm = {name: score for name, score in _drift(folder, "week_before").items() if name != DRIFTED}
    assert min(calm.values()) > 0.001


def test_the_pages_need_no_network_and_name_nobody(reported: DayReport) -> None:
    for path in _folder(reported).iterdir():
        text = path.read_text()
        assert SECRET not in text, path
        assert "tail_number" not in text, path
        if path.suffix == ".html":
            loaded = re.findall(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)=["']([^"']+)""", text)
            assert [address for address in loaded if not address.startswith("data:")] == [], path
            assert not re.findall(r"""(?:url\(|@import |fetch\()["']?https?:""", text), path


def test_the_sample_is_bounded_and_the_same_each_time(
    deployment: tuple[Settings, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = open_catalog(deployment[0])
    monkeypatch.setattr(job, "MOST_ROWS", 7)
    first, again = (logged_sample(catalog, SPEC, VERSION, DAY) for _ in "12")
    assert len(first) == 7
    assert first.equals(again)


def test_a_day_on_which_nobody_asked_has_no_report(deployment: tuple[Settings, str]) -> None:
    settings, run_id = deployment
    later = Interval(DAY.end, DAY.end + ONE_DAY)
    found = day_report(settings, SPEC, VERSION, run_id, later)
    assert found.skipped == "no answer of version 3 on 2026-11-20"


def test_reports_of_days_past_the_retention_are_removed(tmp_path):
    settings = Settings(state_dir=tmp_path)
    for day in (date(2026, 10, 1), date(2026, 10, 31), date(2026, 11, 1)):
        folder = day_folder(settings, SPEC, day)
        folder.mkdir(parents=True)
        (folder / "index.html").write_text("a day")
    (folder.parent / "notes").mkdir()
    assert remove_day_reports_before(settings, SPEC, datetime(2026, 11, 1, 3, 30, tzinfo=UTC)) == 2
    assert sorted(path.name for path in folder.parent.iterdir()) == ["2026-11-01", "notes"]
