"""A PostgreSQL server, read through ADBC into Arrow: one snapshot, rows in pieces, errors in plain words.

Belongs here: the connection, its transaction, and which errors a retry may cure. Does not belong here: what
is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

import pyarrow as pa
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]  # it publishes no types

from airloop.connections import Connection
from airloop.errors import SourceError, SpecError
from airloop.sources.outage import SourceUnavailable

CONNECT_SECONDS: Final = 10
PORT: Final = 5432

_WITHOUT_COPY: Final = {"adbc.postgresql.use_copy": "false"}
"""ADBC wraps a query in COPY, which FETCH and DECLARE cannot be."""

_PERMANENT_AT_LOGIN: Final = (
    "authentication failed",
    "does not exist",
    "no password supplied",
    "no pg_hba.conf entry",
    "permission denied",
    "certificate",
    "SSL",
    "invalid sslmode",
    "invalid connection option",
    "invalid URI",
)
"""libpq gives no SQLSTATE for a failed login; what is in none of these may be an outage."""

_TRANSIENT_CLASSES: Final = ("08", "40", "53", "55", "57", "58", "XX")
"""SQLSTATE classes of outages: connection, rollback, resources, locks, shutdown or time-out, system."""


class Snapshot:
    """The database as it stood when the first statement ran."""

    def __init__(self, connection: Any, source: Connection) -> None:
        self._connection, self._source = connection, source

    def schema(self, statement: str, values: Sequence[datetime]) -> pa.Schema:
        """The columns of a SELECT; a type that Arrow lacks is text, a numeric is decimal."""
        with _understood(self._source), closing(self._connection.cursor()) as cursor:
            if values:
                # Without bound values the server could not tell their types.
                cursor.adbc_statement.set_options(**_WITHOUT_COPY)
                cursor.execute(f"{statement} LIMIT 0", tuple(values))
                found = cursor.fetch_arrow_table().schema
            else:
                found = cursor.adbc_execute_schema(statement)
        return pa.schema([pa.field(field.name, _plain(field.type)) for field in found])

    def pieces(self, statement: str, values: Sequence[datetime], rows: int) -> Iterator[pa.Table]:
        """What a SELECT finds, at most `rows` at a time; types that Arrow lacks are as text."""
        with _understood(self._source):
            self._run(f"DECLARE delivery NO SCROLL CURSOR FOR {statement}", tuple(values))
            with closing(self._connection.cursor()) as cursor:
                while True:
                    cursor.adbc_statement.set_options(**_WITHOUT_COPY)
                    cursor.execute(f"FETCH FORWARD {rows} FROM delivery")
                    table = cursor.fetch_arrow_table()
                    if table.num_rows == 0:
                        return
                    yield _plain_table(table)

    def _run(self, statement: str, values: Sequence[object] = ()) -> None:
        with closing(self._connection.cursor()) as cursor:
            cursor.adbc_statement.set_options(**_WITHOUT_COPY)
            cursor.execute(statement, tuple(values) or None)

    def begin(self, time_zone: str, timeout_seconds: float) -> None:
        """Make the transaction read-only and its statements see one state of the database."""
        with _understood(self._source):
            self._run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            # With the source's zone, a column without a zone compares with the interval's instants.
            # The whole result is read, so the planner should not favour its first rows.
            settings = {
                "TimeZone": time_zone,
                "statement_timeout": f"{int(timeout_seconds * 1000)}ms",
                "cursor_tuple_fraction": "1",
            }
            for name, value in settings.items():
                with closing(self._connection.cursor()) as cursor:
                    cursor.execute("SELECT set_config($1, $2, true)", (name, value))
                    cursor.fetchall()


@contextmanager
def snapshot(source: Connection, time_zone: str, timeout_seconds: float) -> Iterator[Snapshot]:
    """The database of the Airflow connection `source`, of type `postgres`, in a read-only transaction.

    libpq's parameters such as `sslmode` come from its extra. Raises `SourceError` for what a person must mend
    and `SourceUnavailable` for an outage; neither shows the password.
    """
    if source.conn_type not in ("postgres", "postgresql"):
        raise SpecError(
            expected=f"connection {source.id!r} to be of type postgres",
            found=f"type {source.conn_type!r}",
            next_step="name another connection in the source, or correct this one's type",
        )
    with _understood(source):
        connection = dbapi.connect(_uri(source))
    try:
        rows = Snapshot(connection, source)
        rows.begin(time_zone, timeout_seconds)
        yield rows
    finally:
        connection.close()


def quoted(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _uri(source: Connection) -> str:
    login = quote(source.login or "", safe="")
    secret = f":{quote(source.secret, safe='')}" if source.secret else ""
    host = source.host or ""
    host = f"[{host}]" if ":" in host else quote(host, safe="")
    parameters = {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "airloop",
        # A server that vanished is noticed within a minute.
        "keepalives_idle": 30,
        "tcp_user_timeout": 60_000,
        **{name: value for name, value in source.extra.items() if name.startswith("ssl")},
    }
    database = quote(source.schema_ or "", safe="")
    return f"postgresql://{login}{secret}@{host}:{source.port or PORT}/{database}?{urlencode(parameters)}"


def _plain(found: pa.DataType) -> pa.DataType:
    """The type that an Arrow extension type stands for: PostgreSQL's numeric is a number written as text."""
    if not isinstance(found, pa.BaseExtensionType):
        return found
    return pa.decimal128(38) if getattr(found, "type_name", "") == "numeric" else pa.string()


def _plain_table(table: pa.Table) -> pa.Table:
    """`table` with numerics, the only extension type that is not asked for as text, as text."""
    for place, field in enumerate(table.schema):
        if isinstance(field.type, pa.BaseExtensionType):
            column = table.column(place)
            storage = pa.chunked_array([chunk.storage for chunk in column.chunks], field.type.storage_type)
            table = table.set_column(place, field.name, storage)
    return table


@contextmanager
def _understood(source: Connection) -> Iterator[None]:
    """Errors of the driver, as what they mean."""
    try:
        yield
    except dbapi.Error as error:
        text = " ".join(str(error).split())
        if source.secret:
            text = text.replace(source.secret, "***").replace(quote(source.secret, safe=""), "***")
        state = getattr(error, "sqlstate", None)
        where = f"connection {source.id!r} ({source.host}:{source.port or PORT}/{source.schema_ or ''})"
        permanent = (
            not state.startswith(_TRANSIENT_CLASSES)
            if state
            else "Failed to connect" in text and any(mark in text for mark in _PERMANENT_AT_LOGIN)
        )
        if not permanent:
            raise SourceUnavailable(f"{where}: {text}") from None
        raise SourceError(
            expected=f"PostgreSQL to answer at {where}",
            found=text,
            next_step="correct the connection in Airflow, or the source's table, query and columns in the "
            "spec",
        ) from None
