"""Backups of a deployment in PostgreSQL and S3, to S3: real PostgreSQL, and an S3 server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_plus

import psycopg2
import pytest

from airloop.backup import BackupError
from airloop.backup.create import create
from airloop.backup.manifest import backup_names, read_manifest
from airloop.backup.place import open_place
from airloop.backup.restore import restore
from airloop.backup.verify import verify
from airloop.lakehouse.catalog import open_catalog
from airloop.settings import Settings
from tests.backup.conftest import AIRFLOW_REVISION, facts_of, make_deployment, rows
from tests.sources.servers import PostgresServer, S3Server, postgres_server, s3_server

KEY = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd"
DATABASES = ("airflow", "mlflow", "feast", "catalog")


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        # MLflow takes many seconds to make its tables; later ones are made from these.
        _in(server, "postgres", "CREATE DATABASE seed")
        password = quote_plus(server.password)
        seed = f"postgresql+psycopg2://{server.user}:{password}@127.0.0.1:{server.port}/seed"
        subprocess.run(
            [sys.executable, "-c", f"from mlflow import MlflowClient as C; C({seed!r}).search_experiments()"],
            check=True,
            capture_output=True,
        )
        yield server


@pytest.fixture(scope="module")
def s3_service() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_service: S3Server) -> S3Server:
    """With nothing in its bucket."""
    empty(s3_service, "")
    return s3_service


def empty(s3: S3Server, prefix: str) -> None:
    client = s3.client()
    for item in client.list_objects_v2(Bucket=s3.bucket, Prefix=prefix).get("Contents", ()):
        client.delete_object(Bucket=s3.bucket, Key=item["Key"])


def make_databases(postgres: PostgresServer, seeded: tuple[str, ...] = ()) -> None:
    """New and empty ones, whatever was there; `seeded` ones have MLflow's tables."""
    connection = psycopg2.connect(
        host="127.0.0.1",
        port=postgres.port,
        user=postgres.user,
        password=postgres.password,
        dbname="postgres",
    )
    connection.autocommit = True
    with connection.cursor() as cursor:
        for name in DATABASES:
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            cursor.execute(f"CREATE DATABASE {name}" + (" TEMPLATE seed" if name in seeded else ""))
    connection.close()


@pytest.fixture
def settings(
    postgres: PostgresServer, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    make_databases(postgres, seeded=("mlflow",))
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"127.0.0.1:{postgres.port}:*:{postgres.user}:{postgres.password}\n")
    passwords.chmod(0o600)
    for name, value in {
        "PGPASSFILE": str(passwords),
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "MLFLOW_S3_ENDPOINT_URL": s3.endpoint,
        "AWS_DEFAULT_REGION": "eu-central-1",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }.items():
        monkeypatch.setenv(name, value)
    address = f"{postgres.user}@127.0.0.1:{postgres.port}"
    secret = f"{postgres.user}:{quote_plus(postgres.password)}@127.0.0.1:{postgres.port}"
    return Settings(
        state_dir=tmp_path / "state",
        warehouse_uri=f"s3://{s3.bucket}/warehouse",
        catalog_uri=f"postgresql://{address}/catalog",
        s3_endpoint=s3.endpoint,
        aws_region="eu-central-1",
        kms_key=KEY,
        airflow_database=f"postgresql://{address}/airflow",
        mlflow_database=f"postgresql+psycopg2://{address}/mlflow",
        mlflow_artifacts=f"s3://{s3.bucket}/mlflow",
        feast_registry=f"postgresql+psycopg2://{secret}/feast",
        backup_uri=f"s3://{s3.bucket}/backups-of/airloop",
    )


def _in(postgres: PostgresServer, database: str, *statements: str) -> list[tuple]:
    found = []
    connection = psycopg2.connect(
        host="127.0.0.1", port=postgres.port, user=postgres.user, password=postgres.password, dbname=database
    )
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
            if cursor.description:
                found += cursor.fetchall()
    connection.close()
    return found


@pytest.fixture
def deployment(settings: Settings, postgres: PostgresServer) -> Settings:
    _in(
        postgres,
        "airflow",
        "CREATE TABLE alembic_version (version_num TEXT)",
        f"INSERT INTO alembic_version VALUES ('{AIRFLOW_REVISION}')",
        "CREATE TABLE dag_run (id SERIAL PRIMARY KEY, run_id TEXT)",
        "INSERT INTO dag_run (run_id) SELECT 'run ' || n FROM generate_series(1, 500) n",
    )
    _in(postgres, "feast", "CREATE TABLE feature_views (name TEXT)", "INSERT INTO feature_views VALUES ('v')")
    make_deployment(settings, registry=None)
    return settings


