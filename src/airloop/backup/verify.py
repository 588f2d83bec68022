"""Job: every byte of a backup is what was written.

    python -m airloop.backup verify [--from PLACE] [--backup NAME]

Belongs here: reading all of it. Does not belong here: whether it fits a deployment (`restore`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final

from airloop.backup import BackupError
from airloop.backup.create import add_place, place_of
from airloop.backup.manifest import Manifest, read_manifest
from airloop.backup.place import Place, object_name
from airloop.jobs import run_job
from airloop.references import Reference
from airloop.settings import Settings

_AT_ONCE: Final = 8
CLOCKS_DIFFER: Final = timedelta(hours=1)
_SHOWN: Final = 5


class BackupVerified(Reference):
    """A backup whose every checksum holds."""

    name: str
    place: str
    seconds: float
    parts: int
    size_bytes: int
    read_bytes: int
    """Contents that several parts share are read once."""


def verify(place: Place, manifest: Manifest, *, only_new: bool = False) -> int:
    """Raises `BackupError` naming the parts of the backup whose contents are damaged or gone.

    With `only_new`, of those that an earlier backup has it only looks whether they are there. Returns the
    bytes that were read.
    """
    paths: dict[str, list[str]] = {}
    for part in manifest.parts:
        paths.setdefault(part.sha256, []).append(part.path)

    there = place.found("objects") if only_new else {}
    sizes = {part.sha256: part.size for part in manifest.parts}

    def is_old(sha256: str) -> bool:
        found = there.get(object_name(sha256))
        return (
            found is not None
            and found.size == sizes[sha256]
            and found.written < manifest.begun_at - CLOCKS_DIFFER
        )

    read = {sha256 for sha256 in paths if not is_old(sha256)}

    def problem(sha256: str) -> BackupError | None:
        if sha256 not in read:
            return None
        try:
            place.copy_object(sha256, _Nowhere())
        except BackupError as error:
            return error
        return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = [
            (error, paths[name]) for name, error in zip(paths, pool.map(problem, paths), strict=True) if error
        ]
    if not found:
        return sum(sizes[sha256] for sha256 in read)
    ((first, _), *_others) = found
    named = [path for _, damaged in found for path in damaged]
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    raise BackupError(
        expected=f"backup {manifest.name} as it was written: {first.expected}",
        found=f"{first.found}; damaged: {', '.join(named[:_SHOWN])}{more}",
        next_step=first.next_step,
    )


class _Nowhere:
    """What is written is gone."""

    def write(self, piece: bytes, /) -> None:
        """Take a piece."""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = argparse.ArgumentParser(
        prog="python -m airloop.backup verify", description="Check every byte of a backup."
    )
    add_place(parser, "--from")
    parser.add_argument("--backup", help="its name; by default the newest")
    parser.add_argument(
        "--only-new", choices=("true", "false"), default="false", help="not what earlier backups have"
    )

    def work(arguments: argparse.Namespace, settings: Settings) -> BackupVerified:
        started = time.monotonic()
        place = place_of(settings, arguments.place)
        manifest = read_manifest(place, arguments.backup)
        read = verify(place, manifest, only_new=arguments.only_new == "true")
        return BackupVerified(
            name=manifest.name,
            place=place.uri,
            seconds=round(time.monotonic() - started, 3),
            parts=len(manifest.parts),
            size_bytes=manifest.size,
            read_bytes=read,
        )

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
