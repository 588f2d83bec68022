"""The locks: hashed, free of addresses, and of one mind about every version."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airloop.settings import REPOSITORY

LOCKS = sorted((REPOSITORY / "requirements").glob("*.lock"))
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)", re.MULTILINE)


def _pins(path: Path) -> dict[str, str]:
    return dict(PIN.findall(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_pin_has_a_hash_and_no_address(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "://" not in text
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
    pinned = [block for block in blocks if PIN.match(block)]
    assert pinned
    assert [block.split("==")[0] for block in pinned if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("group", ["airflow", "spark", "training", "serving", "dev"])
def test_a_groups_versions_are_those_of_the_laptop(group: str) -> None:
    local = _pins(REPOSITORY / "requirements" / "local.lock")
    pins = _pins(REPOSITORY / "requirements" / f"{group}.lock")
    assert len(pins) > 20
    assert {name: version for name, version in pins.items() if local.get(name) != version} == {}


def test_the_airflow_group_has_no_spark_tensorflow_or_feast() -> None:
    pins = _pins(REPOSITORY / "requirements" / "airflow.lock")
    assert "apache-airflow" in pins
    assert {"pyspark", "tensorflow", "feast", "great-expectations", "keras"}.isdisjoint(pins)


def test_what_people_sign_in_with_goes_beside_airflow() -> None:
    """In the same environment: two versions of one package would break one of them."""
    beside, added = (_pins(REPOSITORY / "requirements" / f"{group}.lock") for group in ("airflow", "fab"))
    assert {name: version for name, version in added.items() if beside.get(name, version) != version} == {}
    assert {"apache-airflow-providers-fab", "authlib"} <= set(added) - set(beside)


def test_the_gpu_image_trains_with_the_same_versions_and_nvidias_libraries() -> None:
    pins = _pins(REPOSITORY / "requirements" / "training.lock")
    with_gpu = _pins(REPOSITORY / "requirements" / "training-gpu.lock")
    assert {name: version for name, version in pins.items() if with_gpu.get(name) != version} == {}
    more = set(with_gpu) - set(pins)
    assert {"nvidia-cudnn-cu12", "nvidia-nccl-cu12"} <= more
    assert [name for name in more if not name.startswith("nvidia-")] == []
