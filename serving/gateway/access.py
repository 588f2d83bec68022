"""Who may do what: API keys with roles.

    python -m serving.gateway.access add --name web --role predict      (prints the key, once)
    python -m serving.gateway.access remove --name web

Belongs here: the keys' file, and the check of a request's key. Does not belong here: which role a route asks
for (`app`).

The file (`AIRLOOP_GATEWAY_KEYS`) has the SHA-256 of each key and not the key. That is enough because a key is
256 random bits: there is nothing to guess, and a slow hash would be a cost for every request. Without the
setting there are no keys, and whoever reaches the gateway may do everything; the local stack listens on
loopback only.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import secrets
import sys
import threading
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from airloop.errors import AirloopError, SettingsError
from airloop.settings import load_settings
from airloop.whole_files import write_whole

REREAD_SECONDS: Final = 1.0
ANYONE: Final = "anyone"
"""The name of every caller where there are no keys."""


class Role(StrEnum):
    """What a key allows."""

    PREDICT = "predict"
    """Predictions and explanations."""
    FEEDBACK = "feedback"
    """Labels that arrive from outside."""
    OPERATE = "operate"
    """Metrics, and what is routed where."""


class Key(BaseModel):
    """A key, as its file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    roles: frozenset[Role] = Field(min_length=1)


class Unknown(Exception):
    """The request has no key, or one that nobody was given."""


class NotAllowed(Exception):
    """The request's key is good, and not for this."""


_KEYS: Final = TypeAdapter(tuple[Key, ...])


class Access:
    """The keys in a file, read again when it changes; threads may share it."""

    def __init__(self, file: Path | None) -> None:
        """Read the file, if there is one; raises `SettingsError` when it cannot be read as keys."""
        self._file = file
        self._reading = threading.Lock()
        self._looked_at = time.monotonic()
        self._changed_at = file.stat().st_mtime_ns if file is not None and file.exists() else 0
        self._keys = read_keys(file) if file is not None else ()

    def name_of(self, presented: str | None, role: Role) -> str:
        """The name of the key `presented`, which must have `role`.

        Raises `Unknown` or `NotAllowed`. Takes as long for a wrong key as for a right one.
        """
        if self._file is None:
            return ANYONE
        digest = digest_of(presented or "")
        found: Key | None = None
        for key in self._current():
            if hmac.compare_digest(key.sha256, digest):
                found = key
        if found is None:
            raise Unknown
        if role not in found.roles:
            raise NotAllowed(found.name)
        return found.name

    def _current(self) -> tuple[Key, ...]:
        assert self._file is not None
        with self._reading:
            if time.monotonic() - self._looked_at > REREAD_SECONDS:
                self._looked_at = time.monotonic()
                try:
                    changed_at = self._file.stat().st_mtime_ns
                    if changed_at != self._changed_at:
                        self._keys, self._changed_at = read_keys(self._file), changed_at
                except (OSError, SettingsError):
                    # Nobody is let in by a file that is gone or broken.
                    self._keys, self._changed_at = (), 0
            return self._keys


def digest_of(key: str) -> str:
    """What the file has of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(file: Path) -> tuple[Key, ...]:
    """The keys in `file`; raises `SettingsError` when it is not there or is no list of keys."""
    try:
        keys = _KEYS.validate_json(file.read_bytes())
        problem = "" if len({key.name for key in keys}) == len(keys) else "a name twice"
    except OSError as error:
        problem = str(error.strerror)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        problem = f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
    if problem:
        raise SettingsError(
            expected=f"{file} (AIRLOOP_GATEWAY_KEYS) to be a list of API keys",
            found=problem,
            next_step="write it with python -m serving.gateway.access add --name NAME --role ROLE",
        )
    return keys


def add(file: Path, name: str, roles: Sequence[Role]) -> str:
    """Make a key for `name`, in place of the one it had, and write `file`; returns the key."""
    key = secrets.token_urlsafe(32)
    others = [other for other in (read_keys(file) if file.exists() else ()) if other.name != name]
    _write(file, [*others, Key(name=name, sha256=digest_of(key), roles=frozenset(roles))])
    return key


def remove(file: Path, name: str) -> bool:
    """Take the key of `name` away; whether there was one."""
    keys = read_keys(file)
    _write(file, [key for key in keys if key.name != name])
    return any(key.name == name for key in keys)


def _write(file: Path, keys: list[Key]) -> None:
    write_whole(file, _KEYS.dump_json(tuple(keys), indent=2).decode() + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m serving.gateway.access", description="API keys.")
    commands = parser.add_subparsers(dest="command", required=True)
    adding = commands.add_parser("add", help="make a key and print it; it cannot be shown again")
    removing = commands.add_parser("remove", help="take a key away")
    for command in (adding, removing):
        command.add_argument("--name", required=True, help="who uses it")
    adding.add_argument("--role", action="append", required=True, choices=[role.value for role in Role])
    arguments = parser.parse_args(argv)
    try:
        file = load_settings().gateway_keys
        if file is None:
            raise SettingsError(
                expected="AIRLOOP_GATEWAY_KEYS to name the file with the keys",
                found="nothing",
                next_step="set it to a path, for this command and for the gateway",
            )
        if arguments.command == "add":
            print(add(file, arguments.name, [Role(role) for role in arguments.role]))
        elif not remove(file, arguments.name):
            print(f"there is no key named {arguments.name!r} in {file}", file=sys.stderr)
            return 1
    except AirloopError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
