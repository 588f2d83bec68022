"""Both online stores, SQLite and a real Redis: the newest value stays, whoever writes, and can be erased."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import redis
from feast import FeatureStore

from airloop.dotted import load
from airloop.erasure.files import Scan
from airloop.erasure.traces import Traces
from airloop.settings import REPOSITORY, Settings, environment_of
from airloop.use_cases.flight_delay import USE_CASE
from feature_repo.erase_online import online_traces
from feature_repo.newest_wins_redis import NewestWinsRedisOnlineStore
from feature_repo.online import REQUEST_TIMEOUT_SECONDS, open_online_store
from feature_repo.store import open_store
from feature_repo.views import push_source_of

NOON = datetime(2013, 11, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
VIEW = "tail_schedule"


@pytest.fixture(scope="module")
def redis_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 20
            while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
                assert time.monotonic() < deadline, "redis-server did not come up"
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.fixture(params=["sqlite", "redis"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    redis = request.getfixturevalue("redis_address") if request.param == "redis" else None
    return Settings(state_dir=tmp_path, redis_connection=redis)


@pytest.fixture
def store(settings: Settings) -> FeatureStore:
    found = open_store(settings)
    found.apply(load(USE_CASE.feature_definitions).definitions(USE_CASE, settings))
    return found


def push(store: FeatureStore, tail: str, minutes: float, at: datetime) -> None:
    row = {"tail_number": tail, "tail_due_departure_at": int(at.timestamp()), "tail_due_minutes": minutes}
    table = USE_CASE.feature_table(VIEW)
    store.push(push_source_of(table), pd.DataFrame([{**row, "event_timestamp": at}]))


def minutes_of(store: FeatureStore, tail: str) -> float | None:
    answer = store.get_online_features(
        features=[f"{VIEW}:tail_due_minutes"], entity_rows=[{"tail_number": tail}]
    )
    found: float | None = answer.to_dict()["tail_due_minutes"][0]
    return found


def test_the_newest_value_stays_whatever_the_order(store: FeatureStore) -> None:
    push(store, "N1ORDER", 60.0, NOON)
    push(store, "N1ORDER", 50.0, NOON - HOUR)
    assert minutes_of(store, "N1ORDER") == 60.0
    push(store, "N1ORDER", 70.0, NOON + HOUR)
    assert minutes_of(store, "N1ORDER") == 70.0


def test_a_value_of_the_same_moment_replaces_the_one_before(store: FeatureStore) -> None:
    """Such as the audited one, which comes after the one that was pushed."""
    push(store, "N1SAME", 60.0, NOON)
    push(store, "N1SAME", 61.0, NOON)
    assert minutes_of(store, "N1SAME") == 61.0


def test_of_one_batch_the_newest_stays(store: FeatureStore) -> None:
    rows = [("N1BATCH", 60.0, NOON), ("N1BATCH", 50.0, NOON - HOUR), ("N2BATCH", 40.0, NOON)]
    frame = pd.DataFrame(rows, columns=["tail_number", "tail_due_minutes", "event_timestamp"])
    store.write_to_online_store(VIEW, frame.assign(tail_due_departure_at=1))
    assert (minutes_of(store, "N1BATCH"), minutes_of(store, "N2BATCH")) == (60.0, 40.0)


def test_services_of_both_versions_answer(store: FeatureStore) -> None:
    push(store, "N1VERSION", 60.0, NOON)
    entities = {"origin": "JFK", "dest": "LAX", "carrier": "DL", "tail_number": "N1VERSION"}
    (earlier,) = USE_CASE.earlier_feature_services
    found = store.get_online_features(
        features=store.get_feature_service(earlier), entity_rows=[entities]
    ).to_dict()
    assert set(found) - set(entities) == set(USE_CASE.earlier_feature_services[earlier])
    asked = {
        "scheduled_departure_seconds": int((NOON + 2 * HOUR).timestamp()),
        "scheduled_departure_local_seconds": int((NOON - 3 * HOUR).timestamp()),
        "prediction_time_seconds": int(NOON.timestamp()),
    }
    found = store.get_online_features(
        features=store.get_feature_service(USE_CASE.feature_service), entity_rows=[{**entities, **asked}]
    ).to_dict()
    assert set(USE_CASE.features) | set(USE_CASE.on_demand_features) <= set(found)
    # Due at noon for an hour out, and not gone: back at two, when it is to leave again.
    assert found["tail_is_waiting"] == [1.0]
    assert found["tail_turn_hours"] == [0.0]


def test_what_another_wrote_since_the_times_were_read_is_not_written_over(
    redis_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path, redis_connection=redis_address)
    store, other = open_store(settings), open_store(settings)
    store.apply(load(USE_CASE.feature_definitions).definitions(USE_CASE, settings))
    times = NewestWinsRedisOnlineStore._times
    rounds = []

    def times_and_then_another(*arguments: Any) -> dict[bytes, bytes]:
        found = times(*arguments)
        rounds.append(found)
        if len(rounds) == 1:
            push(other, "N1RACE", 70.0, NOON + HOUR)
        return found

    monkeypatch.setattr(NewestWinsRedisOnlineStore, "_times", staticmethod(times_and_then_another))
    push(store, "N1RACE", 60.0, NOON)
    # Its own two, and the other's one.
    assert len(rounds) == 3
    assert minutes_of(store, "N1RACE") == 70.0


def test_a_redis_that_does_not_answer_is_down_within_moments(tmp_path: Path) -> None:
    """It takes the connection and says nothing, as one that hangs."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        settings = Settings(state_dir=tmp_path, redis_connection=f"127.0.0.1:{silent.getsockname()[1]}")
        open_store(settings).apply(load(USE_CASE.feature_definitions).definitions(USE_CASE, settings))
        store = open_online_store(settings)
        begun = time.monotonic()
        with pytest.raises(redis.exceptions.TimeoutError):
            minutes_of(store, "N1SILENT")
        # The connection's handshake, and once more.
        assert time.monotonic() - begun < 4 * REQUEST_TIMEOUT_SECONDS


