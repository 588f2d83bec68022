"""The documentation as a site: it is built, its lists are there, and a link that leads nowhere fails it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from airloop.settings import REPOSITORY

LINK = re.compile(r"\]\(([^)\s]+)\)")


def build(repository: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--clean", "--site-dir", str(site)],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    done = build(REPOSITORY, site)
    assert done.returncode == 0, done.stderr
    return site


@pytest.mark.parametrize(
    ("page", "parts"),
    [
        ("reference/use-case.html", ["max_slice_loss_excess_over_baseline", "How much history before its"]),
        ("reference/make.html", ["make new-use-case", "the whole loop of USE_CASE"]),
        ("reference/metrics.html", ["airloop_gateway_requests_total", ":tensorflow:serving:request_count"]),
        ("adr/index.html", ["0001-months-as-partitions.html"]),
        ("runbooks/index.html", ["drift.html"]),
    ],
)
def test_what_is_made_from_the_code_is_on_its_page(site: Path, page: str, parts: list[str]) -> None:
    text = (site / page).read_text("utf-8")
    assert [part for part in parts if part not in text] == []


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("how-to/none.md", "none.md"),
        ("tutorial.md#no-such-step", "no-such-step"),
        ("../src/airloop/none.py", "src/airloop/none.py"),
    ],
)
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path, link: str, said: str) -> None:
    repository = tmp_path / "repository"
    (repository / "scripts").mkdir(parents=True)
    shutil.copytree(REPOSITORY / "docs", repository / "docs")
    shutil.copy(REPOSITORY / "scripts" / "docs_site.py", repository / "scripts")
    for name in ("mkdocs.yml", "README.md", "Makefile"):
        shutil.copy(REPOSITORY / name, repository)
    for name in ("src", "plugins", "serving"):
        shutil.copytree(REPOSITORY / name, repository / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (repository / "docs" / "index.md").open("a", encoding="utf-8") as page:
        page.write(f"\n[There]({link})\n")
    done = build(repository, tmp_path / "site")
    assert done.returncode != 0
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_links_of_the_pages_outside_the_site_lead_somewhere(name: str) -> None:
    links = [found.partition("#")[0] for found in LINK.findall((REPOSITORY / name).read_text("utf-8"))]
    files = [link for link in links if link and "://" not in link]
    assert files
    assert [link for link in files if not (REPOSITORY / link).exists()] == []
