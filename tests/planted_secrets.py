"""Looks for secrets in every file that a run wrote: logs, databases, reports, tables, whatever there is.

Belongs here: the search. Does not belong here: which secrets a deployment has, or where one may stand.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

BLOCK_BYTES = 8 * 1024 * 1024


class Searched(NamedTuple):
    """What was searched, and where a secret was found: the secret's name and the file."""

    files: int
    bytes: int
    secrets: int
    found: tuple[tuple[str, str], ...]

    @property
    def line(self) -> str:
        """The result as one line of JSON."""
        return json.dumps({"secrets_grep": {**self._asdict(), "found": [list(one) for one in self.found]}})


def search(folder: Path, planted: Mapping[str, str], allowed: Mapping[str, Collection[str]]) -> Searched:
    """Search every file under `folder` for the `planted` secrets, given by their names.

    `allowed` has, for a secret's name, the files below `folder` that it may stand in. Found are a secret in
    the clear, in base64 (whatever stands before it), escaped as in an address or in JSON, and in gzip.
    """
    forms = {form: name for name, secret in planted.items() for form in _forms(secret)}
    pattern = re.compile(b"|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))
    longest = max(map(len, forms))
    files = total = 0
    found = set()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        files += 1
        place = path.relative_to(folder).as_posix()
        for block in _blocks(path, longest):
            total += len(block)
            for hit in pattern.finditer(block):
                name = forms[hit.group()]
                if place not in allowed.get(name, ()):
                    found.add((name, place))
    return Searched(files, total, len(planted), tuple(sorted(found)))


def _forms(secret: str) -> Iterator[bytes]:
    assert len(secret) >= 12, "a short text is found anywhere"
    plain = secret.encode()
    yield plain
    yield quote(secret, safe="").encode()
    yield json.dumps(secret)[1:-1].encode()
    for before in range(3):
        encoded = base64.b64encode(b"x" * before + plain)
        # The first and the last characters hang on what stands beside the secret.
        yield encoded[-(-before * 8 // 6) : len(encoded) - 4]
        yield base64.urlsafe_b64encode(b"x" * before + plain)[-(-before * 8 // 6) : len(encoded) - 4]


def _blocks(path: Path, overlap: int) -> Iterator[bytes]:
    """The file's bytes, what is compressed also as it was; each block begins with the end of the last."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            before = b""
            while block := file.read(BLOCK_BYTES):
                yield before + block
                before = block[-overlap:]
        if packed:
            yield gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        return
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return
