"""A paged JSON API: every way of paging, walks that never end or end early, patience, and secrets."""

from __future__ import annotations

import base64
import gzip
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airloop.errors import SourceError, SpecError
from airloop.settings import Settings
from airloop.sources.http_api import HttpSource
from airloop.sources.outage import SourceUnavailable
from airloop.sources.parsing import PIECE_ROWS
from airloop.use_cases.spec import Column, Feed
from tests.sources.arrivals import INTERVAL, in_utc, read, records
from tests.sources.servers import HOST, Answer, Asked, HttpServer, free_port

EVENTS = Feed(
    name="events",
    key=("id",),
    event_time="at",
    columns=(
        Column(name="id", type="long"),
        Column(name="label", type="string", required=False),
        Column(name="at", type="timestamp"),
    ),
)
AT = "2013-03-05T01:02:03Z"


def event(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": number, "label": f"event {number}", "at": AT, **changes}


def source(http: HttpServer, connection: dict[str, Any] | None = None, **options: str) -> HttpSource:
    given = {"url": "/events", "records": "items", "longest_wait_seconds": "0.2", **options}
    return HttpSource(Settings(), given, http.connection(**(connection or {})))


def ids(http: HttpServer, **options: str) -> list[int]:
    return [record["id"] for record in records(read(source(http, **options), EVENTS))]


def pages(*contents: Any) -> Callable[[Asked], Answer]:
    """A server that gives one content after the other, whatever it is asked."""
    rest: Iterator[Any] = iter(contents)
    return lambda asked: answer if isinstance(answer := next(rest), Answer) else Answer(answer)


# Ways of paging.


def test_a_document_without_pages_is_read_at_any_depth(http: HttpServer) -> None:
    http.respond = lambda asked: Answer({"result": {"rows": [event(1), event(2)]}})
    assert ids(http, records="result.rows") == [1, 2]
    http.respond = lambda asked: Answer([event(3)])
    assert ids(http, records="") == [3]


def test_the_interval_is_asked_for_in_iso_8601(http: HttpServer) -> None:
    http.respond = lambda asked: Answer({"items": []})
    ids(http, url="/{feed}/{day:%Y%m%d}?from={start}&to={end:%Y-%m-%d}")
    (asked,) = http.asked
    assert asked.path == "/events/20130305"
    assert asked.query == {"from": "2013-03-05T00:00:00Z", "to": "2013-03-06"}


def test_pages_follow_the_link_in_the_document(http: HttpServer) -> None:
    def respond(asked: Asked) -> Answer:
        page = int(asked.query.get("p", "0"))
        return Answer({"items": [event(page)], "links": {"next": f"?p={page + 1}" if page < 3 else None}})

    http.respond = respond
    assert ids(http, paging="next", next="links.next") == [0, 1, 2, 3]


def test_pages_follow_the_link_header(http: HttpServer) -> None:
    def respond(asked: Asked) -> Answer:
        page = int(asked.query.get("p", "0"))
        link = f'</events?p=0>; rel="first", <{http.url}/events?p={page + 1}>; rel="next"'
        return Answer({"items": [event(page)]}, headers={"Link": link} if page < 2 else {})

    http.respond = respond
    assert ids(http, paging="link") == [0, 1, 2]


def test_pages_by_number_go_on_until_one_is_empty_even_if_the_api_gives_fewer_than_asked(
    http: HttpServer,
) -> None:
    def respond(asked: Asked) -> Answer:
        first = (int(asked.query["page"]) - 1) * 2
        return Answer({"items": [event(n) for n in range(first, min(first + 2, 5))]})

    http.respond = respond
    assert ids(http, paging="page", page_size="500", page_size_parameter="per_page") == [0, 1, 2, 3, 4]
    assert [asked.query["page"] for asked in http.asked] == ["1", "2", "3", "4"]
    assert {asked.query["per_page"] for asked in http.asked} == {"500"}


def test_pages_by_offset_go_on_where_the_last_one_ended(http: HttpServer) -> None:
    def respond(asked: Asked) -> Answer:
        first = int(asked.query["skip"])
        return Answer({"items": [event(n) for n in range(first, min(first + 2, 5))], "total": 5})

    http.respond = respond
    assert ids(http, paging="offset", offset_parameter="skip", total="total") == [0, 1, 2, 3, 4]
    assert [asked.query["skip"] for asked in http.asked] == ["0", "2", "4"]


def test_pages_by_cursor_go_on_until_there_is_none(http: HttpServer) -> None:
    def respond(asked: Asked) -> Answer:
        page = int(asked.query.get("after", "c0")[1:])
        return Answer({"items": [event(page)], "meta": {"after": f"c{page + 1}" if page < 2 else ""}})

    http.respond = respond
    assert ids(http, paging="cursor", cursor="meta.after", cursor_parameter="after") == [0, 1, 2]


# Walks that do not end well.


def test_a_link_that_leads_back_is_noticed(http: HttpServer) -> None:
    def respond(asked: Asked) -> Answer:
        page = int(asked.query.get("p", "0"))
        return Answer({"items": [event(page)], "next": f"/events?p={(page + 1) % 3 or 1}"})

    http.respond = respond
    with pytest.raises(SourceError, match="to come to an end; found page 3 leads back to an earlier one"):
        ids(http, paging="next", next="next")
    assert len(http.asked) == 3


def test_an_api_that_ignores_the_page_number_is_noticed(http: HttpServer) -> None:
    http.respond = lambda asked: Answer({"items": [event(1), event(2)]})
    with pytest.raises(SourceError, match="page 2 repeats page 1"):
        ids(http, paging="page")


@pytest.mark.parametrize("paging", ["none", "page"])
def test_a_short_read_is_refused(http: HttpServer, paging: str) -> None:
    def respond(asked: Asked) -> Answer:
        more = paging == "none" or asked.query["page"] == "1"
        return Answer({"items": [event(1), event(2)] if more else [], "count": 3})

    http.respond = respond
    with pytest.raises(SourceError, match=r"3 records at .*the API's count; found 2 on"):
        ids(http, paging=paging, total="count")


def test_a_total_that_changes_meanwhile_may_be_tried_again(http: HttpServer) -> None:
    http.respond = pages({"items": [event(1)], "count": 2}, {"items": [event(2)], "count": 3})
    with pytest.raises(SourceUnavailable, match="count went from 2 to 3"):
        ids(http, paging="page", total="count")


def test_a_link_to_another_host_is_not_followed(http: HttpServer) -> None:
    http.respond = lambda asked: Answer({"items": [], "next": "http://elsewhere.invalid/events"})
    with pytest.raises(SourceError, match=r"a link to elsewhere\.invalid"):
        ids(http, paging="next", next="next")
    http.respond = lambda asked: Answer(status=302, headers={"Location": "http://elsewhere.invalid/?key=1"})
    with pytest.raises(SourceError, match=r"302 Found to http://elsewhere\.invalid/\. Next"):
        ids(http)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"<html>maintenance</html>", "no JSON .*maintenance"),
        (b"[" * 100_000, "no JSON .*nested too deeply"),
        ({"rows": []}, "a list at items .*found NoneType; the document has rows"),
        ({"items": {"1": {}}}, "a list at items .*found dict"),
        ([], "a list at items .*found NoneType; the document has list"),
    ],
)
def test_a_document_of_another_shape_is_refused(http: HttpServer, body: Any, problem: str) -> None:
    http.respond = lambda asked: Answer(body)
    with pytest.raises(SourceError, match=problem):
        ids(http)


