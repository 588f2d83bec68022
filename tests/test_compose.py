"""docker-compose.yaml, its Dockerfile and its configuration: valid, pinned, locked down, and of one mind with
the settings, the locks, the queues and the secrets that scripts/make_secrets.sh makes.

What can be run of it without a Docker engine is run: that script, what PostgreSQL lets in, the commands that
Airflow reads its secrets with, and the model server's flags through the embedded server's own parser. The
whole of it runs in `make test-cluster`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import psycopg2
import pytest
import yaml
from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from packaging.requirements import Requirement

from airloop.compute import Group
from airloop.settings import PREFIX, REPOSITORY, Settings, load_settings
from airloop.stack.programs import metrics, ports, programs
from serving.model_server.option_files import PROMETHEUS_PATH, read_batching, read_tls
from serving.model_server.settings import parse_settings
from tests.sources.servers import HOST, postgres_server
from tests.streams.kafka_broker import broker_class_path

COMPOSE = REPOSITORY / "docker-compose.yaml"
DEPLOY = REPOSITORY / "deploy" / "compose"
DOCKERFILE = REPOSITORY / "serving" / "images" / "Dockerfile"
ENTRYPOINT = DOCKERFILE.with_name("entrypoint.sh")
DOCUMENT: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
ONE_SHOT = {name for name, service in SERVICES.items() if service.get("restart") == "no"}
OURS = {name for name, service in SERVICES.items() if "build" in service}
AIRFLOW = {name for name in OURS if "AIRFLOW_HOME" in SERVICES[name]["environment"]}
WORKERS = {name for name, service in SERVICES.items() if "celery" in service.get("command", ())}
WATCHING = {"alertmanager", "grafana", "otel-collector", "prometheus", "statsd-exporter"}
WITHOUT_SETTINGS = {
    "mlflow": "MLflow's own server",
    "spark-master": "Spark's own",
    "spark-worker-1": "Spark's own; jobs get settings with their tasks",
    "spark-worker-2": "Spark's own; jobs get settings with their tasks",
}
"""Services of ours that load no settings, and why."""
WITHOUT_HEALTH_CHECK = {"otel-collector": "its image has no program but the collector, which checks nothing"}
"""Services that stay up and that nothing asks for health from within, and why."""
SECRETS_FOR_PEOPLE = {
    "authority_key": "signs certificates, and is in no container",
    "authority.srl": "openssl's count of certificates",
    "model_server_tls": "model_server_ssl, before it is a text protobuf",
    "spark_secret": "in spark_defaults and airloop_spark_conf",
}
"""What scripts/make_secrets.sh makes and no service mounts, and why."""
# PostgreSQL's versions have two parts.
EXACT_IMAGE = re.compile(
    r"(postgres:\d+\.\d+|[a-z0-9./-]+:v?\d+\.\d+\.\d+)(-[0-9a-z.-]+)?(@sha256:[0-9a-f]{64})?"
)
PUBLISHED = re.compile(r"127\.0\.0\.1:\$\{AIRLOOP_(?P<setting>[A-Z_]+):-(?P<default>\d+)\}:(?P<inside>\d+)")
NAMED_SECRET = re.compile(r"/run/secrets/([a-z0-9_]+)")
PIN = re.compile(r"^([A-Za-z0-9._-]+(?:\[[^\]]*\])?==[^\\\n]+)", re.MULTILINE)


def _check_schema(schema: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _environment(service: dict[str, Any]) -> dict[str, str]:
    """What a container is given where no variable of the file is set."""
    given = service.get("environment", {})
    return {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)).replace("$$", "$")
        for name, value in given.items()
    }


def _files(service: dict[str, Any]) -> dict[str, Path]:
    """Files and folders of the repository that it mounts, by where."""
    mounts = (volume.split(":") for volume in service.get("volumes", []) if volume.startswith("./"))
    return {inside: REPOSITORY / outside for outside, inside, *_ in mounts}


def _volumes(service: dict[str, Any]) -> dict[str, str]:
    """Named volumes that it mounts, by where."""
    mounts = (volume.split(":") for volume in service.get("volumes", []) if not volume.startswith("./"))
    return {inside: name for name, inside, *_ in mounts}


def _scripts() -> Iterator[tuple[str, str]]:
    """Service and text of each shell script that the file has."""
    for name, service in SERVICES.items():
        command, test = service.get("command", []), service.get("healthcheck", {}).get("test", [])
        if "-ec" in [*service.get("entrypoint", []), *command]:
            yield name, command[-1].replace("$$", "$")
        if test[:1] == ["CMD-SHELL"]:
            yield f"{name}-health", test[1].replace("$$", "$")


def _instructions(name: str) -> Iterator[str]:
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text("utf-8"))
    for argument, default in re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE):
        text = text.replace("${" + argument + "}", default)
    for line in text.splitlines():
        if line.startswith(name + " "):
            yield line.removeprefix(name + " ").strip()


def _groups(name: str) -> list[str]:
    groups: str = SERVICES[name]["build"]["args"]["GROUPS"]
    return groups.split()


def _pins(group: str) -> Iterator[tuple[str, str]]:
    """Package and version of each pin of a lock, in an image."""
    for text in PIN.findall((REPOSITORY / "requirements" / f"{group}.lock").read_text("utf-8")):
        requirement = Requirement(text)
        here = {"sys_platform": "linux", "platform_system": "Linux", "python_full_version": "3.11.15"}
        if requirement.marker is None or requirement.marker.evaluate({**here, "python_version": "3.11"}):
            yield requirement.name, str(requirement.specifier)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make secrets` makes."""
    folder = tmp_path_factory.mktemp("secrets")
    _make_secrets(folder)
    return folder


