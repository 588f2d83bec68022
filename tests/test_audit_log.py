"""The audit log: appended once and for ever; whoever changes a line is found out, whatever kills a writer."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airloop import audit_log
from airloop.audit_log import BEGINNING, AuditLogError, append_record, audit_log_file, verify
from airloop.errors import EXIT_PERMANENT
from airloop.settings import REPOSITORY, Settings, environment_of

APPENDER = """
import sys
from airloop.audit_log import append_record
from airloop.settings import load_settings
settings, name, count = load_settings(), sys.argv[1], int(sys.argv[2])
for number in range(count):
    append_record(settings, kind="test", key=f"{name} {number}", what={"number": number}, who=name)
    append_record(settings, kind="test", key=f"shared {number}", what={}, who="any")
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path)


def _filled(settings: Settings, count: int = 5) -> list[bytes]:
    """A log of `count` records; its lines."""
    for number in range(1, count + 1):
        append_record(settings, kind="erasure", key=f"ticket {number}", what={"rows": number}, who="dag/run")
    return _lines(settings)


def _lines(settings: Settings) -> list[bytes]:
    return audit_log_file(settings).read_bytes().splitlines(keepends=True)


def _with(line: bytes, *, own_hash: bool = False, **changes: Any) -> bytes:
    """`line` with some fields changed and, by somebody who knows how, its hash made to fit."""
    record = {**json.loads(line), **changes}
    if own_hash:
        del record["hash"]
        record["hash"] = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    return json.dumps(record, sort_keys=True).encode() + b"\n"


def test_a_record_says_who_did_what_and_follows_the_one_before(settings: Settings) -> None:
    assert verify(settings) == audit_log.AuditEntry(sequence=0, hash=BEGINNING)
    entries = [
        append_record(settings, kind="erasure", key="ticket 7", what={"rows": 3}, who="erasure/manual__1"),
        append_record(settings, kind="promotion", key="version 2", what={"by": "verdict"}),
    ]
    first, second = (json.loads(line) for line in _lines(settings))
    assert (first["sequence"], first["kind"], first["key"]) == (1, "erasure", "ticket 7")
    assert (first["who"], first["what"], first["previous"]) == ("erasure/manual__1", {"rows": 3}, BEGINNING)
    assert (second["sequence"], second["who"], second["previous"]) == (2, "by-hand", first["hash"])
    assert [(entry.sequence, entry.hash) for entry in entries] == [(1, first["hash"]), (2, second["hash"])]
    assert verify(settings) == entries[-1]


def test_the_log_is_for_its_owner_alone(settings: Settings) -> None:
    _filled(settings, 1)
    path = audit_log_file(settings)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o077) == (0o600, 0)


def test_a_repeated_task_appends_nothing(settings: Settings) -> None:
    first = append_record(settings, kind="erasure", key="ticket 1", what={"rows": 3})
    append_record(settings, kind="erasure", key="ticket 2", what={"rows": 4})
    before = audit_log_file(settings).read_bytes()
    assert append_record(settings, kind="erasure", key="ticket 1", what={"rows": 0}) == first
    assert audit_log_file(settings).read_bytes() == before
    assert append_record(settings, kind="promotion", key="ticket 1", what={}).sequence == 3


def _altered(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], _with(lines[2], what={"rows": 0}), *lines[3:]]


def _altered_with_its_hash(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], _with(lines[2], own_hash=True, what={"rows": 0}), *lines[3:]]


def _removed(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], *lines[3:]]


def _beginning_removed(lines: list[bytes]) -> list[bytes]:
    return lines[1:]


def _inserted(lines: list[bytes]) -> list[bytes]:
    extra = _with(lines[1], own_hash=True, sequence=3, previous=json.loads(lines[1])["hash"], key="forged")
    return [*lines[:2], extra, *lines[2:]]


def _repeated(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[2], *lines[3:]]


def _swapped(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


def _forged(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], b'{"hash": "%s"}\n' % hashlib.sha256(b"{}").hexdigest().encode(), *lines[2:]]


def _scribbled(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], b"no record\n", *lines[2:]]


def _scribbled_at_the_end(lines: list[bytes]) -> list[bytes]:
    return [*lines, b"no record\n"]


