"""PostgreSQL: bound values, one snapshot, bounded pieces, and errors in plain words without the password."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

import pytest

from airloop.connections import Connection
from airloop.errors import SourceError, SpecError
from airloop.settings import Settings
from airloop.sources.outage import SourceUnavailable
from airloop.sources.parsing import PIECE_ROWS
from airloop.sources.sql import SqlSource
from airloop.use_cases.spec import Column, Feed
from tests.sources.arrivals import INTERVAL, in_utc, read, records
from tests.sources.servers import PostgresServer, free_port, postgres_server

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
COUNT = 3 * PIECE_ROWS


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> PostgresServer:
    """A table of a day's events, an odd one beside it, and one with a name that needs quoting."""
    postgres.execute(
        "CREATE TABLE events AS SELECT n AS id, 'label ' || n AS label, "
        f"timestamptz '2013-03-05Z' + n * interval '86400 s' / {COUNT} AS at, "
        "timestamptz '2013-03-06Z' + n * interval '1 s' AS changed "
        f"FROM generate_series(0, {COUNT - 1}) AS n;"
        "CREATE TYPE mood AS ENUM ('good', 'bad');"
        'CREATE TABLE "odd ""name"" :start" ("Id" smallint, "the label" mood, at timestamptz, u uuid);'
        """INSERT INTO "odd ""name"" :start" VALUES (1, 'bad', '2013-03-05Z', gen_random_uuid());"""
    )
    return postgres


def source(server: PostgresServer, **options: str) -> SqlSource:
    return SqlSource(Settings(), options, server.connection())


def few(server: PostgresServer, **options: str) -> list[dict[str, Any]]:
    """Records of a query of a few rows, in order."""
    return sorted(records(read(source(server, **options), EVENTS)), key=lambda record: record["id"])


def test_a_large_table_comes_whole_in_bounded_pieces(database: PostgresServer) -> None:
    pieces = list(source(database, table="events").read(EVENTS, INTERVAL))
    assert [piece.records.num_rows for piece in pieces] == [PIECE_ROWS] * 3
    seen = {number for piece in pieces for number in piece.records["id"].to_pylist()}
    assert len(seen) == COUNT


def test_bounds_are_bound_wherever_the_query_names_them_outside_text(database: PostgresServer) -> None:
    query = (
        "SELECT id, ':start'::text AS label, at -- up to :end\n"
        "FROM events /* :start */ WHERE at >= :start AND at < :start + interval '3 s' "
        "AND at < :end AND at::date = '2013-03-05' AND $q$:end$q$ <> '' ; -- :end"
    )
    found = few(database, query=query.replace(" ; --", " --"))
    assert len(found) == 6
    assert {record["label"] for record in found} == {":start"}


def test_names_are_quoted(database: PostgresServer) -> None:
    options = {"table": 'odd "name" :start', "column.id": "Id", "column.label": "the label"}
    (record,) = few(database, **options)
    assert (record["id"], record["label"]) == (1, "bad")
    with pytest.raises(SourceError, match=r'relation ".*DROP TABLE events.*" does not exist'):
        few(database, table='x"; DROP TABLE events; --')


def test_the_interval_filters_what_the_query_gives(database: PostgresServer) -> None:
    query = "SELECT n AS id, NULL AS label, timestamptz '2013-03-04 23:59Z' + n * interval '1 min' AS at"
    found = few(database, query=f"{query} FROM generate_series(0, 1441) AS n")
    assert [record["id"] for record in (found[0], found[-1])] == [1, 1440]


def test_a_change_is_told_by_its_time_and_place(database: PostgresServer) -> None:
    options = {
        "query": "SELECT * FROM events WHERE id IN (5, 40)",
        "updated_at": "changed",
        "offset": "id, label",
    }
    first, second = few(database, **options)
    assert first["_source_time"] == in_utc(2013, 3, 6, 0, 0, 5)
    place, label, changed, content = first["_source_offset"].split("|")
    assert (place, label, changed) == (f"{5:020d}", "label 5", "2013-03-06 00:00:05.000000Z")
    assert len(content) == 32
    assert first["_source_offset"] < second["_source_offset"]


