"""Writes the files of a new use case; nothing that is there is touched.

Belongs here: which files, and where. Does not belong here: what is in them (`templates/`).
"""

from __future__ import annotations

import keyword
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from airloop.errors import SourceError, SpecError
from airloop.intervals import ONE_DAY, Interval
from airloop.scaffold.columns import CsvTable
from airloop.scaffold.sample import sample_csv
from airloop.settings import REPOSITORY, Settings
from airloop.sources.catalogue import adapter_class
from airloop.use_cases.spec import UseCase
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
MOST_JUDGED_DAYS: Final = 28


def require_free(name: str, repository: Path) -> None:
    """Raises `SpecError` where `name` cannot be a new use case's."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name) or keyword.iskeyword(name):
        raise SpecError(
            expected="a name of lower-case letters, digits and underscores, 31 at most, no word of Python's",
            found=repr(name),
            next_step="choose another with NAME=<name>",
        )
    there = [
        path for path in (file.format(name=name) for file in (*FILES, SAMPLE)) if (repository / path).exists()
    ]
    if there:
        raise SpecError(
            expected=f"no use case {name} yet",
            found=", ".join(there),
            next_step="choose another with NAME=<name>, or remove these files first",
        )


def write_use_case(name: str, table: CsvTable, repository: Path) -> list[Path]:
    """Write the files of use case `name`, of the events in `table`; returns their paths in the repository.

    They are tried before: the spec is read, and the file by the spec. Raises `SpecError` or `SourceError` for
    what does not hold; then nothing is written.
    """
    windows = _windows(table)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Python, not HTML
    )
    environment.filters["literal"] = repr
    csv = table.path.resolve()
    if csv.is_relative_to(repository.resolve()):
        csv = csv.relative_to(repository.resolve())
    texts = {
        repository / file.format(name=name): environment.get_template(template).render(
            name=name, table=table, csv=str(csv), windows=windows
        )
        for file, template in FILES.items()
    }
    _tried(next(iter(texts.values())), table, repository)
    for path, text in texts.items():
        write_whole(path, text)
    _formatted(list(texts))
    return [path.relative_to(repository) for path in texts]


def _tried(text: str, table: CsvTable, repository: Path) -> None:
    """Raises `SpecError` where the spec in `text` is none, `SourceError` where it cannot read the file."""
    if found := sorted(set("{}*?[]") & set(str(table.path))):
        raise SourceError(
            expected="a path without characters that stand for others in a source's path",
            found=f"{' '.join(found)} in {table.path}",
            next_step="rename the file",
        )
    module: dict[str, Any] = {}
    exec(compile(text, "the spec", "exec"), module)  # noqa: S102 - our own template
    spec: UseCase = module["USE_CASE"]
    (source,) = spec.sources
    (feed,) = source.feeds
    start, end = (datetime.combine(day, time(), UTC) for day in (table.first_day, table.last_day))
    settings = Settings(repository=repository.resolve())
    adapter = adapter_class(source.adapter)(settings, source.options, None)
    malformed = [
        one for piece in adapter.read(feed, Interval(start, end + ONE_DAY)) for one in piece.malformed
    ]
    if len(malformed) > source.max_malformed_share * table.rows:
        raise SourceError(
            expected=f"at most {source.max_malformed_share:.0%} of the rows of {table.path} to be malformed",
            found=f"{len(malformed)} of {table.rows}, such as: {malformed[0].reason} ({malformed[0].offset})",
            next_step="mend the file; NA or inf beside numbers, and line ends within a field, are no values",
        )


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
    judged = min(max(days // 6, 4), MOST_JUDGED_DAYS)
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
