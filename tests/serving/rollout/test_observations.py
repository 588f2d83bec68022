"""What the prediction log says: labels that were told, and those that the lakehouse has by itself."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from airloop.lakehouse.catalog import open_catalog
from airloop.prediction_log import variants
from airloop.prediction_log.labels import table_name
from airloop.prediction_log.outcome import OutcomeRecord
from airloop.prediction_log.record import PredictionRecord
from airloop.prediction_log.spool import Spool
from airloop.settings import Settings
from airloop.use_cases.flight_delay import USE_CASE as SPEC
from serving.observations import observe

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
ASKED = AT - timedelta(minutes=30)


@pytest.fixture
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(state_dir=tmp_path_factory.mktemp("state"))


def record(request_id: str, event: str | None) -> PredictionRecord:
    return PredictionRecord(
        request_id=request_id,
        trace_id="0" * 31 + "1",
        instance=0,
        caller="web",
        use_case=SPEC.name,
        model=SPEC.model_name,
        version=3,
        variant=variants.CHAMPION,
        predicted_at=ASKED,
        prediction_time=AT,
        answer=(0.25,),
        latency_seconds=0.01,
        entities={},
        request={},
        features={},
        missing_features=[],
        event=event,
    )


def told(request_id: str, label: float) -> OutcomeRecord:
    return OutcomeRecord(
        request_id=request_id,
        instance=0,
        use_case=SPEC.name,
        label=label,
        observed_at=ASKED,
        received_at=ASKED,
        caller="web",
    )


def write_labels(settings: Settings, rows: list[tuple[str, datetime, float]]) -> None:
    fields = [("event", pa.string()), ("prediction_time", pa.timestamp("us", "UTC")), ("label", pa.float64())]
    schema = pa.schema([pa.field(*field) for field in fields])
    catalog = open_catalog(settings)
    catalog.create_namespace("labels")
    table = catalog.create_table(table_name(SPEC), schema=schema)
    table.append(pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema))


def labels(settings: Settings) -> dict[str, float | None]:
    rows = observe(settings, SPEC, ASKED, AT).rows
    return dict(zip(rows["request_id"].to_pylist(), rows["label"].to_pylist(), strict=True))


def test_a_label_is_what_was_told_or_else_what_the_lakehouse_knows(settings: Settings) -> None:
    with closing(Spool(settings.prediction_spool_dir)) as spool:
        spool.append([record(name, f"event {name}") for name in "abcde"] + [record("f", None)])
    with closing(Spool(settings.outcome_spool_dir)) as spool:
        spool.append([told("a", 1.0)])
    unknown = dict.fromkeys("abcdef")
    assert labels(settings) == {**unknown, "a": 1.0}

    write_labels(
        settings,
        [
            *(("event a", AT, 0.0), ("event b", AT, 1.0), ("event c", AT, 0.0)),
            # Which of two a prediction was about is not known; and one of another day is another event.
            *(("event d", AT, 0.0), ("event d", AT, 1.0), ("event e", AT + timedelta(days=1), 1.0)),
        ],
    )
    assert labels(settings) == {**unknown, "a": 1.0, "b": 1.0, "c": 0.0}


def test_an_id_that_was_used_twice_pairs_nothing_and_has_no_outcome_of_its_own(settings: Settings) -> None:
    champion = [record(name, None) for name in ("a", "b", "b")]
    candidate = [item.model_copy(update={"version": 4, "variant": "shadow"}) for item in champion]
    with closing(Spool(settings.prediction_spool_dir)) as spool:
        spool.append([*champion, *candidate])
    with closing(Spool(settings.outcome_spool_dir)) as spool:
        spool.append([told("a", 1.0), told("b", 0.0)])
    observed = observe(settings, SPEC, ASKED, AT)
    assert labels(settings) == {"a": 1.0, "b": None}
    pairs = observed.pairs(champion[0].version, 4)
    assert (list(pairs.label), list(pairs.champion)) == ([1.0], [0.25])


def test_a_batch_that_fails_or_is_slow_counts_once(settings: Settings) -> None:
    batch = [
        record("a", f"event {number}").model_copy(update={"instance": number, "model_seconds": 0.2})
        for number in range(6)
    ]
    late = [item.model_copy(update={"request_id": "b", "answer": None, "error": "late"}) for item in batch]
    with closing(Spool(settings.prediction_spool_dir)) as spool:
        spool.append([*batch, *late])
    found = observe(settings, SPEC, ASKED, AT).arm(batch[0].version)
    assert (found.errors, found.answered, found.requests, found.answers) == (1, 1, 2, 6)
    assert list(found.seconds) == [0.2]


def test_predictions_about_one_event_say_so(settings: Settings) -> None:
    rows = [record("a", "event x"), record("b", "event x"), record("c", None), record("d", None)]
    with closing(Spool(settings.prediction_spool_dir)) as spool:
        spool.append([*rows, *(item.model_copy(update={"version": 4}) for item in rows)])
    event = observe(settings, SPEC, ASKED, AT).pairs(rows[0].version, 4).event
    assert event is not None
    assert event[0] == event[1]
    assert len(set(event)) == 3


def test_a_stretch_without_predictions_has_no_labels(settings: Settings) -> None:
    write_labels(settings, [("event a", AT, 0.0)])
    assert labels(settings) == {}
