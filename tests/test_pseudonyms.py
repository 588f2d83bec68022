"""Personal columns: hashed with a key or dropped, the same value always the same, the key never shown."""

from __future__ import annotations

import hashlib
import hmac
import json

import pyarrow as pa
import pytest

from airloop import pseudonyms
from airloop.connections import PSEUDONYM_KEY, variable_of
from airloop.errors import SettingsError, SpecError
from airloop.pseudonyms import all_keys, find_key, protect, protected_payload, pseudonym
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import Column, Feed, define

KEY = b"k" * 32
FEED = Feed(
    name="bookings",
    key=("booking",),
    event_time=None,
    columns=(
        Column(name="booking", type="string"),
        Column(name="passenger", type="string", required=False, personal="hash"),
        Column(name="phone", type="string", required=False, personal="drop"),
        Column(name="age", type="long", required=False, personal="drop"),
        Column(name="price", type="double"),
    ),
)
PLAIN = Feed(
    name="prices", key=("booking",), event_time=None, columns=(Column(name="booking", type="string"),)
)
ROWS = pa.table(
    {
        "booking": ["a", "b", "c", "d"],
        "passenger": ["Ann", None, "Ann", "Bob"],
        "phone": ["1", "2", None, "3"],
        "age": [1, 2, 3, 4],
        "price": [1.0, 2.0, 3.0, 4.0],
        "_source_offset": ["1", "2", "3", "4"],
    }
)


def _connection(monkeypatch: pytest.MonkeyPatch, password: str, **extra: object) -> None:
    document = {"conn_type": "generic", "password": password, "extra": extra}
    monkeypatch.setenv(variable_of(PSEUDONYM_KEY), json.dumps(document))


def test_a_hashed_column_joins_as_before_and_a_dropped_one_is_gone() -> None:
    kept = protect(ROWS, FEED, KEY)
    assert kept.column_names == ["booking", "passenger", "price", "_source_offset"]
    ann, none, again, bob = kept["passenger"].to_pylist()
    assert ann == again == hmac.new(KEY, b"Ann", hashlib.sha256).hexdigest()
    assert none is None
    assert bob not in (ann, None)
    assert kept.schema.field("passenger").type == pa.string()
    assert kept["price"].to_pylist() == ROWS["price"].to_pylist()


def test_another_key_gives_other_hashes() -> None:
    assert pseudonym("Ann", KEY) != pseudonym("Ann", b"o" * 32)


def test_an_empty_table_and_one_in_pieces_keep_their_shape() -> None:
    expected = protect(ROWS, FEED, KEY)
    pieces = pa.concat_tables([ROWS.slice(0, 1), ROWS.slice(1)])
    assert protect(pieces, FEED, KEY).equals(expected)
    assert protect(ROWS.slice(0, 0), FEED, KEY).schema == expected.schema


def test_each_distinct_value_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = pseudonyms.pseudonym
    monkeypatch.setattr(pseudonyms, "pseudonym", lambda value, key: (seen.append(value), real(value, key))[1])
    protect(pa.concat_tables([ROWS] * 50), FEED, KEY)
    assert sorted(seen) == ["Ann", "Bob"]


def test_a_missing_key_is_an_error_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable_of(PSEUDONYM_KEY), raising=False)
    with pytest.raises(SettingsError, match=f"the connection {PSEUDONYM_KEY}"):
        find_key([PLAIN, FEED])
    assert find_key([PLAIN]) is None
    with pytest.raises(SettingsError, match="at least 32 bytes"):
        protect(ROWS, FEED, None)


def test_a_short_key_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    _connection(monkeypatch, "short-but-secret")
    with pytest.raises(SettingsError, match="one of 16 bytes") as refused:
        find_key([FEED])
    assert "secret" not in str(refused.value)
    with pytest.raises(SettingsError):
        protect(ROWS, FEED, b"short-but-secret")


def test_former_keys_are_for_finding_only(monkeypatch: pytest.MonkeyPatch) -> None:
    _connection(monkeypatch, "n" * 32, previous=["o" * 32])
    assert find_key([FEED]) == b"n" * 32
    assert all_keys() == (b"n" * 32, b"o" * 32)
    _connection(monkeypatch, "n" * 32, previous="o" * 32)
    with pytest.raises(SettingsError, match="a list of texts") as refused:
        find_key([FEED])
    assert "ooo" not in str(refused.value)


def test_quarantine_keeps_no_record_of_a_feed_with_personal_columns() -> None:
    assert "Ann" not in protected_payload('{"passenger": "Ann"}', FEED)
    assert protected_payload('{"booking": "a"}', PLAIN) == '{"booking": "a"}'


@pytest.mark.parametrize(
    ("column", "erasure", "message"),
    [
        ({"personal": "hash"}, None, "'tail_number' is hashed, so it cannot be a request field"),
        ({}, {"subject": "passenger", "models": "retrain"}, "'passenger' is not a landed column"),
        (
            {},
            {"subject": "flight_number", "models": "retrain"},
            "'flight_number' of type long is not a string",
        ),
        ({}, {"subject": "tail_number", "models": "forget"}, "erasure.models"),
    ],
)
def test_contradictions_about_personal_data_are_named(
    column: dict[str, object], erasure: dict[str, object] | None, message: str
) -> None:
    fields = use_case("flight_delay").model_dump()
    if column:
        for feed in (feed for source in fields["sources"] for feed in source["feeds"]):
            for there in feed["columns"]:
                if there["name"] == "tail_number":
                    there |= column
    if erasure is not None:
        fields["erasure"] = erasure
    with pytest.raises(SpecError, match=message):
        define(**fields)