def _make_secrets(folder: Path) -> None:
    subprocess.run(
        ["bash", str(REPOSITORY / "scripts" / "make_secrets.sh"), str(folder)], check=True, timeout=120
    )


# The file


def test_the_compose_files_are_valid() -> None:
    done = _check_schema("vendor.compose-spec", COMPOSE, DEPLOY / "gpu.yaml")
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
    done = _check_schema("vendor.github-workflows", *workflows)
    assert done.returncode == 0, done.stdout


def test_every_part_of_the_platform_is_there() -> None:
    assert sorted(WORKERS) == ["worker-data", "worker-model"]
    for one, other in (("model-server-1", "model-server-2"), ("gateway-1", "gateway-2")):
        assert SERVICES[one] == SERVICES[other]
    for number in (1, 2):
        assert f"spark-{number}:/spark" in SERVICES[f"spark-worker-{number}"]["volumes"], "disk of its own"
    master = SERVICES["spark-master"]
    assert "recoveryMode=FILESYSTEM" in _environment(master)["SPARK_MASTER_OPTS"], (
        "it forgets its applications"
    )
    assert "spark-master:/spark" in master["volumes"], "where it writes them down"
    one, other = ({**SERVICES[f"spark-worker-{number}"], "volumes": None} for number in (1, 2))
    assert one == other
    commands = {SERVICES[name]["command"][1] for name in AIRFLOW - ONE_SHOT}
    assert commands == {"api-server", "scheduler", "dag-processor", "triggerer", "celery"}
    for name in AIRFLOW:
        assert _environment(SERVICES[name])["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"


@pytest.mark.parametrize(("name", "script"), _scripts(), ids=[name for name, _ in _scripts()])
def test_scripts_in_the_file_are_clean(name: str, script: str) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run(
        [shellcheck, "--shell=sh", "-"], input=script, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


# Images


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_an_exact_version(name: str) -> None:
    assert EXACT_IMAGE.fullmatch(SERVICES[name]["image"])


def test_our_own_images_bear_the_projects_version_and_one_set_of_groups_each() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    gpu = yaml.safe_load((DEPLOY / "gpu.yaml").read_text("utf-8"))["services"]
    built = {SERVICES[name]["image"] for name in OURS} | {service["image"] for service in gpu.values()}
    assert {image.partition(":")[2] for image in built} == {project["version"]}
    groups: dict[str, set[str]] = {}
    for name in OURS:
        assert SERVICES[name]["build"]["dockerfile"] == str(DOCKERFILE.relative_to(REPOSITORY))
        groups.setdefault(SERVICES[name]["image"], set()).add(" ".join(_groups(name)))
    assert all(len(found) == 1 for found in groups.values())
    assert len({min(found) for found in groups.values()}) == len(groups)


def test_tensorflow_serving_is_as_new_as_the_tensorflow_that_trains() -> None:
    trained = re.fullmatch(r"==(\d+)\.(\d+)\.\d+", dict(_pins("training"))["tensorflow"])
    served = re.fullmatch(r"tensorflow/serving:(\d+)\.(\d+)\.\d+", SERVICES["model-server-1"]["image"])
    assert trained
    assert served
    assert [int(part) for part in served.groups()] >= [int(part) for part in trained.groups()]


@pytest.mark.parametrize(
    "groups",
    sorted(
        {" ".join(_groups(name)) for name in OURS} | {"airflow training-gpu serving", "airflow kubernetes"}
    ),
)
def test_the_locks_of_an_image_agree(groups: str) -> None:
    versions: dict[str, set[str]] = {}
    for group in groups.split():
        for package, version in _pins(group):
            versions.setdefault(package, set()).add(version)
    assert len(versions) > 50
    assert {package: found for package, found in versions.items() if len(found) > 1} == {}


def test_an_image_starts_from_exact_versions_and_does_not_run_as_root() -> None:
    stages = {line.partition(" AS ")[2] for line in _instructions("FROM")}
    bases = {line.partition(" AS ")[0] for line in _instructions("FROM")} - stages
    assert len(bases) == 2
    assert all(EXACT_IMAGE.fullmatch(base) for base in bases)
    *_, user = _instructions("USER")
    assert user == "10001:10001"


def test_what_dumps_a_database_is_of_the_servers_version() -> None:
    """A pg_dump refuses a server that is newer than itself."""
    bases = {line.partition(" AS ")[2]: line.partition(" AS ")[0] for line in _instructions("FROM")}
    assert bases["postgresql"] == SERVICES["postgres"]["image"]


def test_health_checks_too_find_the_password_of_the_database() -> None:
    """They run beside the entrypoint, not below it: what it exports they do not have."""
    (copied,) = re.findall(r"cp /run/secrets/pgpass (\S+)", ENTRYPOINT.read_text("utf-8"))
    (environment,) = _instructions("ENV")
    assert dict(part.split("=", 1) for part in environment.split())["PGPASSFILE"] == copied


def test_what_an_image_copies_is_there_and_not_ignored() -> None:
    allowed = [
        line.removeprefix("!")
        for line in (REPOSITORY / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    ]
    copied = [
        source for line in _instructions("COPY") if "--from=" not in line for source in line.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (REPOSITORY / source).exists(), source
        assert source.split("/")[0] in allowed, source


# Queues


def _default_queue() -> str:
    """Airflow's own default, which nothing here changes."""
    assert not [key for name in AIRFLOW for key in _environment(SERVICES[name]) if "DEFAULT_QUEUE" in key]
    found = find_spec("airflow")
    assert found is not None
    assert found.submodule_search_locations
    file = Path(found.submodule_search_locations[0], "config_templates", "config.yml")
    queue: str = yaml.safe_load(file.read_text("utf-8"))["operators"]["options"]["default_queue"]["default"]
    return queue


def _queues(name: str) -> set[str]:
    command: list[str] = SERVICES[name]["command"]
    return set(command[command.index("--queues") + 1].split(","))


def test_some_worker_listens_to_each_queue_and_has_its_packages() -> None:
    default, groups = _default_queue(), set(get_args(Group))
    assert set().union(*(_queues(name) for name in WORKERS)) == {default, *groups}
    for name in WORKERS:
        assert set(_groups(name)) == {"airflow"} | (_queues(name) - {default})
    gpu = yaml.safe_load((DEPLOY / "gpu.yaml").read_text("utf-8"))["services"]["worker-model"]
    assert gpu["build"]["args"]["GROUPS"].replace("-gpu", "").split() == _groups("worker-model")


def test_executors_reach_the_worker_that_runs_drivers() -> None:
    profile = tomllib.loads((REPOSITORY / "deploy" / "profiles" / "compose.toml").read_text("utf-8"))
    (driver,) = (name for name in WORKERS if "spark" in _queues(name))
    assert SERVICES[driver]["hostname"] == driver == profile["spark_driver_host"]
    assert (
        urlsplit(profile["spark_master"]).hostname == SERVICES["spark-master"]["hostname"] == "spark-master"
    )
    assert "spark://spark-master:7077" in SERVICES["spark-worker-1"]["command"]
    for name in WORKERS:
        assert "celery@$$(hostname)" in SERVICES[name]["healthcheck"]["test"][1]


# Lock-down


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_do_no_more_than_its_work(name: str) -> None:
    service = SERVICES[name]
    *_, dockerfiles = _instructions("USER")
    user = service.get("user", dockerfiles if name in OURS else "none")
    assert re.fullmatch(r"[1-9]\d*:\d+", user), user
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert not service.get("cap_add")
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["cpus"] > 0
    assert service["init"] is True
    for inside, path in _files(service).items():
        assert path.exists(), path
        assert f"./{path.relative_to(REPOSITORY)}:{inside}:ro" in service["volumes"]


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONE_SHOT))
def test_what_stays_up_is_restarted_and_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    check = SERVICES[name]["healthcheck"]
    if name in WITHOUT_HEALTH_CHECK:
        assert check == {"disable": True}
    else:
        assert check["test"][0] in ("CMD", "CMD-SHELL")
        assert check.keys() >= {"interval", "timeout", "retries", "start_period"}


def test_only_the_set_up_of_airflow_ends() -> None:
    assert {"airflow-migrate"} == ONE_SHOT


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_it_needs_to_be_ready(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        assert needed not in WITHOUT_HEALTH_CHECK
        expected = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
        assert how["condition"] == expected, needed


def test_nothing_is_published_but_on_loopback_and_where_the_local_stack_is() -> None:
    published, watched = {}, {}
    for name, service in SERVICES.items():
        for text in service.get("ports", []):
            if name in WATCHING:
                match = re.fullmatch(r"127\.0\.0\.1:(\d+):\1", text)
                assert match, text
                watched[name] = int(match[1])
            else:
                match = PUBLISHED.fullmatch(text)
                assert match, text
                published[match["setting"].lower()] = int(match["default"])
    inside = ("model_server_grpc_port", "model_server_rest_port")
    assert published == {name: port for name, port in ports(Settings()).items() if name not in inside}
    assert watched == {"alertmanager": 9093, "grafana": 3000, "prometheus": 9090}


# Settings


def test_every_airloop_variable_is_a_setting() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    text = COMPOSE.read_text("utf-8") + DOCKERFILE.read_text("utf-8")
    assert set(re.findall(rf"\b{PREFIX}[A-Z_]+", text)) - known == set()


def _loaded(name: str, secrets: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a service, with the secrets that it mounts and no others."""
    for secret in SERVICES[name]["secrets"]:
        (folder / secret).symlink_to(secrets / secret)
    for variable in [key for key in os.environ if key.startswith(PREFIX)]:
        monkeypatch.delenv(variable)
    for variable, value in _environment(SERVICES[name]).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv(f"{PREFIX}SECRETS_DIR", str(folder))
    return load_settings()


@pytest.mark.parametrize("name", sorted(OURS - WITHOUT_SETTINGS.keys()))
def test_a_service_of_ours_has_settings_and_the_secrets_that_they_name(
    name: str, secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _loaded(name, secrets, tmp_path, monkeypatch)
    assert settings.profile == "compose"
    assert str(settings.state_dir) in _volumes(SERVICES[name])
    password = (secrets / "redis_password").read_text("utf-8")
    assert settings.redis_connection is not None
    assert f"password={password}" in settings.redis_connection
    named = set(NAMED_SECRET.findall(settings.model_dump_json(exclude={"secrets_dir"})))
    assert named >= {"authority"}
    assert named <= set(SERVICES[name]["secrets"])


def test_settings_name_services_by_what_they_are_called() -> None:
    profile = tomllib.loads((REPOSITORY / "deploy" / "profiles" / "compose.toml").read_text("utf-8"))
    aliases = {alias for name in SERVICES for alias in _names(name)}
    hosts = set()
    for key in (
        "catalog_uri",
        "feast_registry",
        "tuning_storage",
        "mlflow_uri",
        "s3_endpoint",
        "spark_master",
    ):
        hosts.add(urlsplit(profile[key]).hostname)
    hosts |= {urlsplit(profile[key]).hostname for key in ("airflow_database", "mlflow_database")}
    hosts.add(profile["statsd_address"].partition(":")[0])
    hosts.add(profile["model_server_target"].removeprefix("dns:///").partition(":")[0])
    assert hosts == {"postgres", "mlflow", "s3", "spark-master", "statsd-exporter", "model-server"}
    assert hosts <= aliases
    databases = {
        urlsplit(profile[key]).path[1:]
        for key in profile
        if profile[key].__class__ is str and profile[key].startswith("postgresql")
    }
    made = set(re.findall(r"CREATE DATABASE (\w+);", (DEPLOY / "postgres.sql").read_text("utf-8")))
    assert databases == made | {SERVICES["postgres"]["environment"]["POSTGRES_DB"]}
    # The MLflow server itself, and where its buckets are.
    assert (
        f"--backend-store-uri={profile['mlflow_database'].replace(':', '+psycopg2:', 1)}"
        in SERVICES["mlflow"]["command"]
    )
    assert f"--artifacts-destination={profile['mlflow_artifacts']}" in SERVICES["mlflow"]["command"]
    for uri in (profile["warehouse_uri"], profile["mlflow_artifacts"]):
        assert f"/data/{urlsplit(uri).hostname}" in SERVICES["s3"]["command"][0]


def test_airflow_sends_its_metrics_as_the_local_stack_does() -> None:
    expected = {
        f"AIRFLOW__{name}": value
        for name, value in metrics(Settings(statsd_address="statsd-exporter:9125")).items()
    }
    assert len(AIRFLOW) == 7
    for name in AIRFLOW:
        environment = _environment(SERVICES[name])
        assert {key: value for key, value in environment.items() if "__METRICS__" in key} == expected


# Secrets


def test_every_secret_is_a_file_that_the_script_makes(secrets: Path) -> None:
    declared: dict[str, dict[str, str]] = DOCUMENT["secrets"]
    assert declared == {name: {"file": f".airloop/secrets/{name}"} for name in declared}
    made = {path.name for path in secrets.iterdir()}
    assert made == declared.keys() | SECRETS_FOR_PEOPLE.keys()
    mounted = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert mounted == declared.keys()
    assert all((secrets / name).stat().st_size for name in made)


def test_only_who_owns_the_folder_reads_secrets_and_nobody_else_the_authoritys_key(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert stat.S_IMODE((secrets / "authority_key").stat().st_mode) == 0o600
    # Each container has another user.
    assert {stat.S_IMODE((secrets / name).stat().st_mode) for name in DOCUMENT["secrets"]} == {0o644}


def test_the_script_keeps_what_is_there_and_makes_what_is_not(secrets: Path, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    shutil.copytree(secrets, folder)
    (folder / "grafana_password").unlink()
    _make_secrets(folder)
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in after if before[name] != after[name]} == {"grafana_password"}
    assert after.keys() == before.keys()


def test_what_is_deleted_to_renew_all_certificates_is_all_that_comes_of_the_old_authority(
    secrets: Path,
) -> None:
    authority = (secrets / "authority").read_bytes()
    old = {path.name for path in secrets.iterdir() if authority in path.read_bytes()}
    assert len(old) == 12
    old |= {"authority_key", "java_authorities", "model_server_ssl"}
    for file in ("scripts/make_secrets.sh", "docs/how-to/run-on-compose.md"):
        (patterns,) = re.findall(r"rm (?:-f )?(\*_tls [^`)]+)", (REPOSITORY / file).read_text("utf-8"))
        found = {path.name for pattern in patterns.split() for path in secrets.glob(pattern)}
        assert old <= found <= old | {"authority.srl"}, file


def test_secrets_are_of_the_form_that_programs_read(secrets: Path) -> None:
    text = {
        path.name: path.read_text("utf-8") for path in secrets.iterdir() if path.name != "java_authorities"
    }
    key = Fernet(text["airflow_fernet_key"])
    assert key.decrypt(key.encrypt(b"secret")) == b"secret"
    random = [text[name] for name in text if re.search(r"(password|_secret|secret_key|access_key)$", name)]
    assert len(random) == len(set(random)) == 10
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in random)
    assert text["pgpass"] == f"*:*:*:airloop:{text['postgres_password']}\n"
    broker = urlsplit(text["celery_broker_url"])
    assert (broker.scheme, broker.hostname, broker.password) == ("rediss", "broker", text["broker_password"])
    assert text["airloop_redis_connection"].startswith("redis:6379,")
    assert text["s3_access_key"] in text["aws_credentials"]
    assert text["s3_secret_key"] in text["aws_credentials"]
    conf = json.loads(text["airloop_spark_conf"])
    assert conf["spark.authenticate.secret"] == text["spark_secret"]
    assert dict(line.split() for line in text["spark_defaults"].splitlines()) == conf
    assert text["authorities"].endswith(text["authority"])


def _names(name: str) -> list[str]:
    """What others call a service."""
    aliases = SERVICES[name].get("networks", {}).get("default", {}).get("aliases", [])
    return [name, *aliases]


def _certificates() -> Iterator[tuple[str, str]]:
    """Service and secret of each certificate that is shown."""
    for name, service in SERVICES.items():
        for secret in service.get("secrets", []):
            if secret.endswith(("_tls", "_ssl")):
                yield name, secret


@pytest.mark.parametrize(("name", "secret"), _certificates())
def test_a_certificate_bears_its_services_name(name: str, secret: str, secrets: Path) -> None:
    if secret.endswith("_ssl"):
        found = read_tls(secrets / secret)
        pem, key = found.certificate, found.key
    else:
        pem = key = (secrets / secret).read_bytes()
    certificate = x509.load_pem_x509_certificate(pem)
    certificate.verify_directly_issued_by(
        x509.load_pem_x509_certificate((secrets / "authority").read_bytes())
    )
    assert certificate.public_key() == load_pem_private_key(key, None).public_key()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    # Of several behind one name, clients ask that name for all.
    assert _names(name)[-1] in names.get_values_for_type(x509.DNSName)
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert ExtendedKeyUsageOID.SERVER_AUTH in usage


def test_what_listens_to_other_machines_has_a_certificate() -> None:
    tls = {name for name, _ in _certificates()}
    plain = {
        "spark-master": "authenticated and encrypted by a shared secret",
        "spark-worker-1": "authenticated and encrypted by a shared secret",
        "spark-worker-2": "authenticated and encrypted by a shared secret",
        **dict.fromkeys(WATCHING, "figures, rules and traces; no data, and no secret"),
    }
    silent = AIRFLOW - {"airflow-api-server"}
    assert tls | plain.keys() | silent == SERVICES.keys()
    assert not tls & plain.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_mounts_the_secrets_that_it_uses_and_no_others(name: str) -> None:
    service = SERVICES[name]
    mounted = set(service.get("secrets", []))
    texts = [str(service)]
    for path in _files(service).values():
        texts += [each.read_text("utf-8") for each in ([path] if path.is_file() else path.rglob("*.y*ml"))]
    if name in OURS:
        texts.append(ENTRYPOINT.read_text("utf-8"))
    if name in OURS - WITHOUT_SETTINGS.keys():
        texts.append((REPOSITORY / "deploy" / "profiles" / "compose.toml").read_text("utf-8"))
    named = {secret for text in texts for secret in NAMED_SECRET.findall(text)}
    # Read by the settings, or by each program where it is there.
    by_settings = {secret for secret in mounted if secret.startswith(PREFIX.lower())}
    assert mounted - named - by_settings == set()
    # One environment for all of ours names what not each of them asks.
    shared = {"airflow_fernet_key", "airflow_jwt_secret", "airflow_secret_key", "celery_broker_url"}
    shared |= {"aws_credentials", "java_authorities", "pgpass"}
    assert named - mounted <= (shared if name in OURS else set())


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_and_volumes_are_declared_and_secrets_come_from_files(name: str) -> None:
    service = SERVICES[name]
    assert set(_volumes(service).values()) <= DOCUMENT["volumes"].keys()
    secretive = re.compile(r"PASSWORD|SECRET|FERNET|TOKEN|PRIVATE_KEY$")
    plain = {
        key: value
        for key, value in _environment(service).items()
        if secretive.search(key)
        and not key.endswith(("_FILE", "_CMD"))
        and not value.startswith("/run/secrets/")
    }
    assert plain == {}
    assert not re.search(r"://[^/@\s']*:[^/@\s']*@", str(service))


COMMANDS = sorted(
    {
        (name, value)
        for service in SERVICES.values()
        for name, value in _environment(service).items()
        if name.endswith("_CMD")
    }
)


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_airflow_gets_each_secret_without_a_line_break(name: str, command: str, secrets: Path) -> None:
    """Airflow splits the command as a shell would, runs it without one, and keeps all of its output."""
    (secret,) = NAMED_SECRET.findall(command)
    command = command.replace("/run/secrets", str(secrets))
    output = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout
    assert output == (secrets / secret).read_text("utf-8") == output.strip() != ""


# Configuration of what is not ours


def test_the_model_servers_flags_are_those_of_the_embedded_server(secrets: Path) -> None:
    service = SERVICES["model-server-1"]
    flags, mounted = service["command"], _files(service)
    here = [
        f"{name}={mounted.get(value, value)}".replace("/run/secrets", str(secrets))
        for flag in flags
        for name, _, value in (flag.partition("="),)
    ]
    settings = parse_settings(here)
    assert settings.batching == read_batching(REPOSITORY / "serving" / "batching.config")
    assert settings.prometheus_path == PROMETHEUS_PATH
    assert settings.tls is not None
    assert (settings.grpc_port, settings.rest_port) == (8500, 8501)
    assert settings.grpc_channel_arguments == (("grpc.max_connection_age_ms", 30000),)
    # Both the jobs, which write the config with its base path, and the servers must see it under one path.
    profile = tomllib.loads((REPOSITORY / "deploy" / "profiles" / "compose.toml").read_text("utf-8"))
    assert settings.model_config_file == Settings(state_dir=profile["state_dir"]).model_config_file
    for name in ("model-server-1", "airflow-migrate", *WORKERS):
        assert _volumes(SERVICES[name])["/state"] == "state"
    assert "state:/state:ro" in service["volumes"]
    embedded = next(program for program in programs(Settings()) if program.name == "model-server")
    names = {flag.partition("=")[0] for flag in embedded.command if flag.startswith("--")}
    given = {flag.partition("=")[0] for flag in flags}
    assert given - {"--ssl_config_file"} == names - {"--bind_address"}
    own = {flag for flag in embedded.command if "=" in flag and "_file=" not in flag}
    assert own <= set(flags)


def test_nginx_is_set_up_as_elsewhere_but_for_tls() -> None:
    def body(path: Path) -> str:
        return path.read_text("utf-8").partition("worker_processes")[2]

    expected = body(REPOSITORY / "serving" / "nginx.conf")
    for plain, with_tls in (
        (
            "    listen 8080;\n",
            "    listen 8443 ssl;\n"
            "    ssl_certificate /run/secrets/nginx_tls;\n"
            "    ssl_certificate_key /run/secrets/nginx_tls;\n"
            "    ssl_protocols TLSv1.2 TLSv1.3;\n",
        ),
        (
            "      proxy_pass http://gateways;\n",
            "      proxy_pass https://gateways;\n"
            "      proxy_ssl_name gateway;\n"
            "      proxy_ssl_verify on;\n"
            "      proxy_ssl_trusted_certificate /run/secrets/authority;\n",
        ),
    ):
        assert plain in expected
        expected = expected.replace(plain, with_tls)
    assert body(DEPLOY / "nginx.conf") == expected
    assert {f"gateway-{number}:8000" for number in (1, 2)} == set(
        re.findall(r"server (gateway\S+)", expected)
    )


def test_prometheus_reads_what_it_reads_elsewhere_of_each_replica() -> None:
    expected = yaml.safe_load(
        (REPOSITORY / "serving" / "observability" / "prometheus.yml").read_text("utf-8")
    )
    jobs = {job["job_name"]: job for job in expected["scrape_configs"]}
    jobs["gateway"] |= {
        "scheme": "https",
        "tls_config": {"ca_file": "/run/secrets/authority", "server_name": "gateway"},
        "static_configs": [{"targets": ["gateway-1:8000", "gateway-2:8000"]}],
    }
    jobs["model-server"]["static_configs"] = [{"targets": ["model-server-1:8501", "model-server-2:8501"]}]
    assert yaml.safe_load((DEPLOY / "prometheus.yml").read_text("utf-8")) == expected
    assert _files(SERVICES["prometheus"])["/config/prometheus.yml"] == DEPLOY / "prometheus.yml"


def test_prometheus_and_alertmanager_find_what_they_name() -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus.yml").read_text("utf-8"))
    targets = {
        target
        for configured in (*prometheus["scrape_configs"], *prometheus["alerting"]["alertmanagers"])
        for static in configured["static_configs"]
        for target in static["targets"]
    }
    assert {target.partition(":")[0] for target in targets} - {"localhost"} <= SERVICES.keys()
    named = NAMED_SECRET.findall(
        _files(SERVICES["alertmanager"])["/config/alertmanager.yml"].read_text("utf-8")
    )
    assert named == SERVICES["alertmanager"]["secrets"]


def test_traces_go_to_where_the_collector_listens() -> None:
    collector = yaml.safe_load((DEPLOY / "collector.yaml").read_text("utf-8"))
    _, _, port = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")
    assert f"http://otel-collector:{port}" in COMPOSE.read_text("utf-8")
    pipeline = collector["service"]["pipelines"]["traces"]
    for part in ("receivers", "processors", "exporters"):
        assert set(pipeline[part]) == collector[part].keys()
    folder = str(Path(collector["exporters"]["file"]["path"]).parent)
    assert folder in _volumes(SERVICES["otel-collector"])


def _properties(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    found = dict(line.split("=", 1) for line in lines)
    assert len(found) == len(lines), "a key stands twice"
    return found


def test_kafka_takes_clients_with_tls_alone(tmp_path: Path) -> None:
    found = _properties(DEPLOY / "kafka.properties")
    listeners = dict(text.split("://") for text in found["listeners"].split(","))
    protocols = dict(text.split(":") for text in found["listener.security.protocol.map"].split(","))
    assert protocols.keys() == listeners.keys()
    plain = {name for name, protocol in protocols.items() if protocol != "SSL"}
    assert all(listeners[name].startswith("localhost:") for name in plain)
    assert found["advertised.listeners"] == "SSL://kafka:9093"
    assert "9093" in SERVICES["kafka"]["healthcheck"]["test"][-1]
    assert set(NAMED_SECRET.findall(str(found))) == set(SERVICES["kafka"]["secrets"])
    assert found["log.dirs"] in _volumes(SERVICES["kafka"])
    # The broker's own reading of it: a value that is wrong ends it.
    file, logs = tmp_path / "kafka.properties", tmp_path / "logs"
    file.write_text("".join(f"{k}={v}\n" for k, v in (found | {"log.dirs": str(logs)}).items()))
    identifier = re.search(r"--cluster-id (\S+)", SERVICES["kafka"]["command"][-1])
    assert identifier is not None
    done = subprocess.run(
        [
            *("java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", broker_class_path()),
            *("kafka.tools.StorageTool", "format", "--ignore-formatted", "--config", str(file)),
            *("--cluster-id", identifier[1]),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (logs / "meta.properties").is_file()


@pytest.fixture
def postgres_key(secrets: Path) -> Iterator[Path]:
    """The server's key and certificate, in the hands of the account that the server runs as."""
    folder = Path(tempfile.mkdtemp(prefix="airloop-postgres-tls-", dir="/tmp"))
    for source in (secrets / "postgres_tls", DEPLOY / "postgres_hba.conf"):
        shutil.copy(source, folder)
    (folder / "postgres_tls").chmod(0o600)
    if os.geteuid() == 0:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "postgres", "postgres")
    yield folder
    shutil.rmtree(folder)


def test_postgresql_lets_in_who_has_a_password_and_tls(secrets: Path, postgres_key: Path) -> None:
    tls = postgres_key / "postgres_tls"
    command = SERVICES["postgres"]["command"][-1]
    options = [
        "ssl=on",
        f"ssl_cert_file={tls}",
        f"ssl_key_file={tls}",
        f"hba_file={postgres_key}/postgres_hba.conf",
    ]
    # The options that the service is started with, of these files.
    for option in options:
        assert re.search(rf"-c {option.partition('=')[0]}=", command), option
    more = [part for option in options for part in ("-c", option)]
    with postgres_server(*more) as server:
        address = {"host": HOST, "port": server.port, "user": server.user, "dbname": server.database}
        verified = {"sslmode": "verify-full", "sslrootcert": str(secrets / "authority")}
        psycopg2.connect(**address, **verified, password=server.password).close()
        with pytest.raises(psycopg2.OperationalError, match="no encryption"):
            psycopg2.connect(**address, sslmode="disable", password=server.password)
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(**address, **verified, password="another")


def test_the_executor_can_be_loaded_with_the_locked_celery() -> None:
    """The provider's own bounds let a Celery in that it cannot import."""
    code = (
        "from airflow.executors.executor_loader import ExecutorLoader;"
        "print(ExecutorLoader.import_default_executor_cls()[0])"
    )
    executor = _environment(SERVICES["worker-data"])["AIRFLOW__CORE__EXECUTOR"]
    environment = {**os.environ, "AIRFLOW__CORE__EXECUTOR": executor}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert executor in done.stdout
