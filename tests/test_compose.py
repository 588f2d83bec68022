"""docker-compose.yaml and its Dockerfile: valid, pinned, configurable by the settings, and free of secrets.

What can be run of it without a Docker engine is run: the commands that Airflow reads its secrets with, and
the model server's flags through the embedded server's own parser.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from airloop.settings import PREFIX, REPOSITORY, Settings
from airloop.stack.programs import metrics, ports, programs
from serving.model_server.option_files import PROMETHEUS_PATH, read_batching
from serving.model_server.settings import parse_settings

COMPOSE = REPOSITORY / "docker-compose.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
ONE_SHOT = {name for name, service in SERVICES.items() if service.get("restart") == "no"}
DOCKERFILES = sorted(
    {
        REPOSITORY / service["build"]["context"] / service["build"]["dockerfile"]
        for service in SERVICES.values()
        if "build" in service
    }
)
WATCHING = ("alertmanager", "grafana", "prometheus", "statsd-exporter")
# PostgreSQL's versions have two parts.
EXACT_IMAGE = re.compile(
    r"(postgres:\d+\.\d+|[a-z0-9./-]+:v?\d+\.\d+\.\d+)(-[0-9a-z.-]+)?(@sha256:[0-9a-f]{64})?"
)
PUBLISHED = re.compile(r"127\.0\.0\.1:\$\{AIRLOOP_(?P<setting>[A-Z_]+):-(?P<default>\d+)\}:(?P<inside>\d+)")


def _check_schema(schema: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _environment(service: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = service.get("environment", {})
    return found


def _instructions(path: Path, name: str) -> Iterator[str]:
    text = re.sub(r"\\\n", " ", path.read_text("utf-8"))
    for argument, default in re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE):
        text = text.replace("${" + argument + "}", default)
    for line in text.splitlines():
        if line.startswith(name + " "):
            yield line.removeprefix(name + " ").strip()


def test_the_compose_file_is_valid() -> None:
    done = _check_schema("vendor.compose-spec", COMPOSE)
    assert done.returncode == 0, done.stdout


def test_the_schema_check_refuses_an_unknown_key(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yaml"
    broken.write_text("services: {gateway: {image: a, imagine: b}}", encoding="utf-8")
    done = _check_schema("vendor.compose-spec", broken)
    assert done.returncode != 0
    assert "imagine" in done.stdout


def test_the_workflows_are_valid() -> None:
    workflows = sorted((REPOSITORY / ".github" / "workflows").glob("*.yaml"))
    assert workflows
    for workflow in workflows:
        done = _check_schema("vendor.github-workflows", workflow)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_an_exact_version(name: str) -> None:
    assert EXACT_IMAGE.fullmatch(SERVICES[name]["image"])


def test_our_own_images_bear_the_projects_version() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    built = {service["image"] for service in SERVICES.values() if "build" in service}
    assert {image.partition(":")[2] for image in built} == {project["version"]}


def test_tensorflow_serving_is_as_new_as_the_tensorflow_that_trains() -> None:
    locked = (REPOSITORY / "requirements" / "training.lock").read_text("utf-8")
    trained = re.search(r"^tensorflow==(\d+)\.(\d+)", locked, re.MULTILINE)
    served = re.fullmatch(r"tensorflow/serving:(\d+)\.(\d+)\.\d+", SERVICES["model-server"]["image"])
    assert trained
    assert served
    assert [int(part) for part in served.groups()] >= [int(part) for part in trained.groups()]


def test_each_published_port_is_the_setting_that_the_local_stack_has() -> None:
    published = {}
    for name, service in SERVICES.items():
        for text in [] if name in WATCHING else service.get("ports", []):
            match = PUBLISHED.fullmatch(text)
            assert match, text
            published[match["setting"].lower()] = int(match["default"])
    assert published == ports(Settings())


def test_every_airloop_variable_is_a_setting() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    text = COMPOSE.read_text("utf-8") + "".join(path.read_text("utf-8") for path in DOCKERFILES)
    assert set(re.findall(rf"\b{PREFIX}[A-Z_]+", text)) - known == set()


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "build" in service])
def test_what_is_built_has_a_dockerfile_and_a_lock(name: str) -> None:
    build = SERVICES[name]["build"]
    assert (REPOSITORY / build["context"] / build["dockerfile"]).is_file()
    assert (REPOSITORY / "requirements" / f"{build['args']['GROUP']}.lock").is_file()


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_starts_from_an_exact_version_and_does_not_run_as_root(path: Path) -> None:
    stages = {line.partition(" AS ")[2] for line in _instructions(path, "FROM")}
    bases = {line.partition(" AS ")[0] for line in _instructions(path, "FROM")} - stages
    assert bases
    assert all(EXACT_IMAGE.fullmatch(base) for base in bases)
    users = list(_instructions(path, "USER"))
    assert users
    assert users[-1] not in ("root", "0")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_an_image_copies_is_there_and_not_ignored(path: Path) -> None:
    allowed = [
        line.removeprefix("!")
        for line in (REPOSITORY / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    ]
    copied = [
        source
        for line in _instructions(path, "COPY")
        if "--from=" not in line
        for source in line.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (REPOSITORY / source).exists(), source
        assert source.split("/")[0] in allowed, source


def test_the_model_servers_flags_are_those_of_the_embedded_server() -> None:
    flags = SERVICES["model-server"]["command"]
    mounted = dict(
        volume.split(":")[1::-1] for volume in SERVICES["model-server"]["volumes"] if volume.startswith("./")
    )
    here = [
        f"{name}={REPOSITORY / mounted[value]}" if value in mounted else flag
        for flag in flags
        for name, _, value in (flag.partition("="),)
    ]
    settings = parse_settings(here)
    assert settings.batching == read_batching(REPOSITORY / "serving" / "batching.config")
    assert settings.prometheus_path == PROMETHEUS_PATH
    assert (settings.grpc_port, settings.rest_port) == (8500, 8501)
    # Both the jobs, which write the config with its base path, and the server must see it under one path.
    assert settings.model_config_file is not None
    mounts = [volume.split(":")[:2] for volume in SERVICES["model-server"]["volumes"]]
    assert ["models", str(settings.model_config_file.parent)] in mounts
    for job in ("airflow-scheduler", "airflow-migrate"):
        assert ["models", str(settings.model_config_file.parent)] in [
            volume.split(":")[:2] for volume in SERVICES[job]["volumes"]
        ]
    embedded = next(program for program in programs(Settings()) if program.name == "model-server")
    names = {flag.partition("=")[0] for flag in embedded.command if flag.startswith("--")}
    assert {flag.partition("=")[0] for flag in flags} == names - {"--bind_address"}


@pytest.mark.parametrize("name", WATCHING)
def test_what_watches_cannot_harm_what_it_watches(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert re.fullmatch(r"\d+:\d+", service["user"])
    assert service["user"].split(":")[0] != "0"
    assert service["cap_drop"] == ["ALL"]
    assert service["mem_limit"]
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", text) for text in service.get("ports", []))
    for volume in service["volumes"]:
        if volume.startswith("./"):
            assert (REPOSITORY / volume.split(":")[0]).exists(), volume
            assert volume.endswith(":ro")


def test_airflow_sends_its_metrics_as_the_local_stack_does() -> None:
    expected = {
        f"AIRFLOW__{name}": value
        for name, value in metrics(Settings(statsd_address="statsd-exporter:9125")).items()
    }
    airflow = {name for name in SERVICES if name.startswith("airflow-")}
    assert airflow
    for name in airflow:
        environment = _environment(SERVICES[name])
        assert {key: value for key, value in environment.items() if "__METRICS__" in key} == expected


def test_prometheus_and_alertmanager_find_what_they_name() -> None:
    folder = REPOSITORY / "serving" / "observability"
    prometheus = yaml.safe_load((folder / "prometheus.yml").read_text("utf-8"))
    targets = {
        target
        for configured in (*prometheus["scrape_configs"], *prometheus["alerting"]["alertmanagers"])
        for static in configured["static_configs"]
        for target in static["targets"]
    }
    assert {target.partition(":")[0] for target in targets} - {"localhost"} <= SERVICES.keys()
    named = re.findall(r"/run/secrets/(\w+)", (folder / "alertmanager.yml").read_text("utf-8"))
    assert named == SERVICES["alertmanager"]["secrets"]


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONE_SHOT))
def test_what_stays_up_is_restarted_and_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_it_needs_to_be_ready(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        expected = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
        assert how["condition"] == expected, needed


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_and_volumes_are_declared_and_secrets_come_from_files(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("secrets", [])) <= DOCUMENT["secrets"].keys()
    assert all("file" in secret for secret in DOCUMENT["secrets"].values())
    named = {volume.split(":")[0] for volume in service.get("volumes", []) if volume[0] not in "./"}
    assert named <= DOCUMENT["volumes"].keys()
    secretive = re.compile(r"PASSWORD|SECRET|FERNET|SQL_ALCHEMY_CONN")
    assert [
        key for key in _environment(service) if secretive.search(key) and not key.endswith(("_FILE", "_CMD"))
    ] == []
    mentioned = set(re.findall(r"/run/secrets/([a-z_]+)", str(service)))
    assert mentioned <= set(service.get("secrets", []))


COMMANDS = sorted(
    {
        (name, value)
        for service in SERVICES.values()
        for name, value in _environment(service).items()
        if name.endswith("_CMD")
    }
)


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_airflow_gets_each_secret_without_a_line_break(name: str, command: str, tmp_path: Path) -> None:
    """Airflow splits the command as a shell would, runs it without one, and keeps all of its output."""
    for secret in DOCUMENT["secrets"]:
        (tmp_path / secret).write_text(f"value-of-{secret}\n", encoding="utf-8")
    command = command.replace("$$", "$").replace("/run/secrets", str(tmp_path))
    output = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout
    assert "value-of-" in output
    assert output == output.strip()
    if name.endswith("SQL_ALCHEMY_CONN_CMD"):
        assert output == "postgresql+psycopg2://airloop:value-of-postgres_password@postgres/airflow"