# Patience.


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(status=503),
        Answer(status=429, headers={"Retry-After": "0"}),
        Answer({"items": [event(9)]}, cut_at=10),
        Answer(b"damaged", headers={"Content-Encoding": "gzip"}),
    ],
    ids=["503", "429", "cut off", "damaged"],
)
def test_a_passing_trouble_is_sat_out(http: HttpServer, trouble: Answer) -> None:
    http.respond = pages(trouble, trouble, {"items": [event(1)]})
    assert ids(http) == [1]
    assert len(http.asked) == 3


def test_the_api_is_left_alone_for_as_long_as_it_asks(http: HttpServer) -> None:
    http.respond = pages(Answer(status=429, headers={"Retry-After": "1"}), {"items": [event(1)]})
    began = time.monotonic()
    assert ids(http, longest_wait_seconds="5") == [1]
    assert time.monotonic() - began >= 1


def test_a_time_to_try_again_is_measured_on_the_apis_own_clock(http: HttpServer) -> None:
    later = {"Retry-After": "Tue, 05 Mar 2013 00:00:30 GMT", "Date": "Tue, 05 Mar 2013 00:00:00 GMT"}

    def respond(asked: Asked) -> Answer:
        return Answer(status=503, headers=later)

    http.respond = respond
    with pytest.raises(SourceUnavailable, match="it asks to wait 30 s"):
        ids(http)


