"""An environment with an image's dependency groups and nothing else, as production has it.

Belongs here: making it. Does not belong here: what is tried in it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from airloop.settings import REPOSITORY


def python_of(*groups: str) -> Path:
    """The Python of an environment with `groups` alone, made once per version of their locks."""
    folder = REPOSITORY / ".airloop" / "envs" / "-".join(groups)
    locks = [REPOSITORY / "requirements" / f"{group}.lock" for group in groups]
    python, stamp = folder / "bin" / "python", folder / "lock.sha256"
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()
    if not stamp.exists() or stamp.read_text("utf-8") != digest:
        uv = REPOSITORY / ".airloop" / "tools" / "bin" / "uv"
        make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder]
        sync = [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", python, *locks]
        for command in (make, sync):
            subprocess.run([str(part) for part in command], check=True, timeout=600)
        stamp.write_text(digest, encoding="utf-8")
    return python
