"""GitHub's workflows: valid, pinned, with the least rights, nothing of an environment within a pull request's
reach. What they call is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from airloop.settings import REPOSITORY
from tests.delivery.programs import program

FOLDER = REPOSITORY / ".github" / "workflows"
WORKFLOWS = {path.name: yaml.safe_load(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.yaml"))}
JOBS = {(name, job): body for name, flow in WORKFLOWS.items() for job, body in flow["jobs"].items()}
PINNED = re.compile(r"^[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
WRITES = {
    ("pull-request.yaml", "comment"): {"pull-requests"},
    ("main.yaml", "images"): {"id-token"},
    ("main.yaml", "staging"): {"contents", "id-token"},
    ("main.yaml", "promote"): {"id-token"},
    ("release.yaml", "release"): {"contents"},
    ("release.yaml", "production"): {"contents", "id-token"},
}
"""What each job may write; the others may only read."""


def actionlint(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [program("actionlint"), "-shellcheck", program("shellcheck"), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)


def test_they_are_valid_and_so_are_the_scripts_in_them() -> None:
    done = actionlint(*(FOLDER / name for name in WORKFLOWS))
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_wrong_would_be_found(tmp_path: Path) -> None:
    text = (FOLDER / "nightly.yaml").read_text("utf-8")
    for name, old, new, found in (
        ("needs.yaml", "runs-on: ubuntu-24.04", "runs-on: ubuntu-24.04\n    needs: nobody", "nobody"),
        ("quotes.yaml", 'make "$TARGET"', "make $TARGET", "SC2086"),
        ("expression.yaml", "matrix.target }}", "matrix.tarjet }}", "tarjet"),
    ):
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new), encoding="utf-8")
        done = actionlint(tmp_path / name)
        assert done.returncode == 1
        assert found in done.stdout


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_action_is_pinned_by_its_commit_beside_the_version(name: str) -> None:
    used = re.findall(r"uses: (.*)$", (FOLDER / name).read_text("utf-8"), re.MULTILINE)
    assert used
    assert [line for line in used if not PINNED.fullmatch(line)] == []


def test_no_workflow_has_rights_and_each_job_only_those_that_it_needs() -> None:
    for flow in WORKFLOWS.values():
        assert flow["permissions"] == {}
    found = {
        place: {right for right, level in job["permissions"].items() if level != "read"}
        for place, job in JOBS.items()
    }
    assert {place: rights for place, rights in found.items() if rights} == WRITES


def test_secrets_are_only_where_an_environment_is() -> None:
    for place, job in JOBS.items():
        if "secrets." in str(job):
            assert job.get("environment") in ("staging", "production"), place


def test_a_pull_request_reaches_no_secret_no_environment_and_no_cloud() -> None:
    # PyYAML reads the key `on` as true.
    assert list(WORKFLOWS["pull-request.yaml"][True]) == ["pull_request"]
    others = [name for name, flow in WORKFLOWS.items() if "pull_request" in str(flow[True])]
    assert others == ["pull-request.yaml"]
    for place, job in JOBS.items():
        if place[0] == "pull-request.yaml":
            assert not {"secrets.", "vars.", "id-token"} & set(
                re.findall(r"secrets\.|vars\.|id-token", str(job))
            )
            assert "environment" not in job
    writing = JOBS["pull-request.yaml", "comment"]
    assert "head.repo.full_name == github.repository" in writing["if"]
    (checkout,) = (step for step in writing["steps"] if step.get("uses", "").startswith("actions/checkout@"))
    assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"


def test_no_token_stays_in_a_checkout() -> None:
    for place, job in JOBS.items():
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, place


def test_production_comes_after_staging_and_models_after_code() -> None:
    assert JOBS["main.yaml", "images"]["needs"] == "test"
    assert JOBS["main.yaml", "staging"]["needs"] == "images"
    assert JOBS["main.yaml", "promote"]["needs"] == "staging"
    assert JOBS["main.yaml", "promote"]["environment"] == "production"
    steps = [step.get("run", "") for step in JOBS["main.yaml", "images"]["steps"]]
    order = [step for step in steps if step.startswith("scripts/ci/")]
    assert order == [f"scripts/ci/{name}_images.sh" for name in ("build", "scan", "publish", "sign")], (
        "nothing is published that was not scanned"
    )


def test_every_script_that_is_called_is_there_and_can_be_run() -> None:
    texts = [
        path.read_text("utf-8") for path in (*FOLDER.glob("*.yaml"), *REPOSITORY.glob("scripts/ci/*.sh"))
    ]
    called = {name for text in texts for name in re.findall(r"scripts/ci/\w+\.sh", text)}
    assert len(called) > 8
    for name in called:
        path = REPOSITORY / name
        assert path.is_file(), name
        assert path.stat().st_mode & 0o111 or path.name == "names.sh", name


def test_what_people_write_never_becomes_a_command() -> None:
    for place, job in JOBS.items():
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), place