def test_an_api_that_asks_for_more_patience_than_there_is_is_left_to_the_tasks_retries(
    http: HttpServer,
) -> None:
    http.respond = lambda asked: Answer(status=503, headers={"Retry-After": "3600"})
    with pytest.raises(SourceUnavailable, match="503 Service Unavailable, it asks to wait 3600 s"):
        ids(http)
    assert len(http.asked) == 1


def test_an_outage_that_lasts_may_be_tried_again_later(http: HttpServer) -> None:
    http.respond = lambda asked: Answer(status=500)
    with pytest.raises(SourceUnavailable, match="500 Internal Server Error, 3 attempts"):
        ids(http, attempts="3")
    assert len(http.asked) == 3
    gone = HttpSource(Settings(), {"url": f"http://{HOST}:{free_port()}/", "attempts": "1"})
    with pytest.raises(SourceUnavailable, match="ConnectError"):
        list(gone.read(EVENTS, INTERVAL))


def test_a_silent_api_is_given_up(http: HttpServer) -> None:
    def respond(asked: Asked) -> Answer:
        time.sleep(1)
        return Answer({"items": []})

    http.respond = respond
    with pytest.raises(SourceUnavailable, match="ReadTimeout"):
        ids(http, timeout_seconds="0.2", attempts="2")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_a_person_must_mend_is_not_tried_again(http: HttpServer, status: int) -> None:
    http.respond = lambda asked: Answer({"error": "no"}, status=status)
    with pytest.raises(SourceError, match=rf"a JSON document at {http.url}/events; found {status} "):
        ids(http, url="/events?key=hunter2")
    assert len(http.asked) == 1


# Who asks.


@pytest.mark.parametrize(
    ("fields", "header", "value"),
    [
        ({"password": "t0ken"}, "Authorization", "Bearer t0ken"),
        (
            {"login": "me", "password": "t0ken"},
            "Authorization",
            "Basic " + base64.b64encode(b"me:t0ken").decode(),
        ),
        ({"extra": {"headers": {"X-Api-Key": "t0ken"}}}, "X-Api-Key", "t0ken"),
    ],
)
def test_the_connection_says_who_asks_and_no_error_repeats_its_secret(
    http: HttpServer, fields: dict[str, Any], header: str, value: str
) -> None:
    http.respond = lambda asked: Answer(status=401)
    with pytest.raises(SourceError) as caught:
        read(source(http, fields), EVENTS)
    assert http.asked[0].headers[header] == value
    assert "t0ken" not in str(caught.value)


def test_a_url_elsewhere_than_at_the_connections_host_is_refused(http: HttpServer) -> None:
    with pytest.raises(SpecError, match=f"the url to be below {http.url}"):
        ids(http, url="https://elsewhere.invalid/events")
    with pytest.raises(SpecError, match="a connection with a host, or a whole url"):
        list(HttpSource(Settings(), {"url": "/events"}).read(EVENTS, INTERVAL))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"paging": "next"}, "paging=next and the option next need one another"),
        ({"cursor": "meta.after"}, "paging=cursor and the option cursor need one another"),
        ({"paging": "pages"}, "paging: Input should be"),
        ({"attempts": "0"}, "attempts: Input should be greater"),
    ],
)
def test_options_that_contradict_each_other_are_named(
    http: HttpServer, options: dict[str, str], problem: str
) -> None:
    with pytest.raises(SpecError, match=problem):
        ids(http, **options)


