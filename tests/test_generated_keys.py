"""The keys that Airflow signs and encrypts with: each deployment's own in every profile, never a default."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.fernet import Fernet

from airloop.settings import REPOSITORY, Settings
from airloop.stack.programs import environment, password

KEYS = ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET")
"""Encrypts connections; signs sessions; signs the tokens of people and of tasks."""
SECRETIVE = re.compile(r"fernet_?key|secret_?key|jwt_?secret|password|client_?secret", re.IGNORECASE)
LEAST_BYTES = 32


def test_the_local_stack_makes_its_own_and_keeps_them(tmp_path: Path) -> None:
    here, there = (Settings(state_dir=tmp_path / name) for name in ("here", "there"))
    made = {name: environment(here)[name] for name in KEYS}
    assert made == {name: environment(here)[name] for name in KEYS}, "a restart ends no session"
    assert len(set(made.values()) | {environment(there)[name] for name in KEYS}) == 2 * len(KEYS)
    assert all(len(key) >= LEAST_BYTES for key in made.values())
    fernet = Fernet(made["AIRFLOW__CORE__FERNET_KEY"])
    assert fernet.decrypt(fernet.encrypt(b"a password")) == b"a password"
    assert password(here) != password(there)
    for file in ("secrets.json", "passwords.json"):
        assert (here.state_dir / "airflow" / file).stat().st_mode & 0o077 == 0, file


def test_every_service_of_the_compose_file_takes_them_from_files_that_the_script_makes() -> None:
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yaml").read_text("utf-8"))
    script = (REPOSITORY / "scripts" / "make_secrets.sh").read_text("utf-8").replace("\\\n", " ")
    drawn = set(re.search(r"for name in ([a-z0-9_ ]+); do\s+random \|", script).group(1).split())
    drawn |= set(re.findall(r"openssl rand -base64 32 .*\| keep (\w+)", script))
    services = {
        name: service["environment"]
        for name, service in compose["services"].items()
        if any(key.startswith("AIRFLOW__CORE__") for key in _environment(service))
    }
    assert len(services) >= 5
    for name, given in services.items():
        for key in KEYS:
            assert key not in given, (name, "in the clear")
            (secret,) = re.fullmatch(r"cat /run/secrets/(\w+)", given[f"{key}_CMD"]).groups()
            assert secret in drawn, (name, key, "not drawn at random")
            assert compose["secrets"][secret]["file"] == f".airloop/secrets/{secret}"


def test_the_random_text_of_the_script_is_long_enough(tmp_path: Path) -> None:
    script = (REPOSITORY / "scripts" / "make_secrets.sh").read_text("utf-8")
    (random,) = re.findall(r"^random\(\) \{ (.*); \}$", script, re.MULTILINE)
    (fernet,) = re.findall(r"^(openssl rand -base64 32 .*) \| keep airflow_fernet_key$", script, re.MULTILINE)
    texts = [_said(random), _said(random)]
    assert texts[0] != texts[1]
    assert all(len(text) >= LEAST_BYTES for text in texts)
    assert Fernet(_said(fernet))


def test_kubernetes_has_them_from_secrets_that_the_guide_draws_at_random() -> None:
    values = yaml.safe_load((REPOSITORY / "deploy/kubernetes/airflow/values.yaml").read_text("utf-8"))
    guide = (REPOSITORY / "docs" / "how-to" / "run-on-kubernetes.md").read_text("utf-8")
    for field in ("fernetKeySecretName", "apiSecretKeySecretName", "jwtSecretName"):
        assert re.search(rf"secret generic {values[field]} .*\$\(openssl rand", guide), field
    assert {"fernetKey", "apiSecretKey", "jwtSecret", "webserverSecretKey"}.isdisjoint(values)


@pytest.mark.parametrize(
    "path",
    [
        path.relative_to(REPOSITORY).as_posix()
        for path in (
            REPOSITORY / "docker-compose.yaml",
            *sorted((REPOSITORY / "deploy").rglob("*.yaml")),
            *sorted((REPOSITORY / "deploy").rglob("*.toml")),
        )
    ],
)
def test_no_file_of_a_deployment_has_a_key_or_a_password_in_the_clear(path: str) -> None:
    text = (REPOSITORY / path).read_text("utf-8")
    documents = (
        [line.split("=", 1) for line in text.splitlines() if re.match(r"\s*\w+\s*=", line)]
        if path.endswith(".toml")
        else [pair for document in yaml.safe_load_all(text) for pair in _pairs(document)]
    )
    assert [
        (name, value)
        for name, value in documents
        if SECRETIVE.search(name)
        and not re.search(r"(_CMD|_FILE|__FILE|SecretName|_file|_dir)$", name.strip())
        and not re.fullmatch(r"[\"']?(|/[\w/.-]+|false|true|.*\$\$?\{?\w+.*)[\"']?", str(value).strip())
    ] == []


def _environment(service: Any) -> dict[str, Any]:
    given = service.get("environment") or {}
    return given if isinstance(given, dict) else {}


def _pairs(document: Any) -> Iterator[tuple[str, Any]]:
    """Every name and plain value in a document; an item of a list of variables by its own name."""
    if isinstance(document, dict):
        if isinstance(document.get("name"), str) and isinstance(document.get("value"), str):
            yield document["name"], document["value"]
        for name, value in document.items():
            if isinstance(value, str | int | bool):
                yield str(name), value
            else:
                yield from _pairs(value)
    elif isinstance(document, list):
        for item in document:
            yield from _pairs(item)


def _said(command: str) -> str:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout
