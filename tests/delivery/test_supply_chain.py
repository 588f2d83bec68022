"""Bills of materials name what the locks pin; planted secrets are found; the audit reads our locks and passes
nothing that it could not audit."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from airloop.settings import REPOSITORY
from tests.delivery.programs import program

HOOKS = {
    hook["id"]: hook
    for repository in yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    for hook in repository["hooks"]
}
# Put together here, so that no file of ours holds one.
PLANTED = {
    "aws.py": "key = '" + "AKIA" + "Q3EGRXW6KZ2TNVLP'",
    "key.pem": "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn\n",
    "slack.yaml": "hook: https://hooks.slack.com/services/" + "T0A1B2C3D/B4E5F6G7H/aBcDeFgHiJkLmNoPqRsTuVwX",
    "github.sh": "export TOKEN=" + "ghp_" + "k2Jd83hGf0sLqPz7Xc5Vb1Nm4RtYw9QeUo6A",
}


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def hook(name: str, file: Path) -> subprocess.CompletedProcess[str]:
    """What the pre-commit hook `name` says of `file`."""
    entry, *flags = shlex.split(HOOKS[name]["entry"])
    return run([program(Path(entry).name), *flags, file.name], file.parent)


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("guard", ["secrets", "secrets-in-tests"])
def test_a_planted_secret_is_found_before_it_is_committed(guard: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(PLANTED[name])
    done = hook(guard, tmp_path / name)
    assert done.returncode == 1, done.stdout
    assert f"{name}:1" in done.stdout + done.stderr


def test_a_password_in_a_file_is_found_and_a_name_of_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('password = "' + "correct-horse-7" + '"\n')
    assert hook("secrets", file).returncode == 1
    file.write_text('password_file = "/run/secrets/postgres"\n')
    assert hook("secrets", file).returncode == 0


def test_the_hooks_look_at_every_text_file_but_locks() -> None:
    tracked = run(["git", "ls-files"], REPOSITORY).stdout.split()
    if not tracked:
        pytest.skip("an exported tree, of which git knows no files")
    skipped = [
        path
        for path in tracked
        if re.search(HOOKS["secrets"]["exclude"], path)
        and not re.search(HOOKS["secrets-in-tests"]["files"], path)
    ]
    assert skipped
    assert all(re.fullmatch(r"requirements/[\w.-]+\.lock", path) for path in skipped)
    assert {HOOKS[name].get("stages") for name in ("secrets", "secrets-in-tests")} == {None}


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A repository in which a secret was committed, and taken out again."""
    identity = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    run(["git", "init", "--quiet"], tmp_path)
    for text in (PLANTED["github.sh"], "export TOKEN_FILE=/run/secrets/token"):
        (tmp_path / "run.sh").write_text(text)
        run([*identity, "add", "--all"], tmp_path)
        assert run([*identity, "commit", "--quiet", "--message", "m"], tmp_path).returncode == 0
    return tmp_path


def test_a_secret_that_was_taken_out_is_still_in_the_history(history: Path) -> None:
    command = [program("gitleaks"), "git", "--no-banner", "--redact", "--verbose", "."]
    done = run(command, history)
    assert done.returncode == 1
    assert "github-pat" in done.stdout
    assert PLANTED["github.sh"].partition("=")[2] not in done.stdout + done.stderr


def test_our_own_history_has_none() -> None:
    if run(["git", "rev-parse", "--git-dir"], REPOSITORY).returncode:
        pytest.skip("an exported tree, without a history")
    done = run([program("gitleaks"), "git", "--no-banner", "--redact", "--verbose", "."], REPOSITORY)
    assert done.returncode == 0, done.stdout


@pytest.mark.delivery
def test_a_bill_of_materials_names_what_the_lock_pins_with_its_hashes(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "scripts" / "ci").mkdir(parents=True)
    (checkout / "requirements").mkdir()
    (checkout / ".airloop" / "venv" / "bin").mkdir(parents=True)
    (checkout / ".airloop" / "venv" / "bin" / "cyclonedx-py").symlink_to(program("cyclonedx-py"))
    shutil.copy(REPOSITORY / "scripts" / "ci" / "sbom.sh", checkout / "scripts" / "ci")
    shutil.copy(REPOSITORY / "pyproject.toml", checkout)
    for name in ("spark", "uv"):
        shutil.copy(REPOSITORY / "requirements" / f"{name}.lock", checkout / "requirements")
    written = []
    for arguments in ([], ["uv"]):
        done = run(["bash", "scripts/ci/sbom.sh", *arguments], checkout)
        assert done.returncode == 0, done.stderr
        written.append((checkout / "build" / "sbom" / "uv.cdx.json").read_bytes())
    assert written[0] == written[1]
    document = json.loads((checkout / "build" / "sbom" / "spark.cdx.json").read_text("utf-8"))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["name"] == "airloop"
    lock = (REPOSITORY / "requirements" / "spark.lock").read_text("utf-8")
    pins = set(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)", lock, re.MULTILINE))
    components = {(part["name"], part["version"]): part for part in document["components"]}
    assert set(components) == pins
    (pyspark,) = (part for (name, _), part in components.items() if name == "pyspark")
    assert pyspark["purl"].startswith("pkg:pypi/pyspark@")
    hashes = [item["content"] for found in pyspark["externalReferences"] for item in found.get("hashes", ())]
    assert hashes
    assert all(f"sha256:{content}" in lock for content in hashes)


@pytest.mark.delivery
@pytest.mark.parametrize("lock", ["local", "uv", "go"])
def test_the_audit_reads_our_locks(lock: str) -> None:
    flags = re.search(
        r"pip-audit (--strict.*?)\\", (REPOSITORY / "scripts" / "ci" / "audit.sh").read_text("utf-8")
    )
    assert flags is not None
    file = REPOSITORY / "requirements" / f"{lock}.lock"
    done = run(
        [program("pip-audit"), *shlex.split(flags[1]), "--dry-run", "--requirement", str(file)], REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    audited = re.search(r"would have audited (\d+) packages", done.stderr)
    assert audited is not None
    # Of a package with a version for each Python or platform, this machine's alone is audited.
    pins = re.findall(r"^[A-Za-z0-9._-]+(?:\[[^\]]*\])?==", file.read_text("utf-8"), re.MULTILINE)
    assert 0.9 * len(pins) <= int(audited[1]) <= len(pins)


@pytest.mark.delivery
def test_a_package_that_is_not_as_locked_or_that_cannot_be_audited_fails_the_audit(tmp_path: Path) -> None:
    lock = tmp_path / "bad.lock"
    lock.write_text("uv==0.13.9\n")
    done = run([program("pip-audit"), "--require-hashes", "--disable-pip", "-r", str(lock)], tmp_path)
    assert done.returncode == 1
    assert "hash" in done.stderr
    assert "--strict" in (REPOSITORY / "scripts" / "ci" / "audit.sh").read_text("utf-8")
