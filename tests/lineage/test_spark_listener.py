"""When Spark makes lineage events of its own, and where they go."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airloop.lineage.parent import PARENT_ID, ROOT_PARENT_ID, parents
from airloop.lineage.spark import listener_options, remove_events_before
from airloop.settings import Settings

JARS = [Path("/jars/io.openlineage_openlineage-spark_2.13-1.53.0.jar")]
TRANSPORT = "spark.openlineage.transport"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path)


@pytest.fixture
def _in_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARENT_ID, "air/loop/flight_delay_features.ingest/0a")
    monkeypatch.setenv(ROOT_PARENT_ID, "air/loop/flight_delay_features/0b")


def test_a_job_by_hand_has_no_listener(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PARENT_ID, raising=False)
    assert listener_options(settings, JARS) == {}
    monkeypatch.setenv(PARENT_ID, "no identifier")
    monkeypatch.setenv(ROOT_PARENT_ID, "airloop/flight_delay_features/0b")
    assert listener_options(settings, JARS) == {}


@pytest.mark.usefixtures("_in_a_task")
def test_without_its_jar_there_is_no_listener_to_fail_the_session(settings: Settings) -> None:
    assert listener_options(settings, [Path("/jars/iceberg.jar")]) == {}


@pytest.mark.usefixtures("_in_a_task")
def test_a_tasks_job_writes_a_file_of_its_own_below_the_task(settings: Settings) -> None:
    above = parents()
    assert above is not None
    assert above.task == ("air/loop", "flight_delay_features.ingest", "0a")
    options = listener_options(settings, JARS)
    assert options[f"{TRANSPORT}.type"] == "file"
    file = f"flight_delay_features.ingest.{os.getpid()}.jsonl"
    assert options[f"{TRANSPORT}.location"] == str(settings.state_dir / "lineage" / "spark" / file)
    assert options["spark.openlineage.parentRunId"] == "0a"
    assert options["spark.openlineage.rootParentRunId"] == "0b"


@pytest.mark.usefixtures("_in_a_task")
def test_an_endpoint_is_posted_to_only_if_it_answers(settings: Settings) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        asked = settings.model_copy(update={"openlineage_url": url})
        assert listener_options(asked, JARS)[f"{TRANSPORT}.type"] == "file"
        server.listen()
        options = listener_options(asked, JARS)
    assert options[f"{TRANSPORT}.type"] == "composite"
    assert options[f"{TRANSPORT}.transports.endpoint.url"] == url
    assert options[f"{TRANSPORT}.transports.file.type"] == "file"


def test_events_of_long_ago_go_and_newer_ones_stay(settings: Settings) -> None:
    folder = settings.lineage_events.with_name("spark")
    assert remove_events_before(settings, datetime.now(UTC)) == 0
    folder.mkdir(parents=True)
    old, young, other = (folder / name for name in ("a.1.jsonl", "a.2.jsonl", "notes.txt"))
    for file in (old, young, other):
        file.touch()
    for file in (old, other):
        os.utime(file, (0, 0))
    assert remove_events_before(settings, datetime.now(UTC) - timedelta(days=1)) == 1
    assert sorted(folder.iterdir()) == [young, other]