def lose(settings: Settings, postgres: PostgresServer, s3: S3Server, *prefixes: str) -> None:
    make_databases(postgres)
    settings.state_dir.rename(settings.state_dir.with_name("gone"))
    for prefix in prefixes:
        empty(s3, prefix)


def test_databases_tables_and_artifacts_come_back_from_s3(deployment, postgres, s3):
    before = facts_of(deployment)
    place = open_place(deployment, str(deployment.backup_uri))
    bare = create(deployment, place, copied="all")
    assert bare.secrets == "left out"
    manifest = read_manifest(place, bare.name)
    verify(place, manifest)
    assert manifest.databases["airflow"].revision == AIRFLOW_REVISION
    with pytest.raises(BackupError, match="found airflow's database, mlflow's database, feast's database"):
        restore(deployment, place, manifest)
    secrets = [(name, (deployment.state_dir / name).read_bytes()) for name in ("erasure/key",)]
    lose(deployment, postgres, s3, "warehouse/", "mlflow/")
    for name, content in secrets:
        path = deployment.state_dir / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    done = restore(deployment, place, manifest)
    after = facts_of(deployment)
    assert after["tables"] == before["tables"]
    assert after["versions"] == before["versions"]
    assert len(after["versions"]) == 1
    assert _in(postgres, "airflow", "SELECT count(*) FROM dag_run") == [(500,)]
    assert _in(postgres, "feast", "SELECT name FROM feature_views") == [("v",)]
    assert done.tables_to_rebuild == ()
    # Every object asks for the deployment's key.
    client = s3.client()
    for prefix in ("backups-of/airloop/objects/", "backups-of/airloop/backups/", "mlflow/"):
        found = client.list_objects_v2(Bucket=s3.bucket, Prefix=prefix)["Contents"]
        assert found
        for item in found if prefix != "mlflow/" else found[-1:]:
            head = client.head_object(Bucket=s3.bucket, Key=item["Key"])
            assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", KEY)


@pytest.mark.parametrize("bucket", ["kept", "lost"])
def test_of_tables_that_were_not_copied_those_come_back_that_the_bucket_has(deployment, postgres, s3, bucket):
    before = facts_of(deployment)["tables"]
    place = open_place(deployment, str(deployment.backup_uri))
    manifest = read_manifest(place, create(deployment, place, copied="kept").name)
    assert not any("warehouse/clean" in part.path for part in manifest.parts)
    key = (deployment.state_dir / "erasure" / "key").read_bytes()
    lose(deployment, postgres, s3, *(["warehouse/"] if bucket == "lost" else []))
    (deployment.state_dir / "erasure").mkdir(parents=True)
    (deployment.state_dir / "erasure" / "key").write_bytes(key)
    done = restore(deployment, place, manifest)
    assert done.tables_to_rebuild == (("clean.flights",) if bucket == "lost" else ())
    expected = {name: versions for name, versions in before.items() if name not in done.tables_to_rebuild}
    assert facts_of(deployment)["tables"] == expected
    assert len(list(open_catalog(deployment).list_namespaces())) == 3


def test_a_database_that_does_not_answer_is_named_without_its_password(deployment, postgres):
    place = open_place(deployment, str(deployment.backup_uri))
    unanswered = deployment.model_copy(
        update={"airflow_database": "postgresql://airloop:hush@127.0.0.1:1/airflow"}
    )
    with pytest.raises(BackupError, match="read and write airflow's database") as caught:
        create(unanswered, place, copied="none")
    assert "hush" not in str(caught.value)
    assert "PGPASSFILE" in str(caught.value)
    assert backup_names(place) == []
    assert "hush" not in os.environ.values()


def test_a_glue_catalog_comes_back_too(s3, tmp_path, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL_GLUE": s3.endpoint,
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings(
        state_dir=tmp_path / "state",
        warehouse_uri=f"s3://{s3.bucket}/warehouse",
        catalog_uri="glue",
        s3_endpoint=s3.endpoint,
        aws_region="eu-central-1",
    )
    catalog = open_catalog(settings)
    catalog.create_namespace("raw")
    catalog.create_table("raw.flights", schema=rows(0, 1).schema).append(rows(0, 10))
    place = open_place(settings, str(tmp_path / "place"))
    made = create(settings, place, copied="all")
    catalog.drop_table("raw.flights")
    catalog.drop_namespace("raw")
    empty(s3, "warehouse/")
    assert restore(settings, place, read_manifest(place, made.name)).tables == 1
    assert catalog.load_table("raw.flights").scan().to_arrow().num_rows == 10
