"""The doctor: what answers is well, what does not is named with what to do, and nothing waits for it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from airloop import signing
from airloop.backup import state_files
from airloop.compute import Batch, EmrServerless, Process, SageMaker
from airloop.connections import Connection
from airloop.doctor import machine, services, stores
from airloop.doctor.__main__ import main
from airloop.doctor.checks import checks_of
from airloop.doctor.examination import Check, Failure, NotHere, examine, masked
from airloop.doctor.reachable import unreachable
from airloop.settings import REPOSITORY, Settings, environment_of
from airloop.use_cases.catalogue import all_use_cases
from tests.sources.servers import PostgresServer, S3Server, free_port, postgres_server, s3_server

REGION = "eu-central-1"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_port()
    folder = tmp_path_factory.mktemp("redis")
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    command += ["--requirepass", "s3cret"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            _wait(port)
            yield port
        finally:
            server.terminate()


def _wait(port: int) -> None:
    deadline = time.monotonic() + 60
    while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
        assert time.monotonic() < deadline, "a server did not come up"
        time.sleep(0.1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state")


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")


def test_the_folder_is_seen_by_each_machine_that_mounts_it(settings, monkeypatch):
    assert "no other machine" in machine.state_folder(settings)
    monkeypatch.setattr(socket, "gethostname", lambda: "worker-2")
    own = socket.gethostname()
    assert own == "worker-2"
    assert "also seen from" in machine.state_folder(settings)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    inside = Settings(state_dir=tmp_path / "file" / "state")
    for look in (machine.state_folder, stores.warehouse):
        with pytest.raises(Failure, match="Not a directory"):
            look(inside)


def test_java_and_jars_are_looked_for_where_jobs_would(settings, monkeypatch, tmp_path):
    assert "Java" in machine.java(settings)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(Failure, match=f"none in JAVA_HOME={tmp_path}"):
        machine.java(settings)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    (tmp_path / "bin" / "java").chmod(0o755)
    with pytest.raises(Failure, match=r"11\.0\.2"):
        machine.java(settings)
    (settings.state_dir / "jars").mkdir(parents=True)
    with pytest.raises(Failure, match=r"has no .*iceberg"):
        machine.jars(settings)


def _pair(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_signing_keys_must_be_of_one_pair(settings, tmp_path):
    (private, public), (_, other) = _pair(tmp_path, "one"), _pair(tmp_path, "other")
    good = settings.model_copy(update={"signing_key": private, "verification_key": public})
    assert "is that of" in machine.signing_keys(good)
    with pytest.raises(Failure, match="is not the public key"):
        machine.signing_keys(good.model_copy(update={"verification_key": other}))
    assert "only verifies" in machine.signing_keys(good.model_copy(update={"signing_key": None}))
    assert "none yet" in machine.signing_keys(settings)
    names = (state_files.PRIVATE_KEY, state_files.PUBLIC_KEY)
    assert names == (f"signing/{signing.PRIVATE_KEY}", f"signing/{signing.PUBLIC_KEY}")


def test_a_clock_that_is_off_is_found_by_the_store_s_own(settings, s3, monkeypatch):
    there = settings.model_copy(update={"s3_endpoint": s3.endpoint})
    assert "s beside" in machine.clock(there)
    real = time.time
    # Of the doctor alone: the store is in this process.
    monkeypatch.setattr(machine, "time", SimpleNamespace(time=lambda: real() + 300))
    with pytest.raises(Failure, match=r"\+(299|300|301) s beside"):
        machine.clock(there)


def test_the_warehouse_on_s3_is_written_read_and_left_clean(settings, s3):
    there = settings.model_copy(
        update={
            "warehouse_uri": f"s3://{s3.bucket}/warehouse",
            "s3_endpoint": s3.endpoint,
            "aws_region": REGION,
        }
    )
    assert "readable and writable" in stores.warehouse(there)
    with pytest.raises(Failure, match=r"encrypts with (AES256|nothing)"):
        stores.warehouse(there.model_copy(update={"kms_key": KEY}))
    assert s3.client().list_objects_v2(Bucket=s3.bucket)["KeyCount"] == 0
    (finding,) = examine(
        there.model_copy(update={"warehouse_uri": "s3://no-such-bucket/warehouse"}),
        [Check("warehouse", stores.warehouse, "correct it")],
    )
    assert (finding.outcome, finding.next_step) == ("failed", "correct it")
    assert "NoSuchBucket" in finding.said


def test_databases_answer_or_are_named_without_their_password(settings, postgres, tmp_path, monkeypatch):
    url = f"postgresql+psycopg2://{postgres.user}:s3cret%2F%26%25@127.0.0.1:{postgres.port}/postgres"
    assert "***" in stores.feast_registry(settings.model_copy(update={"feast_registry": url}))
    wrong = settings.model_copy(update={"tuning_storage": url.replace("s3cret", "planted")})
    (finding,) = examine(wrong, [Check("tuning storage", stores.tuning_storage, "start it")])
    assert finding.outcome == "failed"
    assert "planted" not in finding.model_dump_json()
    (tmp_path / "pgpass").write_text(f"*:*:*:*:{postgres.password}\n")
    (tmp_path / "pgpass").chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    address = f"postgresql://{postgres.user}@127.0.0.1:{postgres.port}/postgres"
    assert stores.catalog(settings.model_copy(update={"catalog_uri": address})) == "0 tables"
    assert stores.catalog(settings) == "0 tables"


def test_redis_is_asked_with_its_password(settings, redis_port):
    there = settings.model_copy(update={"redis_connection": f"127.0.0.1:{redis_port},password=s3cret"})
    assert "no limit" in stores.online_store(there)
    wrong = there.model_copy(update={"redis_connection": f"127.0.0.1:{redis_port},password=planted"})
    (finding,) = examine(wrong, [Check("online store", stores.online_store, "start Redis")])
    assert finding.outcome == "failed"
    assert "planted" not in finding.model_dump_json()


def test_remote_compute_is_described(settings, s3, monkeypatch):
    # Moto's server answers for every service at its one address.
    for service in ("EMR_SERVERLESS", "SAGEMAKER", "BATCH"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", s3.endpoint)
    there = settings.model_copy(update={"aws_region": REGION})
    import boto3

    client = boto3.client("emr-serverless", region_name=REGION)
    application = client.create_application(name="spark", releaseLabel="emr-7.9.0", type="SPARK")
    role = "arn:aws:iam::123456789012:role/airloop"
    place = EmrServerless(
        kind="emr_serverless", application_id=application["applicationId"], execution_role=role
    )
    assert "a job starts it" in services.emr_serverless(place)(there)
    client.stop_application(applicationId=place.application_id)
    client.delete_application(applicationId=place.application_id)
    with pytest.raises(Exception, match=r"TERMINATED|ResourceNotFound|does not exist"):
        services.emr_serverless(place)(there)
    image = SageMaker(kind="sagemaker", execution_role=role, image="training:1")
    assert "can be listed" in services.sagemaker(image)(there)
    with pytest.raises(Failure, match="no job queue training"):
        services.batch(Batch(kind="batch", job_queue="training", job_definition="train:1"))(there)


def test_streams_are_asked_for(settings, s3, monkeypatch):
    options = {"endpoint_url": s3.endpoint, "region_name": REGION}
    connection = Connection(id="k", conn_type="aws", login="AKIATEST", password="x", extra=options)
    from airloop.sources.kinesis_connection import kinesis_client

    kinesis_client(connection).create_stream(StreamName="flights", ShardCount=1)
    assert services.kinesis(connection, ("flights",))(settings) == "flights"
    with pytest.raises(Exception, match="ResourceNotFound"):
        services.kinesis(connection, ("flights", "weather"))(settings)
    nobody = Connection(id="b", conn_type="kafka", extra={"bootstrap.servers": f"127.0.0.1:{free_port()}"})
    with pytest.raises(Failure, match=r"127\.0\.0\.1"):
        services.kafka(nobody)(settings)


def test_only_what_the_settings_name_is_asked(settings, monkeypatch):
    def names(given: Settings) -> set[str]:
        return {check.name for check in checks_of(given, all_use_cases())}

    least = names(settings)
    assert not least & {"online store", "tuning storage", "backups", "spark master", "airloop_kafka"}
    assert names(settings.model_copy(update={"redis_connection": "redis:6379"})) - least == {"online store"}
    cluster = settings.model_copy(update={"spark_master": "spark://master:7077"})
    assert names(cluster) - least == {"spark master"}
    batch = Batch(kind="batch", job_queue="q", job_definition="d")
    remote = settings.model_copy(update={"compute": {"spark": Process(), "training": batch}})
    assert names(remote) - least == {"training on batch"}
    monkeypatch.setenv("AIRFLOW_CONN_AIRLOOP_KAFKA", json.dumps({"conn_type": "kafka", "host": "k"}))
    assert names(settings) - least == {"airloop_kafka"}


def test_checks_run_at_once_and_one_that_hangs_holds_nothing_up(settings):
    def slow(_: Settings) -> str:
        time.sleep(0.5)
        return "well"

    def hangs(_: Settings) -> str:
        time.sleep(60)
        return "never"

    def other(_: Settings) -> str:
        raise NotHere("another image's")

    checks = [Check(f"slow {number}", slow, "") for number in range(8)]
    begun = time.monotonic()
    found = examine(settings, [*checks, Check("hangs", hangs, "kick it"), Check("other", other, "")], 2.0)
    assert time.monotonic() - begun < 4
    assert [item.outcome for item in found] == [*["ok"] * 8, "failed", "skipped"]
    assert (found[8].said, found[8].next_step) == ("no answer within 2 s", "kick it")


def test_passwords_are_never_shown():
    for text in ("postgresql://u:hush@h/db", "redis h:1,password=hush,ssl=true", "Token: hush"):
        assert "hush" not in masked(text)
        assert "***" in masked(text)


def test_the_command_says_in_json_what_failed_and_ends_with_one(settings, monkeypatch, capsys):
    closed = free_port()
    down = settings.model_copy(
        update={
            "mlflow_uri": f"http://127.0.0.1:{closed}",
            "model_server_target": f"127.0.0.1:{closed}",
            "gateway_port": closed,
            "airflow_port": closed,
        }
    )
    for name, value in environment_of(down).items():
        monkeypatch.setenv(name, value)
    assert main(["--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["failed"] == ["mlflow", "model server", "gateway", "airflow"]
    assert all(check["next_step"] for check in document["checks"] if check["outcome"] == "failed")
    assert main([]) == 1
    assert "Next: start MLflow" in " ".join(capsys.readouterr().out.split())


def test_wrong_settings_are_the_one_finding_and_name_all(monkeypatch, capsys):
    monkeypatch.setenv("AIRLOOP_COLOUR", "blue")
    monkeypatch.setenv("AIRLOOP_AIRFLOW_PORT", "eighty")
    assert main(["--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["checks"]
    assert finding["name"] == "settings"
    assert "AIRLOOP_COLOUR" in finding["said"]
    assert "AIRLOOP_AIRFLOW_PORT" in finding["said"]


def test_nothing_knows_the_profile_by_name():
    for folder in ("doctor", "backup"):
        for file in (REPOSITORY / "src" / "airloop" / folder).glob("*.py"):
            assert "profile" not in file.read_text("utf-8"), file


def test_the_quick_look_finds_what_is_up_and_what_is_down(settings, postgres, s3, redis_port):
    needs = ("catalog", "feast_registry", "mlflow", "online_store", "warehouse")
    up = settings.model_copy(
        update={
            "catalog_uri": f"postgresql://u@127.0.0.1:{postgres.port}/catalog",
            "feast_registry": f"postgresql+psycopg2://u:hush@127.0.0.1:{postgres.port}/feast",
            "redis_connection": f"127.0.0.1:{redis_port},password=hush",
            "warehouse_uri": f"s3://{s3.bucket}/warehouse",
            "s3_endpoint": s3.endpoint,
        }
    )
    begun = time.monotonic()
    # MLflow itself: `tests/end_to_end`, whose every run begins so.
    assert unreachable(up, [need for need in needs if need != "mlflow"]) == []
    assert time.monotonic() - begun < 1
    closed = free_port()
    down = settings.model_copy(
        update={
            "catalog_uri": f"postgresql://u@127.0.0.1:{closed}/catalog",
            "feast_registry": f"postgresql+psycopg2://u:hush@127.0.0.1:{closed}/feast",
            "mlflow_uri": f"http://127.0.0.1:{closed}",
            "redis_connection": f"127.0.0.1:{closed},password=hush",
            "warehouse_uri": f"s3://{s3.bucket}/warehouse",
            "s3_endpoint": f"http://127.0.0.1:{closed}",
        }
    )
    found = unreachable(down, needs)
    assert [item.name for item in found] == list(needs)
    for item in found:
        assert str(closed) in item.found
        assert "refused" in item.found
        assert item.next_step
        assert "hush" not in item.found
    # What is in files needs nobody.
    assert unreachable(settings, ("catalog", "feast_registry", "online_store", "warehouse")) == []


def test_the_quick_look_is_not_held_up_by_what_takes_a_connection_and_says_nothing(settings):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        port = silent.getsockname()[1]
        hung = settings.model_copy(
            update={"redis_connection": f"127.0.0.1:{port}", "mlflow_uri": f"http://127.0.0.1:{port}"}
        )
        begun = time.monotonic()
        found = unreachable(hung, ("mlflow", "online_store"))
        assert time.monotonic() - begun < 7
    assert [item.name for item in found] == ["mlflow", "online_store"]
