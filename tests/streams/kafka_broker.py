"""A real Kafka broker for tests: one process in KRaft mode on ports of loopback that the system picks."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyspark
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from airloop.settings import REPOSITORY
from tests.streams.processes import free_port

PATIENCE_SECONDS = 60


def broker_class_path() -> str:
    """The class path of the pinned broker, which is fetched if it is not there yet."""
    state = REPOSITORY / ".airloop"
    pinned = ["sha256sum", "--status", "--check", "requirements/kafka.sha256"]
    if subprocess.run(pinned, cwd=REPOSITORY, stderr=subprocess.DEVNULL, check=False).returncode:
        subprocess.run([sys.executable, "scripts/fetch_kafka.py", str(state)], cwd=REPOSITORY, check=True)
        subprocess.run(pinned, cwd=REPOSITORY, check=True)
    (scala,) = (Path(pyspark.__file__).parent / "jars").glob("scala-library-2.13*.jar")
    return f"{state / 'kafka'}/*:{scala}"


@contextmanager
def running_broker(folder: Path) -> Iterator[str]:
    """A broker with its data in `folder`; yields its address. It makes no topic by itself."""
    port, controller = free_port(), free_port()
    properties = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "log.dirs": str(folder / "data"),
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
    }
    config = folder / "server.properties"
    config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    java = ["java", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    java += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", broker_class_path()]
    cluster = ["-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(config)]
    subprocess.run([*java, "kafka.tools.StorageTool", "format", *cluster], check=True, capture_output=True)
    with (folder / "broker.log").open("w") as log:
        broker = subprocess.Popen([*java, "kafka.Kafka", str(config)], stdout=log, stderr=log)
    try:
        address = f"127.0.0.1:{port}"
        _await(address, broker, folder / "broker.log")
        yield address
    finally:
        broker.kill()
        broker.wait()


def create_topics(address: str, *names: str, partitions: int = 2) -> None:
    """Make the topics, each with `partitions` partitions."""
    client = AdminClient({"bootstrap.servers": address})
    made = client.create_topics([NewTopic(name, partitions, 1) for name in names])
    for future in made.values():
        future.result(PATIENCE_SECONDS)


def _await(address: str, broker: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    client = AdminClient({"bootstrap.servers": address, "log_level": 0})
    while True:
        try:
            client.list_topics(timeout=1)
            return
        except KafkaException:
            if broker.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the broker did not start: {log.read_text()[-3000:]}") from None
