"""The audit log: who had what done, in a file that is only ever appended to and shows when it was changed.

    python -m airloop.audit_log

Belongs here: appending and verifying records. Does not belong here: what deserves one. A record names no
subject in the clear; callers see to that.

One JSON document a line, in `<state>/audit_log/audit.jsonl`. Each record carries the hash of the one before
and its own, SHA-256 over everything else in it: a record that is altered, removed or put in between breaks
the chain. Records cut off at the end do not: compare the last hash with that of an earlier run (the task that
appended it returned it to Airflow), or ship the file elsewhere.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from airloop.errors import AirloopError
from airloop.jobs import run_job
from airloop.references import AuditEntry
from airloop.settings import Settings

BEGINNING: Final = "0" * 64
"""What the first record carries as the hash of the one before."""
_TORN: Final = "torn"


class AuditLogError(AirloopError):
    """The audit log is not as it was written."""


def audit_log_file(settings: Settings) -> Path:
    """Where the log is."""
    return settings.state_dir / "audit_log" / "audit.jsonl"


def append_record(
    settings: Settings, *, kind: str, key: str, what: Mapping[str, Any], who: str = "by-hand"
) -> AuditEntry:
    """Append one record and wait until it is on the disk.

    A record of the same `kind` and `key` that is there already is returned instead, so that a task can be
    repeated. Raises `AuditLogError` when the log was tampered with: nothing is appended to such a log.
    """
    path = audit_log_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        content = path.read_bytes()
        seen = list(_records(content, path))
        for there, _ in seen:
            if there is not None and (there["kind"], there["key"]) == (kind, key):
                return AuditEntry(sequence=there["sequence"], hash=there["hash"])
        last, torn = seen[-1] if seen else (None, None)
        record = {
            "sequence": last["sequence"] + 1 if last is not None else 1,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "who": who,
            "kind": kind,
            "key": key,
            "what": dict(what),
            "previous": last["hash"] if last is not None else BEGINNING,
            **({_TORN: torn} if torn is not None else {}),
        }
        record["hash"] = _hash(record)
        line = json.dumps(record, sort_keys=True).encode() + b"\n"
        # A writer may have died between a record and its line end, too.
        _write(descriptor, line if not content or content.endswith(b"\n") else b"\n" + line)
        return AuditEntry(sequence=int(str(record["sequence"])), hash=str(record["hash"]))
    finally:
        os.close(descriptor)


def verify(settings: Settings) -> AuditEntry:
    """The last record of a log whose chain holds; raises `AuditLogError` naming the line that breaks it.

    An empty log is sequence 0 with the hash `BEGINNING`.
    """
    path = audit_log_file(settings)
    seen = list(_records(path.read_bytes(), path)) if path.exists() else []
    last = seen[-1][0] if seen else None
    if last is None:
        return AuditEntry(sequence=0, hash=BEGINNING)
    return AuditEntry(sequence=last["sequence"], hash=last["hash"])


def records(settings: Settings) -> tuple[dict[str, Any], ...]:
    """Every record, oldest first, of a log whose chain holds; raises `AuditLogError` as `verify` does."""
    path = audit_log_file(settings)
    content = path.read_bytes() if path.exists() else b""
    return tuple(record for record, torn in _records(content, path) if record is not None and torn is None)


def entries_of(content: bytes) -> tuple[dict[str, Any], ...]:
    """Every record of a copy of a log; raises `AuditLogError` as `verify` does."""
    copy = Path("(a copy)")
    return tuple(record for record, torn in _records(content, copy) if record is not None and torn is None)


def _records(content: bytes, path: Path) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    """The log's records, each checked against the one before; and the hash of a last, half-written line.

    A writer that dies leaves half a line, which the next record owns up to by its hash.
    """
    last: dict[str, Any] | None = None
    torn: str | None = None
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line:
            continue
        try:
            record = json.loads(line)
            good = record["hash"] == _hash({k: v for k, v in record.items() if k != "hash"})
        except (ValueError, KeyError, TypeError):
            if torn is not None:
                raise _broken(path, number, "more than one line that is no record") from None
            torn = hashlib.sha256(line).hexdigest()
            continue
        expected = (last["sequence"] + 1, last["hash"]) if last is not None else (1, BEGINNING)
        if not good:
            raise _broken(path, number, "a record whose hash is not its own")
        if (record.get("sequence"), record.get("previous")) != expected:
            raise _broken(path, number, "a record that does not follow the one before")
        if record.get(_TORN) != torn:
            raise _broken(path, number - 1, "a line that is no record, and that no record owns up to")
        last, torn = record, None
        yield last, None
    if torn is not None:
        if content.endswith(b"\n"):
            raise _broken(path, content.count(b"\n"), "a line that is no record")
        yield last, torn


def _hash(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _broken(path: Path, line: int, found: str) -> AuditLogError:
    return AuditLogError(
        expected=f"the audit log {path} as it was written",
        found=f"{found}, in line {line}",
        next_step="find out who changed it; keep the file, and move it aside to begin a new one",
    )


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: verify the log."""
    parser = argparse.ArgumentParser(description="Verify the audit log; the result is its last record.")

    def work(arguments: argparse.Namespace, settings: Settings) -> AuditEntry:
        return verify(settings)

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
