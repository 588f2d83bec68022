"""The servers that sources are read from: one of each for all tests, started when first asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sources.servers import (
    HttpServer,
    PostgresServer,
    S3Server,
    http_server,
    postgres_server,
    s3_server,
)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def http() -> Iterator[HttpServer]:
    with http_server() as server:
        yield server
