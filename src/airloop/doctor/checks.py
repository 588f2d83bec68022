"""Which checks a deployment has: those of what its settings, its use cases and its connections name.

Belongs here: the list, and what to do about each. Does not belong here: how something is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from airloop.compute import Batch, EmrServerless, SageMaker
from airloop.connections import PREDICTION_LOG, find_connection
from airloop.doctor import machine, services, stores
from airloop.doctor.examination import Check
from airloop.doctor.reachable import NEXT_STEPS
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase


def checks_of(settings: Settings, use_cases: Sequence[UseCase]) -> Iterator[Check]:
    """All of them."""
    yield Check(
        "state folder",
        machine.state_folder,
        "give the user that runs Airflow the right to write, or mount it (AIRLOOP_STATE_DIR)",
    )
    yield Check("free disk", machine.free_disk, "remove what is old, or enlarge the disk")
    if "spark" not in settings.compute or settings.compute["spark"].kind == "process":
        yield Check("java", machine.java, "install Java 17 (make setup), or set JAVA_HOME")
        yield Check("spark jars", machine.jars, "make setup")
    if settings.spark_master.startswith("spark://"):
        yield Check("spark master", machine.spark_master, "start the master, or correct AIRLOOP_SPARK_MASTER")
    yield Check("signing keys", machine.signing_keys, "make a pair: docs/how-to/sign-models.md")
    yield Check("clock", machine.clock, "have this machine keep time (NTP: chrony, systemd-timesyncd)")
    yield Check("warehouse", stores.warehouse, NEXT_STEPS["warehouse"])
    yield Check("catalog", stores.catalog, NEXT_STEPS["catalog"])
    yield Check("feast registry", stores.feast_registry, NEXT_STEPS["feast_registry"])
    if settings.redis_connection is not None:
        yield Check("online store", stores.online_store, NEXT_STEPS["online_store"])
    if settings.tuning_storage is not None:
        yield Check("tuning storage", stores.tuning_storage, "start it, or correct AIRLOOP_TUNING_STORAGE")
    if settings.backup_uri is not None:
        yield Check("backups", stores.backups, "correct AIRLOOP_BACKUP_URI, or see the place's rights")
    if settings.tracking_uri.startswith("http"):
        yield Check("mlflow", services.mlflow, NEXT_STEPS["mlflow"])
    yield Check(
        "model server",
        services.model_server,
        "start it (locally: make up), or correct AIRLOOP_MODEL_SERVER_TARGET and _AUTHORITY",
    )
    yield Check("gateway", services.gateway, "start it (locally: make up), and read its log")
    yield Check("airflow", services.airflow, "start it (locally: make up), and read its log")
    yield from _streams(use_cases)
    for group, place in sorted(settings.compute.items()):
        if isinstance(place, EmrServerless):
            look = services.emr_serverless(place)
        elif isinstance(place, SageMaker):
            look = services.sagemaker(place)
        elif isinstance(place, Batch):
            look = services.batch(place)
        else:
            continue
        yield Check(
            f"{group} on {place.kind}", look, "see the role's rights and region, or correct AIRLOOP_COMPUTE"
        )


def _streams(use_cases: Sequence[UseCase]) -> Iterator[Check]:
    """Of brokers whose connection is given to this process: Airflow's, or the environment's."""
    streams = [stream for spec in use_cases for stream in spec.streams]
    for stream in {stream.connection: stream for stream in streams}.values():
        connection = find_connection(stream.connection)
        if connection is None:
            continue
        if stream.broker == "kafka":
            look = services.kafka(connection)
        else:
            topics = [
                topic for other in streams if other.connection == stream.connection for topic in other.topics
            ]
            look = services.kinesis(connection, tuple(dict.fromkeys(topics)))
        yield Check(
            stream.connection, look, f"start the broker, or correct the connection {stream.connection}"
        )
    logs = find_connection(PREDICTION_LOG)
    if logs is not None:
        yield Check(PREDICTION_LOG, services.kafka(logs), "start the broker, or correct the connection")
