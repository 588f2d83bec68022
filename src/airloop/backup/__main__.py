"""Backups and restoring, for people; `make backup` and `make restore` call this.

    python -m airloop.backup create|list|verify|restore|erasures ...

Belongs here: which command is which job, and listing. Does not belong here: the jobs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from airloop.backup import BackupError
from airloop.errors import EXIT_PERMANENT, AirloopError
from airloop.settings import load_settings

JOBS = ("create", "verify", "restore", "erasures")


def _list(argv: Sequence[str]) -> int:
    from airloop.backup.create import add_place, place_of
    from airloop.backup.manifest import backup_names, read_manifest

    parser = argparse.ArgumentParser(
        prog="python -m airloop.backup list", description="The backups of a place."
    )
    add_place(parser, "--from")
    arguments = parser.parse_args(argv)
    try:
        place = place_of(load_settings(), arguments.place)
    except AirloopError as error:
        print(error, file=sys.stderr)
        return EXIT_PERMANENT
    for name in backup_names(place):
        try:
            found = read_manifest(place, name)
        except BackupError as error:
            print(f"{name}  unusable: {error.found}")
            continue
        print(f"{name}  {found.size / 1e6:.1f} MB, {len(found.tables)} tables, commit {found.commit}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m airloop.backup", description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=(*JOBS, "list"))
    command = parser.parse_args(given[:1]).command
    if command == "list":
        return _list(given[1:])
    status: int = import_module(f"airloop.backup.{command}").main(given[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
