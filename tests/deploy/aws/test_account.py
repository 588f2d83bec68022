"""The stacks deployed to an account of moto's: what exists, what its clients read, what could not be made
there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import boto3
import psycopg2
import pytest
from airflow.providers.amazon.aws.secrets.secrets_manager import SecretsManagerBackend

from airloop.connections import PSEUDONYM_KEY
from airloop.settings import PREFIX, REPOSITORY, load_settings
from airloop.signing import sign_folder, verify_folder
from serving.gateway.access import Role, read_keys
from serving.model_server.option_files import Tls, read_tls
from tests.deploy.aws.moto_account import Account
from tests.sources.servers import HOST, postgres_server

FOLDER = REPOSITORY / "deploy" / "aws"
NOT_IN_MOTO = {
    # moto 5.2.5 makes these neither by CloudFormation nor, in this form, by their own API.
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::EC2::PlacementGroup",
    "AWS::SNS::TopicPolicy",
}


def test_all_but_three_kinds_of_resource_can_be_made(account: Account, resources: dict[str, Any]) -> None:
    assert set(account.not_made) == NOT_IN_MOTO
    made = sum(account.by_cloudformation.values()) + sum(account.by_api.values())
    assert made == len(resources) - len(NOT_IN_MOTO)
    assert sum(account.by_cloudformation.values()) > 150


def test_the_places_where_jobs_run_are_there(account: Account) -> None:
    (application,) = account.client("emr-serverless").list_applications()["applications"]
    assert (application["name"], application["type"].upper()) == ("airloop-production", "SPARK")
    batch = account.client("batch")
    (environment,) = batch.describe_compute_environments()["computeEnvironments"]
    assert environment["computeResources"]["type"] == "EC2"
    assert [item["jobQueueName"] for item in batch.describe_job_queues()["jobQueues"]] == [
        "airloop-production"
    ]
    (definition,) = batch.describe_job_definitions()["jobDefinitions"]
    assert (definition["jobDefinitionName"], definition["type"]) == (
        "airloop-production-training",
        "multinode",
    )
    assert account.client("kinesis").list_streams()["StreamNames"] == ["airloop-production"]


def test_a_training_on_several_hosts_has_gpus_and_a_main_node(resources: dict[str, Any]) -> None:
    (given,) = [
        item["Properties"] for item in resources.values() if item["Type"] == "AWS::Batch::JobDefinition"
    ]
    nodes = given["NodeProperties"]
    assert (nodes["MainNode"], nodes["NumNodes"]) == (0, 2)
    (group,) = nodes["NodeRangeProperties"]
    assert group["TargetNodes"] == "0:"
    wanted = {item["Type"]: item["Value"] for item in group["Container"]["ResourceRequirements"]}
    assert wanted == {"GPU": "1", "VCPU": "4", "MEMORY": "14336"}
    # Airflow tries again, from the checkpoint.
    assert given["RetryStrategy"] == {"Attempts": 1}


def test_the_catalog_has_every_namespace_of_the_code(account: Account) -> None:
    names = {item["Name"] for item in account.client("glue").get_databases()["DatabaseList"]}
    sources = "".join(
        path.read_text("utf-8")
        for folder in ("src", "spark_jobs", "serving")
        for path in (REPOSITORY / folder).rglob("*.py")
    )
    assert {
        name
        for name in ("raw", "clean", "features", "labels", "training", "serving", "monitoring")
        if f'"{name}.' in sources
    } == names


def test_airflows_secrets_backend_reads_the_connections(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": account.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    ecs = account.client("ecs")
    task = ecs.describe_task_definition(taskDefinition="airloop-production-scheduler")["taskDefinition"]
    given = {item["name"]: item["value"] for item in task["containerDefinitions"][0]["environment"]}
    assert given["AIRFLOW__SECRETS__BACKEND"].endswith(f".{SecretsManagerBackend.__name__}")
    backend = SecretsManagerBackend(**json.loads(given["AIRFLOW__SECRETS__BACKEND_KWARGS"]))
    text = backend.get_conn_value("aws_default")
    assert text is not None
    connection = json.loads(text)
    assert (connection["conn_type"], connection["extra"]) == ("aws", {"region_name": "us-east-1"})
    key = backend.get_conn_value(PSEUDONYM_KEY)
    assert key is not None
    assert len(json.loads(key)["password"]) == 43
    assert backend.get_conn_value("none_such") is None


def test_the_outputs_become_settings_that_are_accepted(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = {
        stack["StackName"]: {item["OutputKey"]: item["OutputValue"] for item in stack.get("Outputs", [])}
        for stack in account.client("cloudformation").describe_stacks()["Stacks"]
    }
    (tmp_path / "outputs.json").write_text(json.dumps(outputs))
    done = subprocess.run(
        [sys.executable, str(FOLDER / "settings_from_outputs.py"), str(tmp_path / "outputs.json")],
        capture_output=True,
        text=True,
        check=True,
    )
    file = tmp_path / "aws.toml"
    file.write_text(done.stdout)
    assert "password" not in done.stdout
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIRLOOP_PROFILE", "aws")
    monkeypatch.setenv("AIRLOOP_SETTINGS_FILE", str(file))
    settings = load_settings()
    assert settings.profile == "aws"
    assert settings.warehouse_location == "s3://airloop-production-warehouse-123456789012-us-east-1/warehouse"
    assert settings.compute["spark"].kind == "emr_serverless"
    # What the containers get as variables says the same.
    task = account.client("ecs").describe_task_definition(taskDefinition="airloop-production-gateway")
    given = task["taskDefinition"]["containerDefinitions"][0]["environment"]
    variables = {item["name"]: item["value"] for item in given}
    for name, value in tomllib.loads(done.stdout).items():
        if name not in ("redis_connection", "compute"):
            assert variables[PREFIX + name.upper()] == str(value), name


def test_outputs_without_settings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "outputs.json").write_text('{"airloop-production-base": {"Other": "x"}}')
    command = [sys.executable, str(FOLDER / "settings_from_outputs.py"), str(tmp_path / "outputs.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "airloop-production-base" in done.stderr


def test_the_secrets_that_people_need_are_made_once(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import put_secrets

    manager = account.client("secretsmanager")
    monkeypatch.setattr(boto3, "client", lambda *_, **__: manager)

    def read(name: str) -> str:
        text: str = manager.get_secret_value(SecretId=f"airloop/production/{name}")["SecretString"]
        return text

    assert put_secrets.main(["--environment", "production"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "keys.json").write_text(read("gateway-keys"))
    assert {role for key in read_keys(tmp_path / "keys.json") for role in key.roles} == {
        Role.PREDICT,
        Role.OPERATE,
    }
    assert printed.count("gateway key of") == 2
    tls = json.loads(read("tls"))
    (tmp_path / "ssl.config").write_text(tls["ssl_config"])
    assert read_tls(tmp_path / "ssl.config") == Tls(tls["private_key"].encode(), tls["certificate"].encode())
    for name in ("signing-key", "verification-key"):
        (tmp_path / name).write_text(read(name))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("1")
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIRLOOP_SIGNING_KEY", str(tmp_path / "signing-key"))
    monkeypatch.setenv("AIRLOOP_VERIFICATION_KEY", str(tmp_path / "verification-key"))
    settings = load_settings()
    sign_folder(settings, tmp_path / "model", tmp_path / "signature")
    verify_folder(settings, tmp_path / "model", tmp_path / "signature")
    before = {name: read(name) for name in ("tls", "signing-key", "gateway-keys")}
    assert put_secrets.main(["--environment", "production", "--replace", "tls"]) == 0
    after = {name: read(name) for name in before}
    assert [name for name in before if before[name] != after[name]] == ["tls"]


def test_the_databases_are_set_up_by_the_task_itself() -> None:
    """With the script as the container gets it, against a real PostgreSQL; twice, with a changed password."""
    script = (FOLDER / "database_setup.py").read_text("utf-8")

    def run(server: Any, password: str) -> None:
        subprocess.run(
            [sys.executable, "-"],
            input=script,
            text=True,
            check=True,
            env={
                **os.environ,
                "DATABASE_HOST": HOST,
                "DATABASE_PORT": str(server.port),
                "DATABASE_USER": server.user,
                "DATABASE_NAMES": "airflow feast",
                "SECRET_DATABASE_MASTER": server.password,
                "SECRET_DATABASE_AIRFLOW": password,
                "SECRET_DATABASE_FEAST": "feast's own",
                "PGSSLMODE": "disable",
            },
        )

    with postgres_server() as server:
        run(server, "first")
        run(server, "second")
        place = {"host": HOST, "port": server.port}
        psycopg2.connect(user="airflow", password="second", dbname="airflow", **place).close()
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(user="airflow", password="first", dbname="airflow", **place)
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            psycopg2.connect(user="feast", password="feast's own", dbname="airflow", **place)
