"""Images: tagged by their commit, scanned before they are pushed, known and verified by their digest.

Docker, grype and cosign are played by a recorder that writes down its arguments, for a test has neither an
engine nor a registry: what the scripts ask for is tested here, and not what comes of it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from airloop.settings import REPOSITORY

RECORDER = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> "$RECORD"
case "$(basename "$0") $1 $2" in
  "docker manifest inspect") [ -n "${PUSHED:-}" ] ;;
  "docker inspect --format") echo "${@: -1}" | sed 's/:[0-9a-f]*$/@sha256:'"$(printf 'a%.0s' {1..64})"'/' ;;
  "docker images --format") [ -n "${MISSING:-}" ] || echo 635MB ;;
  "buildah images --format") [ -z "${MISSING:-}" ] || exit 125; echo "635 MB" ;;
  "grype docker:"*) [ -z "${VULNERABLE:-}" ] || exit 2 ;;
esac
"""
REGISTRY = "registry.example.org/team"
DIGEST = "@sha256:" + "a" * 64


class Pipeline:
    """A clean checkout with the scripts, and recorders in place of the programs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.record = folder / "checkout", folder / "record"
        shutil.copytree(REPOSITORY / "scripts" / "ci", self.folder / "scripts" / "ci")
        for name in ("pyproject.toml", ".gitignore", "docker-compose.yaml"):
            shutil.copy(REPOSITORY / name, self.folder)
        (self.folder / "requirements").mkdir()
        (self.folder / "requirements" / "go_tools.txt").write_text("cosign m v1\ngrype m v1\n")
        stamps, tools = self.folder / ".airloop" / "stamps", self.folder / ".airloop" / "bin"
        self.programs = folder / "programs"
        for place in (stamps, tools, self.programs):
            place.mkdir(parents=True)
        for name, place in (
            ("docker", self.programs),
            ("buildah", self.programs),
            ("cosign", tools),
            ("grype", tools),
        ):
            (place / name).write_text(RECORDER)
            (place / name).chmod(0o755)
            (stamps / name).write_text("v1")
        self.git("init", "--quiet")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "m")
        self.commit = self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        done = subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def run(self, name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "RECORD": str(self.record),
            "REGISTRY": REGISTRY,
            "IMAGES": "worker-data serving",
            **variables,
        }
        command = ["bash", f"scripts/ci/{name}.sh"]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def recorded(self) -> list[str]:
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        self.record.unlink(missing_ok=True)
        return lines


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path)


def test_each_group_is_built_and_tagged_with_its_commit(pipeline: Pipeline) -> None:
    assert pipeline.run("build_images").returncode == 0
    built = pipeline.recorded()
    moment = pipeline.git("log", "-1", "--format=%ct")
    assert len(built) == 2
    for line, (name, groups) in zip(
        built, {"worker-data": "airflow spark", "serving": "serving"}.items(), strict=True
    ):
        assert f"--build-arg GROUPS={groups} --build-arg COMMIT={pipeline.commit} " in line
        assert line.startswith(f"docker buildx build --load --build-arg SOURCE_DATE_EPOCH={moment} ")
        assert line.endswith(f" --tag {REGISTRY}/airloop-{name}:{pipeline.commit} .")


def test_buildah_builds_the_same_images(pipeline: Pipeline) -> None:
    assert pipeline.run("build_images").returncode == 0
    by_docker = [line.partition(" --file ")[2] for line in pipeline.recorded()]
    assert pipeline.run("build_images", ENGINE="buildah").returncode == 0
    lines = pipeline.recorded()
    moment = pipeline.git("log", "-1", "--format=%ct")
    assert {line.partition(" --file ")[0] for line in lines} == {
        f"buildah build --layers --format docker --timestamp {moment}"
    }
    assert [line.partition(" --file ")[2] for line in lines] == by_docker
    assert "docker or buildah" in pipeline.run("build_images", ENGINE="kaniko").stderr


@pytest.mark.parametrize("engine", ["docker", "buildah"])
def test_the_size_of_each_image_is_told_beside_its_groups(pipeline: Pipeline, engine: str) -> None:
    done = pipeline.run("image_sizes", ENGINE=engine)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == [
        "   635MB  airloop-worker-data (airflow spark)",
        "   635MB  airloop-serving (serving)",
        "",
    ]
    assert [line.split()[0] for line in pipeline.recorded()] == [engine, engine]
    missing = pipeline.run("image_sizes", ENGINE=engine, MISSING="yes")
    assert missing.returncode == 1
    assert f"expected {REGISTRY}/airloop-worker-data" in missing.stderr


def test_every_image_that_compose_builds_is_built_alike(pipeline: Pipeline) -> None:
    services = yaml.safe_load((REPOSITORY / "docker-compose.yaml").read_text("utf-8"))["services"]
    declared = {
        service["image"].partition(":")[0]: service["build"]["args"]["GROUPS"]
        for service in services.values()
        if "build" in service
    }
    assert pipeline.run("build_images", IMAGES="").returncode == 0
    built = {}
    for line in pipeline.recorded():
        tag, groups = re.search(r"--tag \S+/(\S+):", line), re.search(r"GROUPS=(.*?) --", line)
        assert tag is not None
        assert groups is not None
        built[tag[1]] = groups[1]
    assert built == declared
    assert "found nobody" in pipeline.run("build_images", IMAGES="nobody").stderr


def test_what_is_not_committed_is_not_built(pipeline: Pipeline) -> None:
    (pipeline.folder / "pyproject.toml").write_text("changed")
    done = pipeline.run("build_images")
    assert done.returncode == 1
    assert "expected a clean checkout" in done.stderr
    assert "a whole commit" in pipeline.run("build_images", COMMIT="main").stderr
    assert "to be checked out" in pipeline.run("build_images", COMMIT="0" * 40).stderr
    assert "REGISTRY" in pipeline.run("build_images", REGISTRY="").stderr
    assert pipeline.recorded() == []


def test_a_vulnerability_in_one_image_fails_after_all_were_scanned(pipeline: Pipeline) -> None:
    assert pipeline.run("scan_images").returncode == 0
    assert [line.split()[1] for line in pipeline.recorded()] == [
        f"docker:{REGISTRY}/airloop-{name}:{pipeline.commit}" for name in ("worker-data", "serving")
    ]
    done = pipeline.run("scan_images", VULNERABLE="yes")
    assert done.returncode == 1
    assert "expected no high vulnerability" in done.stderr
    assert len(pipeline.recorded()) == 2


def test_what_is_published_is_known_by_its_digest_and_no_tag_is_written_over(pipeline: Pipeline) -> None:
    assert pipeline.run("publish_images").returncode == 0
    assert sum(line.startswith("docker push") for line in pipeline.recorded()) == 2
    listed = (pipeline.folder / "build" / "images.txt").read_text()
    assert listed == "".join(
        f"{name} {REGISTRY}/airloop-{name}{DIGEST}\n" for name in ("worker-data", "serving")
    )
    assert pipeline.run("publish_images", PUSHED="yes").returncode == 0
    assert not [line for line in pipeline.recorded() if line.startswith("docker push")]


def test_digests_are_verified_against_who_may_sign(pipeline: Pipeline) -> None:
    assert "expected" in pipeline.run("verify_images", SIGNED_BY="x").stderr, "nothing was published"
    pipeline.run("publish_images")
    pipeline.recorded()
    assert "SIGNED_BY" in pipeline.run("verify_images").stderr
    assert pipeline.run("verify_images", SIGNED_BY="^https://ci/main$").returncode == 0
    lines = pipeline.recorded()
    assert len(lines) == 4
    for line in lines:
        assert (
            "--certificate-identity-regexp ^https://ci/main$ --certificate-oidc-issuer https://token." in line
        )
        assert line.endswith(DIGEST)
