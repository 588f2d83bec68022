"""Real brokers, and a state folder of its own for each test module."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airloop.connections import Connection
from airloop.settings import REPOSITORY, Settings
from airloop.sources.kinesis_connection import kinesis_client
from tests.streams.kafka_broker import running_broker
from tests.streams.processes import StreamJob, free_port

AWS = {"conn_type": "aws", "login": "testing", "password": "testing"}


def fresh_settings(folder: Path) -> Settings:
    """Settings whose state is in `folder`, with the fetched jars."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jars").symlink_to(REPOSITORY / ".airloop" / "jars")
    return Settings(state_dir=folder, spark_driver_memory_mib=1024)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Kafka broker."""
    with running_broker(tmp_path_factory.mktemp("kafka")) as address:
        yield address


@pytest.fixture(scope="session")
def kinesis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that speaks Kinesis."""
    port = free_port()
    log = tmp_path_factory.mktemp("kinesis") / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("kinesis_server.py")), str(port)],
            stdout=file,
            stderr=file,
            env={**os.environ, "MOTO_ENABLE_ISO_REGIONS": "false"},
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield url
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def kinesis(kinesis_url: str) -> Any:
    """A client of that server."""
    return kinesis_client(kinesis_connection(kinesis_url))


def kinesis_connection(url: str) -> Connection:
    """The connection to a server at `url`."""
    return Connection(id="airloop_kinesis", **kinesis_document(url))


def kinesis_document(url: str) -> dict[str, Any]:
    """The connection, in Airflow's JSON form."""
    return {**AWS, "extra": {"region_name": "eu-west-1", "endpoint_url": url}}


def kafka_job(settings: Settings, address: str) -> StreamJob:
    """The Kafka stream's job."""
    host, port = address.split(":")
    document = {"conn_type": "kafka", "host": host, "port": int(port)}
    return StreamJob(settings, "airport_kafka", "airloop_kafka", document)


def kinesis_job(settings: Settings, url: str) -> StreamJob:
    """The Kinesis stream's job."""
    return StreamJob(settings, "airport_kinesis", "airloop_kinesis", kinesis_document(url))
