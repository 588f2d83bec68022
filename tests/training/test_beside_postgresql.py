"""TensorFlow and PostgreSQL's client in one process: both bring an OpenSSL, and only one order is safe."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.sources.servers import HOST, PostgresServer, postgres_server

CONNECT = """
import sys
import airloop.training.devices
import tensorflow
from sqlalchemy import create_engine
with create_engine(sys.argv[1]).connect() as connection:
    print(connection.exec_driver_sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").scalar())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(prefix="airloop-tls-", dir="/tmp"))
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    request = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={HOST}")
    subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    try:
        for path in (folder, key, certificate):
            shutil.chown(path, "postgres", "postgres")
    except (LookupError, PermissionError):
        pass  # Where tests run as another user, the server does too.
    tls = {"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key}
    try:
        with postgres_server(
            *(part for name, value in tls.items() for part in ("-c", f"{name}={value}"))
        ) as it:
            yield it
    finally:
        shutil.rmtree(folder)


def test_a_training_reaches_a_catalog_over_tls(server: PostgresServer) -> None:
    url = URL.create(
        "postgresql+psycopg2", server.user, server.password, HOST, server.port, server.database
    ).update_query_dict({"sslmode": "require"})
    address = url.render_as_string(hide_password=False)
    done = subprocess.run(
        [sys.executable, "-c", CONNECT, address], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "True"
