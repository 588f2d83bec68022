"""Personal columns land hashed or not at all, the erased do not land, and the key is seen nowhere."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from airloop.connections import PSEUDONYM_KEY, variable_of
from airloop.erasure.suppression import SUPPRESSED_TEXT, suppress_subject
from airloop.errors import SettingsError, SourceError
from airloop.lakehouse.catalog import open_catalog
from airloop.pseudonyms import WITHHELD, pseudonym
from airloop.settings import REPOSITORY, Settings, environment_of
from airloop.sources.contract import Delivery, record_schema
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import Column, Erasure, Feed, Source, UseCase
from airloop_airflow.failures import PermanentFailure
from spark_jobs.ingest import ingest
from spark_jobs.personal_data import protect, suppress
from tests.integration.small_tables import FIRST, day

KEY = "a-key-that-must-be-seen-nowhere-0123456789"
ERASURE = Erasure(subject="passenger", models="retrain")
HEADER = "booking,at,passenger,phone,age,price"
LINES = (
    "b1,2013-03-04T01:00:00Z,Ann-Example,+44-1234,41,1.5",
    "b2,2013-03-04T02:00:00Z,,,,2.5",
    "b3,2013-03-04T03:00:00Z,Bob-Example,+44-9876,52,3.5",
    "b4,2013-03-04T04:00:00Z,Ann-Example,+44-1234,41,4.5",
)
PERSONAL = ("Ann-Example", "Bob-Example", "+44-1234", "+44-9876")


def _feed(*, key: tuple[str, ...] = ("booking",), personal: bool = True) -> Feed:
    """Bookings of passengers; a table of their own for each test."""
    declared = {"passenger": "hash", "phone": "drop", "age": "drop"} if personal else {}
    columns = [
        Column(name="booking", type="string"),
        Column(name="at", type="timestamp"),
        Column(name="passenger", type="string", required=False),
        Column(name="phone", type="string", required=False),
        Column(name="age", type="long", required=False),
        Column(name="price", type="double"),
    ]
    return Feed(
        name=f"bookings_{uuid.uuid4().hex[:8]}",
        key=key,
        event_time="at",
        columns=tuple(c.model_copy(update={"personal": declared.get(c.name)}) for c in columns),
    )


def use_case_of(feed: Feed, folder: Path, max_malformed_share: float = 1.0) -> UseCase:
    """A use case whose source delivers the feed's CSV file in `folder`."""
    source = Source(
        name="desk",
        adapter="files",
        feeds=(feed,),
        options={"path": f"{folder}/{{feed}}.csv", "format": "csv"},
        max_malformed_share=max_malformed_share,
    )
    return use_case("flight_delay").model_copy(update={"sources": (source,), "streams": (), "name": "desk"})


class Desk:
    """A feed, the file that it is delivered in, and a state folder with its own list of the erased."""

    def __init__(self, spark: SparkSession, settings: Settings, folder: Path) -> None:
        self.spark, self.folder, self.lake = spark, folder, settings
        self.settings = settings.model_copy(update={"state_dir": folder / "state"})

    def deliver(self, feed: Feed, *lines: str) -> None:
        (self.folder / f"{feed.name}.csv").write_text("\n".join([HEADER, *lines, ""]))

    def ingest(self, feed: Feed, max_malformed_share: float = 1.0) -> dict[str, dict[str, Any]]:
        """The rows of the raw table after ingestion of day 0, by booking."""
        ingest(self.spark, use_case_of(feed, self.folder, max_malformed_share), day(0), self.settings)
        rows = [row.asDict() for row in self.spark.table(f"raw.{feed.name}").collect()]
        assert len({row["booking"] for row in rows}) == len(rows)
        return {row["booking"]: row for row in rows}

    def frame(self, feed: Feed) -> DataFrame:
        """What `LINES` deliver, as a stream has it before it lands: in several batches."""
        records = []
        for number, line in enumerate(LINES):
            booking, _, passenger, phone, age, price = line.split(",")
            records.append(
                {
                    "booking": booking,
                    "at": FIRST,
                    "passenger": passenger or None,
                    "phone": phone or None,
                    "age": int(age) if age else None,
                    "price": float(price),
                    "_source_offset": str(number),
                    "_source_time": FIRST,
                }
            )
        table = pa.Table.from_pylist(records, schema=record_schema(feed))
        return self.spark.createDataFrame(table).repartition(3)

    def quarantined(self, feed: Feed) -> list[tuple[str, str]]:
        """Reason and payload of the feed's malformed records, in the order of their lines."""
        rows = self.spark.table("raw.quarantine").where(f"feed = '{feed.name}'").collect()
        return [
            (row.reason, row.payload)
            for row in sorted(rows, key=lambda row: int(row._source_offset.split(":")[-1]))
        ]


