"""Each message is a record of the declared types, or goes to quarantine with what is wrong with it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from airloop.use_cases.spec import Column, Feed
from spark_jobs.streams.parsing import PAYLOAD, REASON, UNDECLARED, parsed_messages
from spark_jobs.streams.received import RECEIVED_SCHEMA

FEED = Feed(
    name="events",
    key=("id",),
    event_time="at",
    columns=(
        Column(name="id", type="string"),
        Column(name="at", type="timestamp"),
        Column(name="wall", type="local_timestamp", required=False),
        Column(name="count", type="long", required=False),
        Column(name="small", type="integer", required=False),
        Column(name="ratio", type="double", required=False),
        Column(name="share", type="float", required=False),
        Column(name="open", type="boolean", required=False),
    ),
)
PERSONAL = FEED.model_copy(
    update={"columns": (*FEED.columns, Column(name="passport", type="string", personal="hash"))}
)
GOOD = {"id": "A1", "at": "2013-03-04T10:51:00Z"}


def _parse(*values: bytes | None, feed: Feed = FEED) -> list[dict[str, Any]]:
    rows = [
        {
            "_topic": "events",
            "_place": "events/0",
            "_position": f"{number:020d}",
            "_source_time": datetime(2013, 3, 4, tzinfo=UTC),
            "_value": value,
        }
        for number, value in enumerate(values)
    ]
    parsed: list[dict[str, Any]] = parsed_messages(
        pa.Table.from_pylist(rows, schema=RECEIVED_SCHEMA), feed
    ).to_pylist()
    assert len(parsed) == len(values)
    return parsed


def _with(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


def test_a_message_becomes_a_record_of_the_declared_types() -> None:
    (row,) = _parse(
        _with(
            wall="2013-03-04T05:51:00.5",
            count=2**53 + 1,
            small=-7,
            ratio=0.1,
            share=0.5,
            open=False,
            at="2013-03-04T05:51:00.123456-05:00",
        )
    )
    assert row[REASON] is None
    assert row[PAYLOAD] is None
    assert row["at"] == datetime(2013, 3, 4, 10, 51, 0, 123456, UTC)
    assert row["wall"] == datetime(2013, 3, 4, 5, 51, 0, 500000)
    assert (row["count"], row["small"], row["ratio"], row["share"]) == (2**53 + 1, -7, 0.1, 0.5)
    assert row["open"] is False
    assert row["_source_offset"] == "events/0/00000000000000000000"


def test_optional_fields_may_be_null_or_absent() -> None:
    rows = _parse(_with(count=None), _with())
    assert [row[REASON] for row in rows] == [None, None]
    assert [row["count"] for row in rows] == [None, None]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "no value"),
        (b"", "no JSON"),
        (b"\xff\xfe", "utf-8"),
        (b'{"id": "A1"', "no JSON"),
        (json.dumps(GOOD).encode() + b" {}", "no JSON"),
        (b"[1]", "no JSON object"),
        (b"null", "no JSON object"),
        (b"[" * 100_000, "no JSON"),
        (b'{"id": "A1"}', "at: no value"),
        (_with(id=None), "id: no value"),
        (_with(id=7), "id: 7 is no text"),
        (_with(id="\ud800"), "id: "),
        (_with(at="yesterday"), "at: 'yesterday' is no instant"),
        (_with(at="2013-03-04T10:51:00"), "at: a time without an offset is no instant"),
        (_with(at="2013-03-04"), "at: a time without an offset is no instant"),
        (_with(at=1362394260), "at: '1362394260' is no instant"),
        (_with(wall="2013-03-04T10:51:00Z"), "wall: '2013-03-04T10:51:00Z' is no wall-clock time"),
        (_with(count="abc"), "count: 'abc' is no whole number"),
        (_with(count=5.5), "count: '5.5' is no whole number"),
        (_with(count=2**63), "count: '9223372036854775808' is no whole number"),
        (_with(small=2**31), "small: '2147483648' is no whole number of 32 bits"),
        (_with(ratio="abc"), "ratio: 'abc' is no finite number"),
        (_with(ratio={"value": 1}), "ratio: {'value': 1} is not a single value"),
        (b'{"id": "A1", "at": "2013-03-04T10:51:00Z", "ratio": NaN}', "ratio: 'NaN' is no finite number"),
        (b'{"id": "A1", "at": "2013-03-04T10:51:00Z", "ratio": 1e999}', "ratio: "),
        (_with(open="maybe"), "open: 'maybe' is no boolean"),
    ],
)
def test_a_malformed_message_says_what_is_wrong_and_spoils_no_neighbour(
    value: bytes | None, told: str
) -> None:
    before, row, after = _parse(_with(), value, _with())
    assert told in row[REASON]
    assert (before[REASON], after[REASON]) == (None, None)


def test_every_fault_of_a_message_is_named_at_once() -> None:
    (row,) = _parse(_with(id=None, count="abc"))
    assert "id: no value" in row[REASON]
    assert "count: 'abc'" in row[REASON]


def test_the_payload_is_kept_as_received_or_as_base64() -> None:
    text, damaged = _parse('{"id": "Å"'.encode(), b"\xff\x00")
    assert text[PAYLOAD] == '{"id": "Å"'
    assert damaged[PAYLOAD] == "base64:/wA="


def test_undeclared_fields_are_left_out_and_named() -> None:
    (row,) = _parse(_with(zeta=1, alpha=2))
    assert row[REASON] is None
    assert row[UNDECLARED] == ["alpha", "zeta"]
    assert "zeta" not in row


def test_quarantine_shows_nothing_of_a_feed_with_personal_columns() -> None:
    rows = _parse(
        _with(passport="X123", count="X123"), _with(passport=5), b'{"passport": "X123"', feed=PERSONAL
    )
    for row in rows:
        assert row[REASON]
        assert "X123" not in row[REASON]
        assert "X123" not in row[PAYLOAD]
        assert row[PAYLOAD].startswith("sha256:")
    assert rows[0][REASON] == "count"
