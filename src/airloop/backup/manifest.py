"""What a backup consists of: a document that is written last, so that a backup is whole or is none.

Belongs here: the document's shape, writing it and reading it. Does not belong here: the contents that it
names (`place`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

from pydantic import ValidationError

from airloop.backup import BackupError
from airloop.backup.place import Place
from airloop.references import Reference

FORMAT: Final = 1
"""Of the document; a backup with another number is of another version of Airloop."""
_FOLDER: Final = "backups"
_SUFFIX: Final = ".json"


class Part(Reference):
    """Contents, and what they are called."""

    path: str
    """`database/...`, `state/...`, `warehouse/...`, `artifacts/...` or `secret/...`."""
    sha256: str
    size: int


class Database(Reference):
    """A database that was dumped."""

    kind: Literal["sqlite", "postgresql"]
    revision: str | None
    """Of its schema, where it keeps one (Alembic's)."""


class TablePointer(Reference):
    """An Iceberg table and the version of it that was copied."""

    name: str
    """`namespace.table`."""
    metadata_location: str
    is_copied: bool
    """Whether its files are in the backup; else they are where they were, or are made again."""


class Manifest(Reference):
    """One backup."""

    format: int
    name: str
    begun_at: datetime
    ended_at: datetime
    commit: str
    """Of Airloop."""
    state_dir: str
    warehouse: str
    """Iceberg's metadata and the model config name files by their whole paths."""
    databases: Mapping[str, Database]
    namespaces: Mapping[str, Mapping[str, str]]
    tables: tuple[TablePointer, ...]
    secrets: Literal["encrypted", "left out", "none"]
    left_out: tuple[str, ...] = ()
    """Secrets that the deployment had and that are not in the backup."""
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part.size for part in self.parts)


def write_manifest(place: Place, manifest: Manifest) -> None:
    """Make the backup one."""
    document = manifest.model_dump(mode="json")
    document["digest"] = _digest(document)
    place.write(f"{_FOLDER}/{manifest.name}{_SUFFIX}", json.dumps(document).encode())


def backup_names(place: Place, folder: str = _FOLDER) -> list[str]:
    """The backups of `place`, oldest first."""
    return sorted(
        name.removeprefix(f"{folder}/").removesuffix(_SUFFIX)
        for name in place.found(folder)
        if name.endswith(_SUFFIX)
    )


def read_manifest(place: Place, name: str | None = None, folder: str = _FOLDER) -> Manifest:
    """The backup `name`, by default the newest; raises `BackupError` when there is none or it is unusable."""
    if name is None:
        names = backup_names(place, folder)
        if not names:
            raise _unusable(place, "a backup", "none that was finished", "make one: make backup TO=...")
        name = names[-1]
    try:
        with place.read(f"{folder}/{name}{_SUFFIX}") as file:
            text = file.read()
    except FileNotFoundError:
        known = ", ".join(backup_names(place, folder)[-5:]) or "none"
        raise _unusable(place, f"a backup {name}", f"the newest are: {known}", "name one of these") from None
    try:
        document = json.loads(text)
        digest = document.pop("digest")
        found_format = document["format"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _changed(place, name, "something that is no manifest") from None
    if digest != _digest(document):
        raise _changed(place, name, "a document that was changed or cut off")
    if found_format != FORMAT:
        raise _unusable(
            place,
            f"backup {name} in the format {FORMAT}",
            f"the format {found_format}",
            "restore it with the version of Airloop that made it, or a newer one "
            f"(commit {document.get('commit', 'unknown')})",
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        raise _changed(place, name, f"{error.error_count()} unknown or missing fields") from None


def _digest(document: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _changed(place: Place, name: str, found: str) -> BackupError:
    return _unusable(place, f"backup {name} as it was written", found, "restore another backup")


def _unusable(place: Place, expected: str, found: str, next_step: str) -> BackupError:
    return BackupError(expected=f"{expected} in {place.uri}", found=found, next_step=next_step)
