"""docker-compose.yaml as programs read it that would run it: Docker Compose's own library (compose-go, by
`compose_config`), and Debian's docker-compose 1.29."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from airloop.settings import REPOSITORY
from tests.deploy.conftest import TOOLS

pytestmark = pytest.mark.deploy

READER = TOOLS / "bin" / "compose-config"
COMPOSE = REPOSITORY / "docker-compose.yaml"
GPU = REPOSITORY / "deploy" / "compose" / "gpu.yaml"
TEXT = COMPOSE.read_text("utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]

KEPT = ("image", "user", "restart", "read_only", "cap_drop", "security_opt", "command", "entrypoint")


def _filled(value: Any) -> Any:
    """A value without variables as containers get it: a dollar is written as two."""
    if isinstance(value, list):
        return [_filled(each) for each in value]
    return value.replace("$$", "$") if isinstance(value, str) else value


def _run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def _read(*files: Path, **variables: str) -> dict[str, Any]:
    done = _run(READER, *files, **variables)
    assert done.returncode == 0, done.stderr
    # Nothing that is left out, renamed or old is only warned of.
    assert done.stderr == ""
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def test_docker_compose_reads_what_the_tests_read() -> None:
    found = _read(COMPOSE)
    assert found["name"] == "airloop"
    assert found["services"].keys() == SERVICES.keys()
    for name, service in found["services"].items():
        here = SERVICES[name]
        for key in KEPT:
            assert service.get(key) == _filled(here.get(key)), (name, key)
        assert {secret["source"] for secret in service.get("secrets", [])} == set(here.get("secrets", []))
        assert service.get("environment", {}).keys() == here.get("environment", {}).keys()
        assert {name: how["condition"] for name, how in service.get("depends_on", {}).items()} == {
            name: how["condition"] for name, how in here.get("depends_on", {}).items()
        }
    assert found["volumes"].keys() == yaml.safe_load(TEXT)["volumes"].keys()


def test_variables_are_filled_in() -> None:
    found = _read(COMPOSE, AIRLOOP_GATEWAY_PORT="18000", CODE_COMMIT="0123abc")
    (port,) = found["services"]["nginx"]["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "18000", 8443)
    assert found["services"]["gateway-1"]["build"]["args"]["COMMIT"] == "0123abc"
    assert "${" not in yaml.safe_dump(found)


def test_the_overlay_for_gpus_changes_the_worker_that_trains_alone() -> None:
    before, after = _read(COMPOSE), _read(COMPOSE, GPU)
    worker = after["services"].pop("worker-model")
    plain = before["services"].pop("worker-model")
    assert after == before
    assert worker["build"]["args"]["GROUPS"] == "airflow training-gpu serving"
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    changed = {key for key in worker if worker[key] != plain.get(key)}
    assert changed == {"build", "deploy", "image", "mem_limit"}


def _guide() -> list[str]:
    """The overrides that docs/how-to/run-on-compose.md shows."""
    text = (REPOSITORY / "docs" / "how-to" / "run-on-compose.md").read_text("utf-8")
    return re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_guides_overrides_add_what_they_say(tmp_path: Path) -> None:
    more, backup = _guide()
    # Beside the file, as a person has it.
    shutil.copy(COMPOSE, tmp_path)
    file = tmp_path / "docker-compose.yaml"
    before = _read(file)["services"]
    override = tmp_path / "docker-compose.override.yaml"
    override.write_text(more, encoding="utf-8")
    after = _read(file, override)["services"]
    added = {name: after.pop(name) for name in after.keys() - before.keys()}
    assert after == before
    assert added.keys() == yaml.safe_load(more)["services"].keys()
    for name, service in added.items():
        like = before[yaml.safe_load(more)["services"][name]["extends"]["service"]]
        changed = {key for key in service.keys() | like.keys() if service.get(key) != like.get(key)}
        assert changed <= {"environment", "hostname"}
        assert service.get("hostname", name) == name
    assert added["worker-data-2"]["environment"]["AIRLOOP_SPARK_DRIVER_HOST"] == "worker-data-2"
    override.write_text(backup, encoding="utf-8")
    worker = _read(file, override)["services"]["worker-model"]
    assert worker["environment"].items() >= before["worker-model"]["environment"].items()
    assert worker["environment"]["AIRLOOP_BACKUP_URI"] in [mount["target"] for mount in worker["volumes"]]
    mounted = {secret["source"] for secret in worker["secrets"]}
    assert mounted == {secret["source"] for secret in before["worker-model"]["secrets"]} | {"backup_key"}


@pytest.mark.parametrize(
    ("text", "broken", "named"),
    [
        ("  restart: unless-stopped\n", "  restarts: unless-stopped\n", "restarts"),
        (
            "      postgres: {condition: service_healthy}",
            "      postgre: {condition: service_healthy}",
            "postgre",
        ),
        ("    secrets: [authority, nginx_tls]", "    secrets: [authority, nginx_key]", "nginx_key"),
        ('volumes: ["redis:/data"]', 'volumes: ["rediss:/data"]', "rediss"),
        ("AIRLOOP_LOG_FORMAT:-text}", "AIRLOOP_LOG_FORMAT:-text", "AIRLOOP_LOG_FORMAT"),
    ],
)
def test_docker_compose_refuses_a_slip(text: str, broken: str, named: str, tmp_path: Path) -> None:
    changed = TEXT.replace(text, broken, 1)
    assert changed != TEXT
    file = tmp_path / "docker-compose.yaml"
    file.write_text(changed, encoding="utf-8")
    done = _run(READER, file)
    assert done.returncode != 0
    assert named in done.stderr


def test_debians_docker_compose_reads_all_but_the_name(tmp_path: Path) -> None:
    """1.29 is older than the key `name`, for which it has the flag --project-name."""
    program = shutil.which("docker-compose")
    assert program is not None, "scripts/setup_deploy.sh installs it"
    version = _run(program, "version", "--short").stdout.strip()
    if not version.startswith("1."):
        pytest.skip(f"docker-compose {version} here is not Debian's: it reads files as compose-go does")
    whole = _run(program, "--file", COMPOSE, "config", "--quiet")
    assert whole.returncode != 0
    assert "'name' does not match" in whole.stderr
    file = tmp_path / "docker-compose.yaml"
    file.write_text(TEXT.replace("\nname: airloop\n", "\n", 1), encoding="utf-8")
    flags = ("--project-name", "airloop", "--project-directory", REPOSITORY, "--file", file)
    done = _run(program, *flags, "config")
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)["services"]
    assert found.keys() == SERVICES.keys()
    for name, service in found.items():
        assert service["image"] == SERVICES[name]["image"]
        assert service.get("environment", {}).keys() == SERVICES[name].get("environment", {}).keys()
