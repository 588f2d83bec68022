"""A subject leaves the predictions too, landed or not; what is masked lands without it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from airloop.erasure.lakehouse import erase_tables, survey_tables
from airloop.erasure.proof import scan_everything
from airloop.erasure.texts import erase_texts
from airloop.erasure.traces import Traces
from airloop.lakehouse.catalog import open_catalog
from airloop.prediction_log.land import land
from airloop.prediction_log.record import TABLE, PredictionRecord
from airloop.prediction_log.spool import Spool
from airloop.settings import Settings
from airloop.use_cases.spec import Erasure
from tests.prediction_log.records import record

SUBJECT = "N14228"
ERASURE = Erasure(subject="tail_number", models="retrain")
TRACES = Traces.of(SUBJECT, [])


def about(number: int, tail: str) -> PredictionRecord:
    keys = {"tail_number": tail}
    return record(number).model_copy(update={"entities": keys, "request": {"origin": "JFK", **keys}})


def test_a_subject_leaves_what_landed_and_what_did_not(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state")
    with closing(Spool(settings.prediction_spool_dir)) as spool:
        spool.append([about(1, SUBJECT), about(2, "N99999"), about(3, SUBJECT)])
        land(settings)
        spool.append([about(4, SUBJECT), about(5, "N99999")])
        tables, _ = survey_tables(settings, ERASURE, TRACES, "digest")
        assert [(table.table, table.rows) for table in tables] == [(TABLE, {"main": 2})]
        erase_tables(settings, ERASURE, TRACES, "digest")
        masked, removed = erase_texts(settings, TRACES, grace_minutes=0)
        # Four lines of the subject are in the spool: its file stays while its gateway lives.
        assert (masked, removed) == (2 * 3, 0)
        assert not scan_everything(settings, TRACES).exact
        spool.append([about(6, "N99999")])
    assert land(settings).rows == 3
    rows = open_catalog(settings).load_table(TABLE).scan().to_arrow().to_pylist()
    found = {row["request_id"]: row["entities"] for row in rows}
    others = {f"request {number}": '{"tail_number": "N99999"}' for number in (2, 5, 6)}
    assert found == {**others, "request 4": '{"tail_number": "******"}'}
    assert not scan_everything(settings, TRACES).exact