WRITER = """
import sys
from datetime import UTC, datetime, timedelta
import pandas as pd
from airloop.settings import load_settings
from feature_repo.newest_wins_redis import NewestWinsRedisOnlineStore
from feature_repo.store import open_store
store = open_store(load_settings())
first = int(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
start = datetime(2013, 11, 5, tzinfo=UTC)
tails = [f"N{n}" for n in range(50)]
for hour in range(first, 40, 2):
    at = start + timedelta(hours=hour)
    store.push("tail_schedule_push", pd.DataFrame({
        "tail_number": tails, "tail_due_departure_at": hour, "tail_due_minutes": float(hour),
        "event_timestamp": [at] * len(tails),
    }))
"""


def test_two_writers_at_once_leave_the_newest_values(store: FeatureStore, settings: Settings) -> None:
    """Two processes write every second hour each, of the same entities, at the same time."""
    path = f"{REPOSITORY / 'src'}:{REPOSITORY}"
    environment = {**_environment(), **environment_of(settings), "PYTHONPATH": path}
    writers: list[subprocess.Popen[Any]] = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WRITER, str(first)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in (0, 1)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    found = {minutes_of(store, f"N{n}") for n in range(50)}
    assert found == {39.0}


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("AIRLOOP_")}


def test_a_subject_is_erased_from_the_store(store: FeatureStore, settings: Settings) -> None:
    push(store, "N1ERASED", 60.0, NOON)
    push(store, "N1STAYS", 50.0, NOON)
    traces = Traces.of("N1ERASED", [])
    online = online_traces(settings, traces)
    assert online.count() == 1
    assert online.erase() == 1
    assert online.count() == 0
    scan = Scan()
    assert online.scan(scan) >= 1
    assert sum(scan.exact.values()) == 0
    assert (minutes_of(store, "N1ERASED"), minutes_of(store, "N1STAYS")) == (None, 50.0)
