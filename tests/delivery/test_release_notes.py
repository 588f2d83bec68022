"""Release notes come from the changelog; versions only rise; a tag that says otherwise releases nothing."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from airloop.delivery.release_notes import Version, check, cut, main, notes_of, releases
from airloop.errors import EXIT_PERMANENT, ReleaseError
from airloop.settings import REPOSITORY

PROJECT = '[project]\nname = "airloop"\nversion = "1.10.0"\n\n[tool.x]\nversion = "9.9.9"\n'
CHANGELOG = """# Changelog

## [Unreleased]

### Added

- More.

## [1.10.0] - 2026-11-20

### Fixed

- A fault.

## [1.9.0] - 2026-10-01

### Added

- The first.
"""


def test_the_notes_of_a_release_are_its_section() -> None:
    assert notes_of(CHANGELOG, "1.10.0") == "### Fixed\n\n- A fault."
    assert notes_of(CHANGELOG, "Unreleased") == "### Added\n\n- More."
    assert [release.on for release in releases(CHANGELOG)] == [None, date(2026, 11, 20), date(2026, 10, 1)]
    for version, found in (("1.8.0", "none"), ("1.10", "none")):
        with pytest.raises(ReleaseError, match=f"section of {version} in CHANGELOG.md; found {found}"):
            notes_of(CHANGELOG, version)
    with pytest.raises(ReleaseError, match="an empty section"):
        notes_of(CHANGELOG.replace("### Fixed\n\n- A fault.\n", ""), "1.10.0")


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("## [Unreleased]", "## [1.11.0] - 2026-12-01", "begin with ## .Unreleased"),
        ("2026-11-20", "20.11.2026", "found the date 20.11.2026"),
        (" - 2026-11-20", "", "found the date None"),
        ("1.9.0", "1.11.0", "newest first; found 1.10.0, 1.11.0"),
        ("1.9.0", "1.10.0", "newest first"),
        ("1.9.0", "1.9", "a semantic version such as 1.2.3; found '1.9'"),
        ("1.9.0", "1.09.0", "a semantic version"),
        ("### Fixed", "### Mended", "found Mended"),
    ],
)
def test_a_changelog_that_is_not_in_order_is_refused(old: str, new: str, found: str) -> None:
    with pytest.raises(ReleaseError, match=found):
        releases(CHANGELOG.replace(old, new))


def test_a_tag_must_say_what_the_project_says() -> None:
    check(CHANGELOG, PROJECT)
    check(CHANGELOG, PROJECT, "v1.10.0")
    for tag in ("v1.9.0", "1.10.0", "v1.10.0-rc1"):
        with pytest.raises(ReleaseError, match=f"to be v1.10.0, as pyproject.toml says; found {tag}"):
            check(CHANGELOG, PROJECT, tag)
    coming = PROJECT.replace("1.10.0", "1.11.0")
    check(CHANGELOG, coming)
    with pytest.raises(ReleaseError, match=r"section of 1\.11\.0 in CHANGELOG.md; found none"):
        check(CHANGELOG, coming, "v1.11.0")
    with pytest.raises(ReleaseError, match=r"version 1\.10\.0 or later in pyproject.toml; found 1\.9\.9"):
        check(CHANGELOG, PROJECT.replace("1.10.0", "1.9.9"))


def test_versions_compare_as_versions() -> None:
    assert Version.of("1.9.0") < Version.of("1.10.0") < Version.of("2.0.0")


def test_cutting_a_release_moves_what_is_unreleased_and_the_version(tmp_path: Path) -> None:
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    assert main(["cut", "1.11.0", "--date", "2026-12-01"], tmp_path) == 0
    changelog, project = (tmp_path / "CHANGELOG.md").read_text(), (tmp_path / "pyproject.toml").read_text()
    assert [(r.version, r.on) for r in releases(changelog)][:2] == [
        ("Unreleased", None),
        ("1.11.0", date(2026, 12, 1)),
    ]
    assert notes_of(changelog, "1.11.0") == "### Added\n\n- More."
    assert project == PROJECT.replace("1.10.0", "1.11.0")
    assert main(["check", "--tag", "v1.11.0"], tmp_path) == 0
    assert main(["cut", "1.12.0", "--date", "2026-12-02"], tmp_path) == EXIT_PERMANENT


@pytest.mark.parametrize("version", ["1.10.0", "1.9.5", "next"])
def test_only_a_later_version_can_be_cut(version: str) -> None:
    with pytest.raises(ReleaseError):
        cut(CHANGELOG, PROJECT, version, date(2026, 12, 1))


def test_the_projects_own_changelog_is_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert main(["show", "Unreleased"]) == 0
    assert "### " in capsys.readouterr().out
    assert (REPOSITORY / "CHANGELOG.md").read_text("utf-8").startswith("# Changelog\n")