@pytest.fixture
def desk(spark: SparkSession, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv(variable_of(PSEUDONYM_KEY), json.dumps({"conn_type": "generic", "password": KEY}))
    return Desk(spark, settings, tmp_path)


def test_a_batch_lands_hashed_or_not_at_all(desk: Desk) -> None:
    feed = _feed()
    desk.deliver(feed, *LINES)
    rows = desk.ingest(feed)
    assert [rows[name]["passenger"] for name in ("b1", "b2", "b3", "b4")] == [
        pseudonym("Ann-Example", KEY.encode()),
        None,
        pseudonym("Bob-Example", KEY.encode()),
        pseudonym("Ann-Example", KEY.encode()),
    ]
    assert {name for name in rows["b1"] if not name.startswith("_")} == {
        "booking",
        "at",
        "passenger",
        "price",
    }
    assert [rows[name]["price"] for name in ("b1", "b4")] == [1.5, 4.5]


def test_a_file_of_the_table_has_no_value_in_the_clear(desk: Desk) -> None:
    feed = _feed()
    desk.deliver(feed, *LINES)
    desk.ingest(feed)
    location = open_catalog(desk.lake).load_table(f"raw.{feed.name}").location()
    files = [path for path in Path(unquote(urlparse(location).path)).rglob("*") if path.is_file()]
    assert any(pseudonym("Ann-Example", KEY.encode())[:16].encode() in path.read_bytes() for path in files)
    found = {value for path in files for value in PERSONAL if value.encode() in path.read_bytes()}
    assert found == set()
    assert not [path for path in desk.settings.scratch_dir.rglob("*") if path.is_file()]


def test_a_stream_lands_the_same_values_as_a_batch(desk: Desk) -> None:
    feed = _feed()
    desk.deliver(feed, *LINES)
    rows = desk.ingest(feed)
    streamed = protect(desk.frame(feed), feed, desk.settings)
    assert streamed.columns == ["booking", "at", "passenger", "price", "_source_offset", "_source_time"]
    assert {row.booking: row.passenger for row in streamed.collect()} == {
        booking: row["passenger"] for booking, row in rows.items()
    }


def test_a_stream_without_personal_columns_is_left_as_it_is(desk: Desk) -> None:
    feed = _feed(personal=False)
    frame = desk.frame(feed)
    assert protect(frame, feed, desk.settings) is frame
    assert suppress(frame, feed, desk.settings) is frame


def test_a_personal_column_in_the_key_identifies_by_its_hash(desk: Desk) -> None:
    feed = _feed(key=("passenger", "booking"))
    desk.deliver(feed, LINES[0])
    key = f"{pseudonym('Ann-Example', KEY.encode())}|b1"
    assert desk.ingest(feed)["b1"]["_source_key"] == key


class Unreadable:
    """A source that must not be read."""

    def __init__(self, *arguments: object) -> None: ...

    def read(self, *arguments: object) -> Iterator[Delivery]:
        raise AssertionError("the source was read")


@pytest.mark.parametrize("password", [None, "short"])
def test_without_a_usable_key_nothing_is_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, password: str | None
) -> None:
    feed = _feed()
    frame = desk.frame(feed)
    if password is None:
        monkeypatch.delenv(variable_of(PSEUDONYM_KEY))
    else:
        monkeypatch.setenv(variable_of(PSEUDONYM_KEY), json.dumps({"conn_type": "x", "password": password}))
    monkeypatch.setattr("spark_jobs.ingest.adapter_class", lambda name: Unreadable)
    with pytest.raises(SettingsError, match=PSEUDONYM_KEY):
        desk.ingest(feed)
    with pytest.raises(SettingsError, match=PSEUDONYM_KEY):
        protect(frame, feed, desk.settings)
    assert not desk.spark.catalog.tableExists(f"raw.{feed.name}")


