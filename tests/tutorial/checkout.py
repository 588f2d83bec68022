"""A checkout beside this one, whose files a test may change, with what `make setup` fetched for this one.

Belongs here: making it, and running the commands of a document in it. Does not belong here: any document.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from airloop.settings import REPOSITORY

_STATE = ".airloop"
_FENCED = re.compile(r"^```(console|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """What a document has between fences: commands with their output, or a change of a file."""

    kind: str
    text: str


def blocks_of(document: Path) -> list[Block]:
    """The `console` and `diff` blocks of `document`, in order."""
    return [Block(kind, text) for kind, text in _FENCED.findall(document.read_text("utf-8"))]


class Checkout:
    """The files of this repository in another folder."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self._home = folder, home
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split("\0")
        for name in filter(None, listed):
            if (REPOSITORY / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, folder / name)
        (folder / _STATE).mkdir()
        for item in ("jars", "venv", "tools", "bin"):
            if (REPOSITORY / _STATE / item).exists():
                (folder / _STATE / item).symlink_to((REPOSITORY / _STATE / item).resolve())

    def run(self, command: str) -> str:
        """What `command` prints, whether it succeeds or not."""
        # Set-up would have the environment, which is shared, look for this folder's modules.
        done = subprocess.run(
            ["bash", "-c", re.sub(r"^make ", "make -o setup ", command)],
            cwd=self.folder,
            env={
                # Of a make above this one, make would say so in what it prints.
                **{
                    name: value
                    for name, value in os.environ.items()
                    if not name.startswith(("AIRLOOP_", "MAKE", "MFLAGS"))
                },
                "HOME": str(self._home),
                "PYTHONPATH": os.pathsep.join(str(self.folder / part) for part in ("src", "plugins", "")),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        return done.stdout

    def change(self, diff: str) -> None:
        """Make the change: the lines without a sign and with a minus are found once, and replaced."""
        first, *lines = diff.splitlines()
        path = self.folder / first.removeprefix("--- ")
        before = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
        after = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
        text = path.read_text("utf-8")
        assert text.count(before) == 1, f"{path.name} has this {text.count(before)} times:\n{before}"
        path.write_text(text.replace(before, after), "utf-8")


def commands_of(block: Block) -> list[tuple[str, list[str]]]:
    """Each command of a `console` block, and the lines that it is to print."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line)
    return found


def unlike(wanted: list[str], printed: str) -> list[str]:
    """The lines of `wanted`, in which `…` stands for anything, that are not printed, in their order."""
    rest, missing = printed.splitlines(), []
    for line in wanted:
        form = re.compile(".*".join(map(re.escape, line.split("…"))))
        place = next((number for number, found in enumerate(rest) if form.fullmatch(found)), None)
        if place is None:
            missing.append(line)
        else:
            rest = rest[place + 1 :]
    return missing