# Records.


def test_bad_records_are_set_aside_alone(http: HttpServer) -> None:
    items = [event(1), event("two"), 7, event(4, label={"en": "x"}), event(5, at="noon"), event(6, label=6)]
    http.respond = lambda asked: Answer({"items": [*items, event(7)]})
    pieces = read(source(http), EVENTS)
    assert [record["id"] for record in records(pieces)] == [1, 7]
    malformed = [item for piece in pieces for item in piece.malformed]
    assert [item.reason for item in malformed] == [
        "id: 'two' is no whole number of 64 bits",
        "7 is no JSON object",
        "label: {'en': 'x'} is no text",
        "at: 'noon' is no instant",
        "label: 6 is no text",
    ]
    assert len({item.offset for item in malformed}) == 5
    assert malformed[1].payload == "7"
    assert [item for piece in read(source(http), EVENTS) for item in piece.malformed] == malformed


def test_a_byte_that_is_no_text_spoils_its_own_record_alone(http: HttpServer) -> None:
    body = b'{"items": [{"id": 1, "label": "caf\xe9", "at": "%s"}, {"id": 2, "at": "%s"}]}'
    http.respond = lambda asked: Answer(body % (AT.encode(), AT.encode()))
    pieces = read(source(http), EVENTS)
    assert [record["id"] for record in records(pieces)] == [2]
    (malformed,) = (item for piece in pieces for item in piece.malformed)
    assert malformed.reason == "label: 'caf\\udce9' is no valid Unicode"


def test_a_records_identity_does_not_depend_on_page_time_or_undeclared_fields(http: HttpServer) -> None:
    http.respond = lambda asked: Answer({"items": [event(1), event(2)]}, headers={"Date": "then"})
    before = records(read(source(http), EVENTS))
    http.respond = lambda asked: Answer({"items": [event(2, seen=7), event(1, seen=8)]})
    after = records(read(source(http), EVENTS))
    assert sorted(before, key=lambda r: r["id"]) == sorted(after, key=lambda r: r["id"])
    http.respond = lambda asked: Answer({"items": [event(1, label="changed"), event(2)]})
    changed = records(read(source(http), EVENTS))
    assert changed[1] == before[1]
    assert changed[0]["_source_offset"] != before[0]["_source_offset"]


def test_source_time_is_when_the_api_says_that_a_record_changed_else_its_event_time(http: HttpServer) -> None:
    items = [
        event(1, meta={"changed": "2013-03-07T00:00:00Z"}),
        event(2),
        event(3, meta={"changed": "lately"}),
    ]
    http.respond = lambda asked: Answer({"items": items})
    pieces = read(source(http, updated_at="meta.changed"), EVENTS)
    found = {record["id"]: record for record in records(pieces)}
    assert found[1]["_source_time"] == in_utc(2013, 3, 7)
    assert found[1]["_source_offset"].startswith("2013-03-07 00:00:00.000000Z|")
    assert found[2]["_source_time"] == in_utc(2013, 3, 5, 1, 2, 3)
    assert [item.reason for piece in pieces for item in piece.malformed] == [
        "updated_at: 'lately' is no instant"
    ]


def test_many_small_pages_become_few_bounded_pieces(http: HttpServer) -> None:
    count, size = PIECE_ROWS + 5_000, 5_000

    def respond(asked: Asked) -> Answer:
        first = int(asked.query["offset"])
        return Answer({"items": [event(n) for n in range(first, min(first + size, count))]})

    http.respond = respond
    pieces = read(source(http, paging="offset"), EVENTS)
    assert [piece.records.num_rows for piece in pieces] == [PIECE_ROWS, 5_000]


def test_a_packed_answer_is_unpacked(http: HttpServer) -> None:
    body = gzip.compress(b'{"items": [{"id": 1, "at": "%s"}]}' % AT.encode())
    http.respond = lambda asked: Answer(body, headers={"Content-Encoding": "gzip"})
    assert ids(http) == [1]
