"""The EMR image: its jars are those that the sums pin, and its base is the application's release."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airloop.settings import REPOSITORY

IMAGES = REPOSITORY / "deploy" / "aws" / "images"
DOCKERFILE = (IMAGES / "spark-emr.Dockerfile").read_text("utf-8")


def test_the_sums_are_of_the_jars_that_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(IMAGES))
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    import fetch_emr_jars

    lines = (REPOSITORY / "requirements" / "emr-jars.sha256").read_text("utf-8").splitlines()
    pinned = {re.fullmatch(r"[0-9a-f]{64}  jars/(.+)\.jar", line)[1] for line in lines}  # type: ignore[index]
    assert pinned == {"{}_{}-{}".format(*package.split(":")) for package in fetch_emr_jars.FOR_EMR}


def test_the_base_is_the_release_of_the_application(resources: dict[str, dict[str, Any]]) -> None:
    (application,) = [
        item["Properties"] for item in resources.values() if item["Type"] == "AWS::EMRServerless::Application"
    ]
    (base,) = re.findall(r"^ARG EMR=\S+/spark/(\S+):", DOCKERFILE, re.MULTILINE)
    assert base == application["ReleaseLabel"]
    spark = re.search(r"iceberg-spark-runtime-(\d+\.\d+)_", (IMAGES / "fetch_emr_jars.py").read_text("utf-8"))
    assert spark is not None
    assert spark[1] == "4.0"


def test_the_image_has_what_a_submitted_job_is_started_with() -> None:
    """The paths that `airloop_airflow` submits: code, jars, interpreter."""
    for path in (
        "/airloop/src",
        "/airloop/spark_jobs",
        "/airloop/feature_repo",
        "/airloop/.airloop/jars",
        "/venv",
    ):
        assert re.search(rf"^COPY .* {path}$", DOCKERFILE, re.MULTILINE), path
    assert DOCKERFILE.rstrip().endswith("USER hadoop:hadoop")


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    ignore = (REPOSITORY / ".dockerignore").read_text("utf-8").splitlines()
    allowed = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (REPOSITORY / source).exists(), source
            assert any(source == name or source.startswith(f"{name}/") for name in allowed), source