BROKEN = (
    "b5,2013-03-04T05:00:00Z,Ann-Example,+44-1234,forty of Ann-Example; phone: +44-1234 is no x,1.5",
    "b6,2013-03-04T06:00:00Z,Ann-Example,+44-1234,41,much; Ann-Example: +44-1234",
    "b7,2013-03-04T07:00:00Z,Bob-Example,+44-9876,41",
    'b8,2013-03-04T08:00:00Z,"Bob-Example,+44-9876,41,2.5',
    ",2013-03-04T09:00:00Z,Bob-Example,+44-9876,41,2.5",
)


def test_quarantine_shows_nothing_of_a_feed_with_personal_columns(desk: Desk) -> None:
    feed = _feed()
    desk.deliver(feed, *LINES, *BROKEN)
    assert set(desk.ingest(feed)) == {"b1", "b2", "b3", "b4"}
    found = desk.quarantined(feed)
    assert [payload for _, payload in found] == [WITHHELD] * len(BROKEN)
    reasons = [reason for reason, _ in found]
    assert not [value for value in PERSONAL for reason in reasons if value in reason]
    assert "forty" not in " ".join(reasons)
    assert [reason.split(":")[0] for reason in reasons] == [
        *("phone, age", "price", "the record", "the record", "booking")
    ]


def test_the_error_about_too_many_malformed_records_shows_no_value_either(desk: Desk) -> None:
    feed = _feed()
    desk.deliver(feed, LINES[0], BROKEN[0])
    with pytest.raises(SourceError, match="1 of 2 records: phone, age: malformed") as refused:
        desk.ingest(feed, max_malformed_share=0.1)
    # What the task fails with is what on-call reads in Slack.
    told = str(PermanentFailure(refused.value.as_document()))
    assert "1 of 2 records" in told
    assert not [value for value in (*PERSONAL, "forty") if value in f"{refused.value} {told}"]


def test_quarantine_of_any_other_feed_shows_what_is_wrong(desk: Desk) -> None:
    feed = _feed(personal=False)
    desk.deliver(feed, *LINES, BROKEN[1])
    desk.ingest(feed)
    reason, payload = desk.quarantined(feed)[0]
    assert "price: 'much; Ann-Example: +44-1234' is no" in reason
    assert payload == BROKEN[1]


def test_an_erased_subject_that_is_delivered_again_does_not_land(desk: Desk) -> None:
    feed = _feed()
    desk.deliver(feed, *LINES)
    assert len(desk.ingest(feed)) == 4
    suppress_subject(desk.settings, ERASURE, "Ann-Example")
    desk.deliver(feed, *LINES, "b9,2013-03-04T09:00:00Z,Ann-Example,,,9.5")
    assert set(desk.ingest(feed)) == {"b2", "b3"}, "what had landed is withdrawn with the others"
    left = suppress(desk.frame(feed), feed, desk.settings)
    assert {row.booking for row in left.collect()} == {"b2", "b3"}
    landed = protect(left, feed, desk.settings).collect()
    assert {row.passenger for row in landed} == {None, pseudonym("Bob-Example", KEY.encode())}


def test_an_erased_subject_stays_out_whatever_the_feed_calls_the_column_and_whichever_key_hashes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = _feed()
    other = feed.model_copy(update={"name": f"{feed.name}_other"})
    erasure = Erasure(subject="traveller", tables={f"raw.{feed.name}": "passenger"}, models="retrain")
    suppress_subject(desk.settings, erasure, "Ann-Example")
    document = {"conn_type": "generic", "password": "another key " * 4, "extra": {"previous": [KEY]}}
    monkeypatch.setenv(variable_of(PSEUDONYM_KEY), json.dumps(document))
    for each in (feed, other):
        desk.deliver(each, *LINES)
    rows = desk.ingest(feed)
    assert set(rows) == {"b2", "b3"}
    assert rows["b3"]["passenger"] == pseudonym("Bob-Example", document["password"].encode())
    assert set(desk.ingest(other)) == {"b1", "b2", "b3", "b4"}, "another feed's column of another subject"


