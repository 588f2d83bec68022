"""How a container gets its secrets as files: a shell writes them into memory, forgets them and becomes the
program.

Belongs here: the prelude's text. Does not belong here: which container gets which secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FOLDER: Final = "/dev/shm/airloop"  # noqa: S108 # in memory, of one container, for its user alone
"""In memory, also on Fargate, which has no other place in memory; writable for every user."""


def variable(name: str) -> str:
    """The variable that ECS puts the secret `name` in."""
    return "SECRET_" + name.upper().replace("/", "_").replace("-", "_")


def started(files: Mapping[str, str], logins: Mapping[str, str], run: str, *, host: str = "") -> list[str]:
    """`sh` that writes `files` (name: secret) and the passwords of `logins` (user: secret) on `host`, then
    `run`.

    A user's database has its name. libpq reads the password file, which PGPASSFILE names, for every driver.
    """
    lines = ["umask 077", f"mkdir -p {FOLDER}"]
    for name, secret in files.items():
        lines.append(f'printf %s "${variable(secret)}" > {FOLDER}/{name}')
    for user, secret in logins.items():
        lines.append(f"printf '%s:5432:*:{user}:%s\\n' '{host}' \"${variable(secret)}\" >> {FOLDER}/pgpass")
    used = dict.fromkeys(variable(secret) for secret in (*files.values(), *logins.values()))
    if used:
        lines.append(f"unset {' '.join(used)}")
    return ["sh", "-ec", "\n".join([*lines, f"exec {run}"])]