def test_without_a_time_of_change_the_event_time_stands_for_it(database: PostgresServer) -> None:
    (record,) = few(database, query="SELECT * FROM events WHERE id = 7")
    assert record["_source_time"] == record["at"]


def test_times_without_a_zone_are_in_the_zone_of_the_options(database: PostgresServer) -> None:
    times = "VALUES (timestamp '2013-03-04 19:00'), ('2013-03-04 18:59')"
    query = f"SELECT 1 AS id, '' AS label, t AS at FROM ({times}) AS v (t)"
    (record,) = few(database, query=query, time_zone="America/New_York")
    assert record["at"] == INTERVAL.start


def test_a_row_that_does_not_fit_is_set_aside_alone(database: PostgresServer) -> None:
    numbers = "VALUES (1::numeric), ('NaN'), (2.5), (3)"
    query = f"SELECT n AS id, '' AS label, timestamptz '2013-03-05Z' AS at FROM ({numbers}) AS v (n)"
    pieces = read(source(database, query=query), EVENTS)
    assert [record["id"] for record in records(pieces)] == [1, 3]
    reasons = {item.reason for piece in pieces for item in piece.malformed}
    assert reasons == {"id: 'nan' is no whole number of 64 bits", "id: '2.5' is no whole number of 64 bits"}
    assert len({item.offset for piece in pieces for item in piece.malformed}) == 2


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"table": "nothing"}, r'relation "nothing" does not exist'),
        ({"table": "events", "column.label": "name"}, r"name \(for label\) in the table events .*id, label"),
        ({"table": "events", "updated_at": "modified"}, r"columns modified in the table events"),
        ({"table": "events", "updated_at": "label"}, r"label of the table events .* to be a timestamp"),
        ({"table": "events", "column.at": "label"}, r"at is string, not timestamp"),
        ({"query": "SELECT id, id AS label, at FROM events"}, r"label is int32, not string"),
        ({"query": "SELEC 1"}, "syntax error"),
        ({"query": "SELECT 1 / (id - id) AS id, label, at FROM events"}, "division by zero"),
        ({"query": "DELETE FROM events RETURNING *"}, "syntax error"),
    ],
)  # fmt: skip
def test_what_a_person_must_mend_is_said(
    database: PostgresServer, options: dict[str, str], error: str
) -> None:
    with pytest.raises(SourceError, match=error):
        few(database, **options)


def test_writing_is_refused_by_the_server(database: PostgresServer) -> None:
    database.execute("CREATE SEQUENCE IF NOT EXISTS counter")
    with pytest.raises(SourceError, match="read-only transaction"):
        few(database, query="SELECT nextval('counter') AS id, '' AS label, timestamptz '2013-03-05Z' AS at")


@pytest.mark.parametrize("options", [{}, {"table": "t", "query": "SELECT 1"}], ids=["neither", "both"])
def test_a_source_has_either_a_table_or_a_query(database: PostgresServer, options: dict[str, str]) -> None:
    with pytest.raises(SpecError, match="either a table or a query"):
        few(database, **options)


def test_a_source_without_its_connection_is_refused() -> None:
    with pytest.raises(SpecError, match="a connection for the sql adapter"):
        SqlSource(Settings(), {"table": "events"}, None)


def _read_through(connection: Connection) -> None:
    list(SqlSource(Settings(), {"table": "events"}, connection).read(EVENTS, INTERVAL))