def _owned_up_to_what_is_not_there(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4], _with(lines[4], own_hash=True, torn="0" * 64)]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (_altered, 3),
        (_altered_with_its_hash, 4),
        (_removed, 3),
        (_beginning_removed, 1),
        (_inserted, 4),
        (_repeated, 4),
        (_swapped, 2),
        (_forged, 3),
        (_scribbled, 3),
        (_scribbled_at_the_end, 6),
        (_owned_up_to_what_is_not_there, 4),
    ],
)
def test_a_log_that_was_changed_is_refused_with_the_line(
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[list[bytes]], list[bytes]],
    line: int,
) -> None:
    changed = b"".join(change(_filled(settings)))
    audit_log_file(settings).write_bytes(changed)
    with pytest.raises(AuditLogError, match=rf"in line {line}\b"):
        verify(settings)
    with pytest.raises(AuditLogError, match=rf"in line {line}\b"):
        append_record(settings, kind="erasure", key="another", what={})
    assert audit_log_file(settings).read_bytes() == changed
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(settings.state_dir))
    assert audit_log.main([]) == EXIT_PERMANENT
    assert f"in line {line}" in json.loads(capsys.readouterr().out)["error"]["found"]


def test_records_cut_off_at_the_end_show_against_the_hash_of_an_earlier_run(settings: Settings) -> None:
    lines = _filled(settings)
    anchor = verify(settings)
    audit_log_file(settings).write_bytes(b"".join(lines[:-1]))
    assert verify(settings) != anchor
    assert verify(settings).sequence == anchor.sequence - 1


def test_whatever_byte_a_writer_died_at_the_next_record_owns_up_to_what_it_left(settings: Settings) -> None:
    lines = _filled(settings, 2)
    path, whole = audit_log_file(settings), lines[1].removesuffix(b"\n")
    for written in range(1, len(whole) + 1):
        path.write_bytes(lines[0] + whole[:written])
        complete = written == len(whole)
        assert verify(settings).sequence == (2 if complete else 1), written
        entry = append_record(settings, kind="erasure", key="next", what={})
        assert entry.sequence == (3 if complete else 2), written
        assert verify(settings) == entry, written
        kept = _lines(settings)
        assert kept[1].removesuffix(b"\n") == whole[:written]
        owned_up = json.loads(kept[2]).get("torn")
        assert owned_up == (None if complete else hashlib.sha256(whole[:written]).hexdigest()), written


def test_a_torn_line_is_where_a_log_may_begin_and_cannot_be_taken_out_again(settings: Settings) -> None:
    path = audit_log_file(settings)
    path.parent.mkdir()
    path.write_bytes(b'{"at": "2026')
    assert verify(settings).sequence == 0
    entry = append_record(settings, kind="erasure", key="first", what={})
    assert (entry.sequence, verify(settings)) == (1, entry)
    append_record(settings, kind="erasure", key="second", what={})
    path.write_bytes(b"".join(_lines(settings)[1:]))
    with pytest.raises(AuditLogError):
        verify(settings)


def test_the_lines_of_two_writers_that_died_are_not_both_excused(settings: Settings) -> None:
    lines = _filled(settings, 3)
    audit_log_file(settings).write_bytes(lines[0] + b"half\nanother half\n" + b"".join(lines[1:]))
    with pytest.raises(AuditLogError, match="more than one line that is no record, in line 3"):
        verify(settings)


def test_processes_and_threads_append_at_once_and_none_is_lost(settings: Settings) -> None:
    environment = {**os.environ, **environment_of(settings), "PYTHONPATH": str(REPOSITORY)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", APPENDER, name, "15"], env=environment, stderr=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    errors: list[BaseException] = []

    def append(name: str) -> None:
        try:
            for number in range(15):
                append_record(settings, kind="test", key=f"{name} {number}", what={}, who=name)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=append, args=(f"thread {number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        assert process.communicate(timeout=120)[1] == ""
        assert process.returncode == 0
    assert errors == []
    records = [json.loads(line) for line in _lines(settings)]
    writers = ["one", "two", "thread 0", "thread 1", "thread 2"]
    expected = {f"{name} {number}" for name in [*writers, "shared"] for number in range(15)}
    assert sorted(record["key"] for record in records) == sorted(expected)
    assert [record["sequence"] for record in records] == list(range(1, len(expected) + 1))
    assert verify(settings).sequence == len(expected)


def test_the_command_line_prints_the_last_record(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = json.loads(_filled(settings, 3)[-1])
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(settings.state_dir))
    assert audit_log.main([]) == 0
    assert json.loads(capsys.readouterr().out) == {"sequence": 3, "hash": last["hash"]}
