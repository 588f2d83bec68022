"""What is answered is in a file, whatever becomes of the process; and nothing waits for a bad disk."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airloop.prediction_log import spool as spools
from airloop.prediction_log.spool import Spool, segments_of
from airloop.settings import REPOSITORY
from tests.prediction_log.records import record


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with closing(Spool(tmp_path)) as opened:
        yield opened


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for segment in segments_of(folder) for line in segment.lines()]


def test_a_record_is_in_a_file_when_append_returns(spool: Spool, tmp_path: Path) -> None:
    for number in range(1, 6):
        assert spool.append([record(number), record(-number)])
        found = written(tmp_path)
        assert [line["sequence"] for line in found] == list(range(1, 2 * number + 1))
        assert found[-1]["record"]["request_id"] == f"request {-number}"
    assert {line["writer"] for line in written(tmp_path)} == {spool.writer}


def test_a_killed_process_loses_nothing_that_it_answered(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from airloop.prediction_log.spool import Spool; "
        "from tests.prediction_log.records import record; spool = Spool(pathlib.Path(sys.argv[1]))\n"
        "for number in range(10**6):\n"
        "    if spool.append([record(number)]): print(number, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY}"},
    )
    assert process.stdout is not None
    answered = [int(process.stdout.readline()) for _ in range(500)]
    process.send_signal(signal.SIGKILL)
    answered += [int(line) for line in process.stdout if line.endswith(b"\n")]
    process.wait()
    found = [line["record"]["request_id"] for line in written(tmp_path)]
    assert len(found) == len(set(found))
    assert {f"request {number}" for number in answered} <= set(found)
    assert all(segment.finished for segment in segments_of(tmp_path))


def test_a_file_is_unfinished_while_its_writer_may_add_to_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=1)
    for number in range(3):
        spool.append([record(number)])
    assert [segment.finished for segment in segments_of(tmp_path)] == [True, True, False]
    spool.close()
    assert all(segment.finished for segment in segments_of(tmp_path))
    assert [line["sequence"] for line in written(tmp_path)] == [1, 2, 3]


def test_a_file_that_can_be_found_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be found empty and without a lock, taken for done, and deleted under its writer."""
    seen = []
    flock = fcntl.flock

    def look_and_lock(descriptor: int, how: int) -> None:
        seen.append(segments_of(tmp_path))
        flock(descriptor, how)

    monkeypatch.setattr(spools.fcntl, "flock", look_and_lock)
    spool = Spool(tmp_path)
    spool.append([record(1)])
    assert seen == [[]]
    monkeypatch.undo()
    assert [segment.finished for segment in segments_of(tmp_path)] == [False]
    spool.close()


def test_what_is_torn_is_no_line(spool: Spool, tmp_path: Path) -> None:
    spool.append([record(1)])
    (segment,) = segments_of(tmp_path)
    with segment.path.open("ab") as file:
        file.write(b'{"writer": "half')
    assert len(written(tmp_path)) == 1


def test_a_full_disk_delays_no_answer_and_its_records_follow(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failing = os.write, [True]

    def write(descriptor: int, data: Any) -> int:
        if failing[0]:
            # Half of it fits, as on a disk that fills up.
            real(descriptor, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(spools, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(spools.os, "write", write)
    began = time.monotonic()
    assert not spool.append([record(1)])
    assert not spool.append([record(2)])
    assert time.monotonic() - began < 1
    failing[0] = False
    deadline = time.monotonic() + 10
    while not spool.append([record(3)]):
        assert time.monotonic() < deadline
    found = {line["sequence"]: line["record"]["request_id"] for line in written(tmp_path)}
    assert found == {1: "request 1", 2: "request 2", 3: "request 3"}
    assert spool.lost == 0


def test_more_than_can_wait_is_counted_as_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "MOST_WAITING", 2)
    monkeypatch.setattr(spools, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(spools, "RETRY_SECONDS", 0.05)
    tmp_path.joinpath("file").write_text("no folder", "utf-8")
    spool = Spool(tmp_path / "file")
    answers = [spool.append([record(number)]) for number in range(20)]
    assert not any(answers)
    assert spool.lost >= 10
    spool.close()
    assert spool.lost == 20