def test_a_wrong_password_is_a_matter_for_a_person_and_not_shown(database: PostgresServer) -> None:
    for password in ("hunter2!", "100%/wrong"):
        with pytest.raises(SourceError, match=r"warehouse.*password authentication failed") as caught:
            _read_through(database.connection(password=password))
        assert password not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_missing_database_is_a_matter_for_a_person(database: PostgresServer) -> None:
    with pytest.raises(SourceError, match='database "elsewhere" does not exist'):
        _read_through(database.connection(schema="elsewhere"))


def test_a_server_that_does_not_answer_may_be_tried_again(database: PostgresServer) -> None:
    with pytest.raises(SourceUnavailable, match="Connection refused"):
        _read_through(database.connection(port=free_port()))
    with pytest.raises(SourceUnavailable, match="translate host name"):
        _read_through(database.connection(host="nowhere.invalid"))


def test_a_statement_that_takes_too_long_may_be_tried_again(database: PostgresServer) -> None:
    query = "SELECT 1 AS id, '' AS label, timestamptz '2013-03-05Z' AS at FROM pg_sleep(20)"
    with pytest.raises(SourceUnavailable, match="statement timeout"):
        few(database, query=query, statement_timeout_seconds="0.3")


def test_a_read_sees_the_table_as_it_was_when_it_began(database: PostgresServer) -> None:
    database.execute("CREATE TABLE moving AS SELECT * FROM events; CREATE INDEX ON moving (at)")
    pieces = source(database, table="moving").read(EVENTS, INTERVAL)
    first = next(pieces)
    database.execute(
        "UPDATE moving SET label = 'changed', at = at + interval '1 ms'; DELETE FROM moving WHERE id % 2 = 0"
    )
    rest = list(pieces)
    labels = [label for piece in (first, *rest) for label in piece.records["label"].to_pylist()]
    assert len(labels) == COUNT
    assert "changed" not in labels


def test_a_server_that_stops_while_it_is_read_may_be_tried_again() -> None:
    with postgres_server() as server:
        server.execute(
            "CREATE TABLE events AS SELECT n AS id, '' AS label, timestamptz '2013-03-05Z' AS at "
            f"FROM generate_series(1, {COUNT}) AS n"
        )
        pieces = source(server, table="events").read(EVENTS, INTERVAL)
        next(pieces)
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'airloop'"
        )
        with pytest.raises(SourceUnavailable, match="terminating connection"):
            list(pieces)


def test_nothing_stays_open_at_the_server(database: PostgresServer) -> None:
    pieces = source(database, table="events").read(EVENTS, INTERVAL)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]  # a generator
    list(source(database, table="events").read(EVENTS, INTERVAL))
    deadline = threading.Event()
    for _ in range(50):
        try:
            database.execute(
                "DO $$ BEGIN IF EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'airloop') "
                "THEN RAISE 'still there'; END IF; END $$"
            )
            return
        except Exception:
            deadline.wait(0.1)
    pytest.fail("a connection was left open")


_PEAK = """
import resource, sys
from airloop.connections import Connection
from airloop.settings import Settings
from airloop.sources.sql import SqlSource
from tests.sources.arrivals import INTERVAL
from tests.sources.test_sql import EVENTS
connection = Connection.model_validate_json(sys.argv[1])
query = ("SELECT n AS id, 'label ' || lpad(n::text, 60) AS label, timestamptz '2013-03-05Z' AS at "
         f"FROM generate_series(1, {sys.argv[2]}) AS n")
source = SqlSource(Settings(), {"query": query}, connection)
rows = sum(piece.records.num_rows for piece in source.read(EVENTS, INTERVAL))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_table(database: PostgresServer) -> None:
    fields = {**database.connection().model_dump(by_alias=True), "password": database.password}

    def peak(rows: int) -> int:

        done = subprocess.run(
            [sys.executable, "-c", _PEAK, json.dumps(fields), str(rows)],
            check=True,
            capture_output=True,
            text=True,
        )
        found, kibibytes = map(int, done.stdout.split())
        assert found == rows
        return kibibytes // 1024

    assert peak(400_000) < peak(100_000) + 20
