"""What a job elsewhere wrote for the shared folder, from S3 into it.

Belongs here: where each file goes, and what the job's document says of it. Does not belong here: which
folders come home (`airloop.job_folder`).
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from airloop.job_folder import BROUGHT_HOME, FILES, JobFolder, Result
from airloop.settings import Settings


def bring_home(settings: Settings, folder: JobFolder) -> int:
    """Bring each file into the shared folder, whole, in the place of one that is there; returns how many.

    Files elsewhere than below a folder of `BROUGHT_HOME` are left where they are. Safe to repeat.
    """
    brought = 0
    for name in folder.names(FILES):
        target = _target(PurePosixPath(name).relative_to(FILES), folder.name)
        if target is None:
            continue
        path = settings.state_dir / target
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        folder.download(name, aside)
        aside.replace(path)
        brought += 1
    return brought


def _target(path: PurePosixPath, job: str) -> Path | None:
    if ".." in path.parts:
        return None
    for home in BROUGHT_HOME:
        if path.is_relative_to(home.folder):
            name = f"{path.stem}-{job}{path.suffix}" if home.is_renamed else path.name
            return Path(path.parent / name)
    return None


def as_at_home(settings: Settings, result: Result) -> dict[str, Any] | None:
    """The job's document, with our shared folder wherever it says its own."""
    names = {
        Path(result.state_dir).as_uri(): settings.state_dir.absolute().as_uri(),
        result.state_dir: str(settings.state_dir),
    }

    def told(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: told(item) for key, item in value.items()}
        if isinstance(value, list):
            return [told(item) for item in value]
        if isinstance(value, str):
            for theirs, ours in names.items():
                value = value.replace(theirs, ours)
        return value

    found: dict[str, Any] | None = told(result.document)
    return found
