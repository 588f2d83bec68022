"""What stays up: settings, secrets and flags of the containers; their preludes are run by a real shell."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.fernet import Fernet

from airloop.settings import PREFIX, REPOSITORY, Settings, load_settings
from tests.deploy.aws.moto_account import Account

FOLDER = "/dev/shm/airloop"
COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yaml").read_text("utf-8"))
SERVICES = {"api-server", "dag-processor", "gateway", "mlflow", "model-server", "scheduler", "triggerer"}
SECRETIVE = re.compile(r"PASSWORD|SECRET|FERNET|TOKEN|PRIVATE")


@pytest.fixture(scope="session")
def containers(account: Account) -> dict[str, dict[str, Any]]:
    """The container of each task, as ECS has it: every reference is resolved."""
    ecs = account.client("ecs")
    found = {}
    for arn in ecs.list_task_definitions()["taskDefinitionArns"]:
        (container,) = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"][
            "containerDefinitions"
        ]
        found[container["name"]] = container
    return found


def _environment(container: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container.get("environment", [])}


def _secrets(container: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: f"value-of-{item['name']}" for item in container.get("secrets", [])}


def _started(container: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the container's command with its own `exec` replaced by one that shows what the program would
    get."""
    shell, flags, script = container["command"]
    script = script.replace(FOLDER, str(folder)).replace("/state", str(folder / "state"))
    script = re.sub(r"^exec .*$", "exec env", script, flags=re.MULTILINE)
    # Of the task `setup`: needs a database (test_database_setup).
    script = re.sub(r"python - <<'PYTHON'\n.*?\nPYTHON\n", "", script, flags=re.DOTALL)
    environment = {"PATH": os.environ["PATH"], **_environment(container), **_secrets(container)}
    return subprocess.run(
        [shell, flags, script], env=environment, capture_output=True, text=True, check=False, timeout=30
    )


def test_there_is_a_service_for_each_part(account: Account, containers: dict[str, Any]) -> None:
    arns = account.client("ecs").list_services(cluster="airloop-production")["serviceArns"]
    assert {arn.rpartition("/")[2] for arn in arns} == SERVICES
    assert containers.keys() == {*SERVICES, "setup"}


def test_every_airloop_variable_is_a_setting(containers: dict[str, dict[str, Any]]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name, container in containers.items():
        given = {key for key in _environment(container) if key.startswith(PREFIX)}
        assert given <= known, name


@pytest.mark.parametrize("name", ["scheduler", "gateway"])
def test_the_settings_of_a_container_are_those_of_the_profile(
    containers: dict[str, dict[str, Any]], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in [key for key in os.environ if key.startswith(PREFIX)]:
        monkeypatch.delenv(variable)
    for variable, value in _environment(containers[name]).items():
        if variable.startswith(PREFIX):
            monkeypatch.setenv(variable, value)
    (tmp_path / "airloop_redis_connection").write_text("cache:6379,ssl=true,password=x")
    monkeypatch.setenv("AIRLOOP_SECRETS_DIR", str(tmp_path))
    settings = load_settings()
    assert settings.profile == "aws"
    assert settings.catalog_uri == "glue"
    assert settings.redis_connection == "cache:6379,ssl=true,password=x"
    assert {group: place.kind for group, place in settings.compute.items()} == {
        "spark": "emr_serverless",
        "training": "sagemaker",
    }


def test_no_variable_holds_a_secret(containers: dict[str, dict[str, Any]]) -> None:
    for name, container in containers.items():
        for variable, value in _environment(container).items():
            told = SECRETIVE.search(variable) and not variable.endswith(("_CMD", "_FILE"))
            # Names of places, not what is in them.
            assert not told or variable in (
                "AIRLOOP_SECRETS_DIR",
                "AIRLOOP_SECRETS_PREFIX",
                "AIRLOOP_GATEWAY_PRIVATE_KEY",
                "AIRFLOW__SECRETS__BACKEND",
                "AIRFLOW__SECRETS__BACKEND_KWARGS",
            ), (name, variable)
            assert not re.search(r"://[^/@]+:[^/@]+@", value), (name, variable)


@pytest.mark.parametrize("name", sorted({*SERVICES, "setup"}))
def test_a_program_finds_its_secrets_as_files_and_in_no_variable(
    containers: dict[str, dict[str, Any]], name: str, tmp_path: Path
) -> None:
    container = containers[name]
    folder = tmp_path / "airloop"
    (folder / "state").mkdir(parents=True)
    done = _started(container, folder)
    assert done.returncode == 0, done.stderr
    assert "value-of-" not in done.stdout
    written = {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
    assert written
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir() if path.is_file())
    for secret in _secrets(container).values():
        if name != "setup":
            assert any(secret in text for text in written.values()), secret
    for file in re.findall(
        rf"{FOLDER}/([\w.]+)", json.dumps([container["command"], _environment(container)])
    ):
        assert file in written, file


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("AIRFLOW__API__SECRET_KEY_CMD", "value-of-SECRET_AIRFLOW_API"),
        ("AIRFLOW__API_AUTH__JWT_SECRET_CMD", "value-of-SECRET_AIRFLOW_JWT"),
        ("AIRFLOW__CORE__FERNET_KEY_CMD", "value-of-SECRET_AIRFLOW_FERNET="),
    ],
)
def test_airflow_gets_each_secret(
    containers: dict[str, dict[str, Any]], tmp_path: Path, setting: str, expected: str
) -> None:
    """Airflow splits the command as a shell would, and runs it without one."""
    container = containers["api-server"]
    (tmp_path / "state").mkdir()
    assert _started(container, tmp_path).returncode == 0
    command = _environment(container)[setting].replace(FOLDER, str(tmp_path))
    assert subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout == expected


