"""Which versions of a model are wanted: version policies, applied to the folders under a base path.

Belongs here: policies, and the reading of version folders. Does not belong here: loading, or the order in
which versions come and go (`transitions`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LARGEST_VERSION: Final = 2**63 - 1


@dataclass(frozen=True)
class Latest:
    """Serve the `count` highest version numbers."""

    count: int = 1


@dataclass(frozen=True)
class All:
    """Serve every version."""


@dataclass(frozen=True)
class Specific:
    """Serve exactly these versions, where they exist."""

    versions: frozenset[int]


VersionPolicy = Latest | All | Specific


def version_folders(base_path: Path) -> dict[int, Path]:
    """The version folders under `base_path`, by version number.

    Names that are not plain decimal numbers are ignored, so that a version can be staged under another name
    and renamed into place when it is complete.

    Raises FileNotFoundError (or another OSError) when `base_path` cannot be listed: a base path that is
    away for a moment must not look like one that is empty.
    """
    found: dict[int, Path] = {}
    with os.scandir(base_path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not (entry.name.isascii() and entry.name.isdigit() and entry.is_dir()):
                continue
            version = int(entry.name)
            if version <= _LARGEST_VERSION:
                found[version] = Path(entry.path)
    return found


def aspired(policy: VersionPolicy, folders: Mapping[int, Path]) -> dict[int, Path]:
    """The part of `folders` that `policy` wants served."""
    match policy:
        case Latest(count):
            wanted = set(sorted(folders, reverse=True)[: max(count, 1)])
        case All():
            wanted = set(folders)
        case Specific(versions):
            wanted = set(versions)
    return {version: path for version, path in folders.items() if version in wanted}
