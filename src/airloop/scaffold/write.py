"""Writes the files of a new use case; nothing that is there is touched.

Belongs here: which files, and where. Does not belong here: what is in them (`templates/`).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from airloop.errors import SourceError, SpecError
from airloop.scaffold.columns import CsvTable
from airloop.scaffold.sample import sample_csv
from airloop.settings import REPOSITORY
from airloop.whole_files import write_whole

TEMPLATES: Final = Path(__file__).parent / "templates"
FILES: Final[Mapping[str, str]] = {
    "src/airloop/use_cases/{name}.py": "spec.py.jinja",
    "spark_jobs/transforms/{name}.py": "transform.py.jinja",
    "feature_repo/{name}.py": "features.py.jinja",
    "tests/use_cases/test_{name}.py": "test.py.jinja",
}
"""The template of each file, by its path in the repository."""
SAMPLE: Final = "tests/use_cases/{name}.csv"
HISTORY_DAYS: Final = 15
"""The lookback of the spec that is written, and the time until its labels are known."""
LEAST_DAYS: Final = 15
MOST_TRAIN_DAYS: Final = 119


def require_free(name: str, repository: Path) -> None:
    """Raises `SpecError` where `name` cannot be a new use case's."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name):
        raise SpecError(
            expected="a name of lower-case letters, digits and underscores, 31 at most",
            found=repr(name),
            next_step="choose another with NAME=<name>",
        )
    there = [path for path in (file.format(name=name) for file in FILES) if (repository / path).exists()]
    if there:
        raise SpecError(
            expected=f"no use case {name} yet",
            found=", ".join(there),
            next_step="choose another with NAME=<name>, or remove these files first",
        )


def write_use_case(name: str, table: CsvTable, repository: Path) -> list[Path]:
    """Write the files of use case `name`, of the events in `table`; returns their paths in the repository.

    Raises `SpecError` as `require_free` does; then nothing is written.
    """
    require_free(name, repository)
    windows = _windows(table)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Python, not HTML
    )
    csv = table.path.resolve()
    if csv.is_relative_to(repository.resolve()):
        csv = csv.relative_to(repository.resolve())
    texts = {
        repository / file.format(name=name): environment.get_template(template).render(
            name=name, table=table, csv=str(csv), windows=windows
        )
        for file, template in FILES.items()
    }
    for path, text in texts.items():
        write_whole(path, text)
    _formatted(list(texts))
    return [path.relative_to(repository) for path in texts]


def write_sample(name: str, last_day: date, repository: Path) -> Path:
    """Write the built-in sample, up to the end of `last_day`, for use case `name`; returns its path."""
    path = repository / SAMPLE.format(name=name)
    write_whole(path, sample_csv(last_day))
    return path


def _windows(table: CsvTable) -> dict[str, int]:
    days = (table.last_day - table.first_day).days + 1 - HISTORY_DAYS
    if days < LEAST_DAYS:
        raise SourceError(
            expected=f"events of {HISTORY_DAYS + LEAST_DAYS} days or more in {table.path}: {HISTORY_DAYS} of "
            f"them for features of the first and labels of the last",
            found=f"{days + HISTORY_DAYS}, from {table.first_day} to {table.last_day}",
            next_step="name a file of more days with CSV=<path>, or begin with the sample, without CSV",
        )
    judged = max(days // 6, 4)
    return {"train": min(days - 2 * judged, MOST_TRAIN_DAYS), "validation": judged, "test": judged}


def _formatted(paths: Sequence[Path]) -> None:
    """Have ruff lay the files out, where it is installed: not in production."""
    config = ("--config", str(REPOSITORY / "pyproject.toml"))
    for command in (("check", "--quiet", "--fix", "--exit-zero"), ("format", "--quiet")):
        subprocess.run(  # noqa: S603 - our own files
            [sys.executable, "-m", "ruff", *command, *config, *map(str, paths)],
            check=False,
            capture_output=True,
        )