def test_quarantine_shows_no_record_that_mentions_an_erased_subject(desk: Desk) -> None:
    feed = _feed(personal=False)
    suppress_subject(desk.settings, ERASURE, "Ann-Example")
    desk.deliver(
        feed,
        "c1,2013-03-04T01:00:00Z,Ann-Example,,41,much",
        "c2,2013-03-04T02:00:00Z,,,of Ann-Example,2.5",
        "c3,2013-03-04T03:00:00Z,Bob-Example,,42,much",
    )
    assert desk.ingest(feed) == {}
    found = desk.quarantined(feed)
    assert [payload for _, payload in found] == [SUPPRESSED_TEXT, SUPPRESSED_TEXT, found[2][1]]
    assert "Bob-Example" in found[2][1]
    assert not [reason for reason, _ in found if "Ann-Example" in reason]


EVERYTHING_SAID = """
import sys
from pathlib import Path
from pyspark.errors import PySparkException
from airloop.settings import load_settings
from airloop.use_cases.spec import Feed
from spark_jobs.ingest import ingest
from spark_jobs.personal_data import protect, suppress
from spark_jobs.session import open_session
from tests.integration.small_tables import day
from tests.integration.test_personal_data import Desk, use_case_of
settings, folder = load_settings(), Path(sys.argv[1])
feed = Feed.model_validate_json(sys.argv[2])
spark = open_session(settings, "personal data")
spark.sparkContext.setLogLevel("DEBUG")
ingest(spark, use_case_of(feed, folder), day(0), settings)
desk = Desk(spark, settings, folder)
landed = protect(suppress(desk.frame(feed), feed, settings), feed, settings)
landed.writeTo("raw.streamed").create()
for mode in ("extended", "codegen", "cost", "formatted"):
    landed.explain(mode=mode)
print(landed._jdf.queryExecution().toString(), landed.schema, landed)
numbers = spark.createDataFrame([(1,)], "passenger long")
try:
    protect(numbers, feed, settings).collect()
except PySparkException as error:
    print("FAILED", error)
spark.sparkContext.setLogLevel("WARN")
"""


def test_the_key_and_the_values_show_in_no_plan_and_no_log(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spark logs all that it has to say: plans, generated code, tasks, and the traceback of a failure."""
    (tmp_path / "jars").symlink_to(REPOSITORY / ".airloop" / "jars")
    own = settings.model_copy(update={"state_dir": tmp_path, "spark_driver_memory_mib": 1024})
    feed = _feed()
    suppress_subject(own, ERASURE, "Ann-Example")
    (tmp_path / f"{feed.name}.csv").write_text("\n".join([HEADER, *LINES, *BROKEN, ""]))
    connection = json.dumps({"conn_type": "generic", "password": KEY, "extra": {"previous": [KEY[::-1]]}})
    done = subprocess.run(
        [sys.executable, "-c", EVERYTHING_SAID, str(tmp_path), feed.model_dump_json()],
        env={
            **os.environ,
            **environment_of(own),
            "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "plugins"))),
            variable_of(PSEUDONYM_KEY): connection,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout + done.stderr
    assert "MapInArrow" in done.stdout, "the plans are in it"
    assert "FAILED" in done.stdout, "and a failure"
    assert "DEBUG" in done.stderr, "and the log"
    key = KEY.encode()
    secrets = [
        KEY,
        KEY[::-1],
        key.hex(),
        base64.b64encode(key).decode().rstrip("=")[:-1],
        str(list(key))[1:-1],
    ]
    assert not [secret for secret in secrets if secret in said]
    assert "forty" not in said
    spark_log = [value for value in ("Ann-Example", "+44-1234") if value in done.stderr]
    assert spark_log == []
