"""Job: the list of the erased, and the audit log, kept beside the backups; and what a restore makes of them.

    python -m airloop.backup erasures [--to PLACE]

Belongs here: that a restored deployment brings nobody back. Does not belong here: erasing
(`spark_jobs.erasure`) or the list as ingestion uses it (`airloop.erasure.suppression`).

A backup knows only the erasures of its time. Those made since are in the newest list, which every backup and
every erasure keeps in the place; it comes before the backup's own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence

from airloop.audit_log import entries_of
from airloop.backup import BackupError
from airloop.backup.create import Skipped, add_place, keep_erasures, place_of
from airloop.jobs import run_job
from airloop.references import Reference
from airloop.settings import Settings

PROVED = "erasure proved"
"""The audit log's kind of record of an erasure that is done."""


class ErasuresKept(Reference):
    """The newest lists are beside the backups."""

    place: str
    files: int


class ErasureToRepeat(Reference):
    """A subject that is, or may be, in the restored tables though it was erased."""

    digest: str
    column: str
    reason: str | None
    """Why it was asked for, such as a ticket that names the subject; None where no record says."""
    use_case: str | None


def merged_list(texts: Iterable[bytes]) -> bytes:
    """Every whole entry of several lists, each once."""
    lines: dict[bytes, None] = {}
    for text in texts:
        for line in text.splitlines():
            try:
                json.loads(line)["digest"]
            except (ValueError, KeyError, TypeError):
                continue
            lines[line] = None
    return b"".join(line + b"\n" for line in lines)


def longest_log(logs: Sequence[bytes]) -> bytes:
    """Of several states of one audit log the latest; raises `BackupError` when they are of different logs."""
    *shorter, longest = sorted(logs, key=len) or [b""]
    for log in shorter:
        # Its last line may be half a record, of a writer that was copied in the act.
        whole = log[: log.rfind(b"\n") + 1]
        if not longest.startswith(whole):
            raise BackupError(
                expected="the newer audit log to go on where the backup's ends",
                found="another beginning",
                next_step="find out who changed which; pass the right one with --audit-log, or restore "
                "another backup",
            )
    return longest


def to_repeat(erased: bytes, log_then: bytes, log_now: bytes) -> Iterator[ErasureToRepeat]:
    """The entries of `erased` that the tables of a backup, whose audit log was `log_then`, may hold."""
    proved = {record["what"]["subject"] for record in entries_of(log_then) if record["kind"] == PROVED}
    told = {
        record["what"]["subject"]: record["what"]
        for record in entries_of(log_now)
        if record["kind"] == PROVED
    }
    for line in erased.splitlines():
        entry = json.loads(line)
        if entry["digest"] not in proved:
            what = told.get(entry["digest"], {})
            yield ErasureToRepeat(
                digest=entry["digest"],
                column=entry["column"],
                reason=what.get("reason"),
                use_case=what.get("use_case"),
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = argparse.ArgumentParser(
        prog="python -m airloop.backup erasures",
        description="Keep the list of the erased beside the backups.",
    )
    add_place(parser, "--to")

    def work(arguments: argparse.Namespace, settings: Settings) -> Reference:
        if not (arguments.place or settings.backup_uri):
            return Skipped(skipped="AIRLOOP_BACKUP_URI names no place, so no backups are made")
        place = place_of(settings, arguments.place)
        return ErasuresKept(place=place.uri, files=keep_erasures(settings, place))

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
