"""The threat model: each threat names a test or says that there is none, and every named test is there."""

from __future__ import annotations

import ast
import re

import pytest

from airloop.settings import REPOSITORY

DOCUMENT = (REPOSITORY / "docs" / "security.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCUMENT)))
THREATS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in DOCUMENT.splitlines()
    if re.match(r"\| T\d+ \|", line)
]


def test_there_are_threats_and_tests() -> None:
    assert len(THREATS) > 15
    assert len(NAMED) > 40
    assert [threat[0] for threat in THREATS] == [f"T{number}" for number in range(1, len(THREATS) + 1)]


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_named_test_is_there(file: str, name: str) -> None:
    tree = ast.parse((REPOSITORY / file).read_text("utf-8"))
    assert name in {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("threat", THREATS, ids=[threat[0] for threat in THREATS])
def test_a_threat_says_what_stops_it_which_test_holds_it_and_what_is_left(threat: list[str]) -> None:
    _, what, stops, tests, left = threat
    assert all((what, stops, left))
    assert "`tests/" in tests or tests.startswith("none:")


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", DOCUMENT))))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (REPOSITORY / "docs" / link).exists()