def test_the_simple_login_is_a_document_with_the_password(
    containers: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    assert _started(containers["api-server"], tmp_path).returncode == 0
    assert json.loads((tmp_path / "passwords.json").read_text()) == {"admin": "value-of-SECRET_AIRFLOW_ADMIN"}


def test_the_generated_fernet_key_is_one(account: Account) -> None:
    manager = account.client("secretsmanager")
    text = manager.get_secret_value(SecretId="airloop/production/airflow/fernet")["SecretString"]
    key = Fernet(text + "=")
    assert key.decrypt(key.encrypt(b"secret")) == b"secret"


def test_airflow_is_set_up_as_in_the_compose_file(containers: dict[str, dict[str, Any]]) -> None:
    there = {
        name
        for name in COMPOSE["services"]["airflow-api-server"]["environment"]
        if name.startswith("AIRFLOW__")
    }
    here = {name for name in _environment(containers["api-server"]) if name.startswith("AIRFLOW__")}
    # LocalExecutor and certificates of public authorities here; metrics and traces are not collected.
    other = re.compile(r"AIRFLOW__(METRICS|TRACES|CELERY)__|AIRFLOW__API__SSL_CA_FILE$")
    assert {name for name in there - here if not other.match(name)} == set()
    assert "AIRFLOW__CORE__FERNET_KEY_CMD" in there & here


def test_the_model_servers_flags_are_known(containers: dict[str, dict[str, Any]]) -> None:
    here = set(re.findall(r"--(\w+)[= ]", containers["model-server"]["command"][2]))
    there = {
        flag.split("=")[0].removeprefix("--") for flag in COMPOSE["services"]["model-server-1"]["command"]
    }
    assert here <= there


def test_what_listens_listens_with_tls(account: Account, containers: dict[str, dict[str, Any]]) -> None:
    balancing = account.client("elbv2")
    balancers = {
        item["LoadBalancerName"]: item["LoadBalancerArn"]
        for item in balancing.describe_load_balancers()["LoadBalancers"]
    }
    listeners = [
        listener
        for arn in balancers.values()
        for listener in balancing.describe_listeners(LoadBalancerArn=arn)["Listeners"]
    ]
    assert {(item["Protocol"], item["Port"]) for item in listeners} == {("HTTPS", 443), ("HTTPS", 8500)}
    targets = balancing.describe_target_groups()["TargetGroups"]
    assert len(targets) == 5
    assert {item["Protocol"] for item in targets} == {"HTTPS"}
    assert "--ssl-cert" in containers["api-server"]["command"][2]
    assert "--ssl-certfile" in containers["mlflow"]["command"][2]
    assert _environment(containers["gateway"])["AIRLOOP_GATEWAY_CERTIFICATE"]


def test_no_container_runs_as_root(containers: dict[str, dict[str, Any]]) -> None:
    assert {container["user"] for container in containers.values()} == {"10001:10001"}


def test_every_alarm_names_a_runbook_and_tells_somebody(account: Account) -> None:
    alarms = account.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert len(alarms) == 15
    for alarm in alarms:
        (runbook,) = re.findall(r"Runbook: (docs/runbooks/\w+\.md)$", alarm["AlarmDescription"])
        assert (REPOSITORY / runbook).is_file()
        assert alarm["AlarmActions"] == alarm["OKActions"]
        assert len(alarm["AlarmActions"]) == 1
