"""Real servers for tests of what talks to them: PostgreSQL, S3 and HTTP, each on a free loopback port.

Belongs here: starting and stopping them, and how a connection to them looks. Does not belong here: data.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import boto3
import psycopg2

from airloop.connections import Connection

HOST = "127.0.0.1"


def free_port() -> int:
    """A port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class PostgresServer(NamedTuple):
    """A PostgreSQL server with one database and one superuser, who needs a password."""

    port: int
    user: str
    password: str
    database: str

    def connection(self, **changes: Any) -> Connection:
        """The server as an Airflow connection."""
        fields = {
            "id": "warehouse",
            "conn_type": "postgres",
            "host": HOST,
            "port": self.port,
            "login": self.user,
            "password": self.password,
            "schema": self.database,
        }
        return Connection.model_validate({**fields, **changes})

    def execute(self, statement: str, rows: list[tuple[Any, ...]] | None = None) -> None:
        """Run `statement`, for each of `rows` if given, and commit."""
        connection = psycopg2.connect(
            host=HOST, port=self.port, user=self.user, password=self.password, dbname=self.database
        )
        try:
            with connection, connection.cursor() as cursor:
                if rows is None:
                    cursor.execute(statement)
                else:
                    cursor.executemany(statement, rows)
        finally:
            connection.close()


def postgres_programs() -> Path:
    """The folder with initdb and postgres: Debian's newest, or that of the PATH."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda folder: int(folder.parent.name) if folder.parent.name.isdecimal() else 0,
    )
    on_path = shutil.which("initdb")
    folders += [Path(on_path).resolve().parent] if on_path else []
    for folder in reversed(folders):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise RuntimeError(
        "expected PostgreSQL's server programs (initdb, postgres); found none in /usr/lib/postgresql/*/bin "
        "or on the PATH. Next: apt-get install --no-install-recommends postgresql"
    )


@contextmanager
def postgres_server(*more: str) -> Iterator[PostgresServer]:
    """A new, empty PostgreSQL server, with `more` options; it and its files are gone afterwards."""
    programs = postgres_programs()
    # PostgreSQL refuses to run as root; Debian's package brings the user postgres.
    account: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []}
    as_account = account if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="airloop-postgres-", dir="/tmp"))
    server = PostgresServer(port=free_port(), user="airloop", password="s3cret/&%", database="postgres")
    process = None
    try:
        (folder / "password").write_text(server.password + "\n")
        if as_account:
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres", "postgres")
        log = (folder / "log").open("w")
        initdb = [programs / "initdb", "-D", folder / "data", "-U", server.user]
        options = ["--auth", "scram-sha-256", "--no-sync", "--encoding", "UTF8", "--locale", "C"]
        subprocess.run(
            [*initdb, "--pwfile", folder / "password", *options],
            check=True,
            cwd=folder,
            stdout=log,
            stderr=log,
            **as_account,
        )
        postgres = [programs / "postgres", "-D", folder / "data", "-p", str(server.port), "-h", HOST]
        options = ["-k", folder, "-F", "-c", "shared_buffers=32MB", "-c", "max_connections=20", *more]
        process = subprocess.Popen([*postgres, *options], cwd=folder, stdout=log, stderr=log, **as_account)
        _wait_until(lambda: _answers(server), process, folder / "log")
        yield server
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # fast shutdown: clients are cut off
            process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(server: PostgresServer) -> bool:
    try:
        server.execute("SELECT 1")
    except psycopg2.OperationalError:
        return False
    return True


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL does not start:\n{log.read_text()}")
        time.sleep(0.1)


class S3Server(NamedTuple):
    """An S3 service with one bucket."""

    port: int
    bucket: str

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://{HOST}:{self.port}"

    def connection(self, **changes: Any) -> Connection:
        """The service as an Airflow connection."""
        fields = {
            "id": "lake",
            "conn_type": "aws",
            "login": "AKIATEST",
            "password": "s3cret",
            "extra": {"endpoint_url": self.endpoint, "region_name": "eu-central-1"},
        }
        return Connection.model_validate({**fields, **changes})

    def client(self) -> Any:
        """boto3's client for it."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="eu-central-1",
            aws_access_key_id="AKIATEST",
            aws_secret_access_key="s3cret",
        )

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self.client().put_object(Bucket=self.bucket, Key=key, Body=content)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A new S3 service (moto's), with an empty bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    try:
        # All of moto's servers in a process have one store, so a bucket needs a name of its own.
        port = server.get_host_and_port()[1]
        service = S3Server(port=port, bucket=f"deliveries-{port}")
        service.client().create_bucket(
            Bucket=service.bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        yield service
    finally:
        server.stop()


class Asked(NamedTuple):
    """One request as the server got it."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


class Answer(NamedTuple):
    """What the server is to answer; a `body` that is no bytes is sent as JSON."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})
    cut_at: int | None = None
    """Bytes after which the server hangs up."""


class HttpServer:
    """An HTTP server that answers as `respond` says, and remembers what it was asked."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[Asked] = []
        self.respond: Callable[[Asked], Answer] = lambda asked: Answer(status=404)

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://{HOST}:{self.port}"

    def connection(self, **changes: Any) -> Connection:
        """The server as an Airflow connection."""
        fields = {"id": "api", "conn_type": "http", "host": self.url}
        return Connection.model_validate({**fields, **changes})


@contextmanager
def http_server() -> Iterator[HttpServer]:
    """A new HTTP server, which answers 404 until it is told otherwise."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked = Asked(parts.path, dict(parse_qsl(parts.query)), dict(self.headers.items()))
            front.asked.append(asked)
            answer = front.respond(asked)
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            headers = {"Date": self.date_time_string(), "Content-Length": str(len(body)), **answer.headers}
            self.send_response_only(answer.status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: answer.cut_at])
            if answer.cut_at is not None:
                self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    server.daemon_threads = True
    front = HttpServer(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
