"""The changelog: what a release's notes are, whether they are in order, and cutting a release.

    python -m airloop.delivery.release_notes check [--tag v1.2.3]
    python -m airloop.delivery.release_notes show 1.2.3
    python -m airloop.delivery.release_notes cut 1.2.3 --date 2026-12-01

Belongs here: reading and changing `CHANGELOG.md` (Keep a Changelog) and the version in `pyproject.toml`, its
only place. Does not belong here: git, or publishing anything (`scripts/ci/`).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Final, NamedTuple

from airloop.errors import EXIT_PERMANENT, ReleaseError
from airloop.settings import REPOSITORY
from airloop.whole_files import write_whole

KINDS: Final = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
_HEADING: Final = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\S+))?$", re.MULTILINE)
_VERSION: Final = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
_UNRELEASED: Final = "Unreleased"
_IN_PROJECT: Final = re.compile(r'^(version = ")([^"]+)(")$', re.MULTILINE)


class Release(NamedTuple):
    """A section of the changelog."""

    version: str
    """`Unreleased` for what is to come."""
    on: date | None
    notes: str
    """Markdown, without the heading."""


class Version(NamedTuple):
    """A semantic version without a pre-release part; they compare as versions do."""

    major: int
    minor: int
    patch: int

    @classmethod
    def of(cls, text: str) -> Version:
        """Raises `ReleaseError` for what is none."""
        found = _VERSION.fullmatch(text)
        if found is None:
            raise _wrong("a semantic version such as 1.2.3", repr(text))
        return cls(*map(int, found.groups()))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def releases(changelog: str) -> list[Release]:
    """The sections, as they stand: what is unreleased, then the newest release first.

    Raises `ReleaseError` when the sections are not in order, or have headings that are none of `KINDS`.
    """
    headings = list(_HEADING.finditer(changelog))
    ends = [heading.start() for heading in headings[1:]] + [len(changelog)]
    found = [
        Release(
            heading["version"],
            _day(heading["version"], heading["date"]),
            changelog[heading.end() : end].strip(),
        )
        for heading, end in zip(headings, ends, strict=True)
    ]
    if not found or found[0].version != _UNRELEASED:
        raise _wrong("CHANGELOG.md to begin with ## [Unreleased]", found[0].version if found else "none")
    versions = [Version.of(release.version) for release in found[1:]]
    if versions != sorted(set(versions), reverse=True):
        raise _wrong("releases of CHANGELOG.md newest first", ", ".join(map(str, versions)))
    for release in found:
        strange = [
            kind for kind in re.findall(r"^### (.*)$", release.notes, re.MULTILINE) if kind not in KINDS
        ]
        if strange:
            raise _wrong(f"sections {', '.join(KINDS)} in {release.version}", ", ".join(strange))
    return found


def notes_of(changelog: str, version: str) -> str:
    """The notes of `version`; raises `ReleaseError` when there are none."""
    for release in releases(changelog):
        if release.version == version:
            if not release.notes:
                raise _wrong(f"notes of {version} in CHANGELOG.md", "an empty section")
            return release.notes
    raise _wrong(f"a section of {version} in CHANGELOG.md", "none")


def check(changelog: str, project: str, tag: str | None = None) -> None:
    """Raises `ReleaseError` unless changelog and version agree, and with `tag` if it is given.

    The version is that of the newest release, or of the one to come.
    """
    version = project_version(project)
    released = [Version.of(release.version) for release in releases(changelog)[1:]]
    if released and Version.of(version) < released[0]:
        raise _wrong(f"version {released[0]} or later in pyproject.toml", version)
    if tag is not None:
        if tag != f"v{version}":
            raise _wrong(f"the tag of a release to be v{version}, as pyproject.toml says", tag)
        notes_of(changelog, version)


def project_version(project: str) -> str:
    """The version that `pyproject.toml` states."""
    found = _IN_PROJECT.search(project)
    if found is None:
        raise _wrong("a version in pyproject.toml", "none")
    return found[2]


def cut(changelog: str, project: str, version: str, on: date) -> tuple[str, str]:
    """Changelog and project with what is unreleased as the release `version` of the day `on`.

    Raises `ReleaseError` when nothing is unreleased, or `version` is not beyond the newest release.
    """
    found = releases(changelog)
    if not found[0].notes:
        raise _wrong("something under ## [Unreleased]", "nothing")
    if len(found) > 1 and Version.of(version) <= Version.of(found[1].version):
        raise _wrong(f"a version beyond {found[1].version}", version)
    Version.of(version)
    heading = f"## [{_UNRELEASED}]\n\n## [{version}] - {on:%Y-%m-%d}"
    return (
        changelog.replace(f"## [{_UNRELEASED}]", heading, 1),
        _IN_PROJECT.sub(rf"\g<1>{version}\g<3>", project, count=1),
    )


def _day(version: str, text: str | None) -> date | None:
    if version == _UNRELEASED:
        return None
    try:
        return date.fromisoformat(text or "")
    except ValueError:
        raise _wrong(f"a heading like ## [{version}] - 2026-12-01", f"the date {text}") from None


def _wrong(expected: str, found: str) -> ReleaseError:
    return ReleaseError(
        expected=expected, found=found, next_step="correct it (docs/how-to/release-and-deploy.md)"
    )


def main(argv: Sequence[str] | None = None, folder: Path = REPOSITORY) -> int:
    """Command line; returns 0, or `EXIT_PERMANENT` when something is not in order."""
    parser = argparse.ArgumentParser(description="Release notes and versions.")
    commands = parser.add_subparsers(dest="command", required=True)
    checked = commands.add_parser("check", help="whether changelog and version agree")
    checked.add_argument("--tag", help="the release's tag, v1.2.3")
    shown = commands.add_parser("show", help="print the notes of a release")
    shown.add_argument("version", help="such as 1.2.3, or Unreleased")
    making = commands.add_parser("cut", help="make what is unreleased a release")
    making.add_argument("version", help="such as 1.2.3")
    making.add_argument("--date", type=date.fromisoformat, required=True, help="such as 2026-12-01")
    arguments = parser.parse_args(argv)
    changelog_file, project_file = folder / "CHANGELOG.md", folder / "pyproject.toml"
    changelog, project = changelog_file.read_text("utf-8"), project_file.read_text("utf-8")
    try:
        if arguments.command == "check":
            check(changelog, project, arguments.tag)
        elif arguments.command == "show":
            print(notes_of(changelog, arguments.version))
        else:
            changelog, project = cut(changelog, project, arguments.version, arguments.date)
            write_whole(changelog_file, changelog)
            write_whole(project_file, project)
    except ReleaseError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_PERMANENT
    return 0


if __name__ == "__main__":
    sys.exit(main())
