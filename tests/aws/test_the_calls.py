"""The list of AWS calls that these tests make: written by them, and no other than the one that people read.

`UPDATE_CALLS=1 pytest tests/aws` writes it anew.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict

import pytest

from airloop.settings import REPOSITORY
from tests.aws.conftest import CALLS

PAGE = REPOSITORY / "docs" / "reference" / "aws-calls.md"
HEAD = """\
# AWS calls that are tested

Written by `tests/aws` (`UPDATE_CALLS=1` has them write it anew). Each call is made by the real client, boto3
or aiobotocore, which checks it against the service's model, and answered by moto's server on loopback.

| service | operation | made in |
|---|---|---|
"""
NAMED = 3
"""Tests of a row; of `PutObject` and the like there are many."""


def _page() -> str:
    made: dict[tuple[str, str], set[str]] = defaultdict(set)
    for service, operation, test in CALLS:
        made[service, operation].add(test.removesuffix(".py"))
    rows = []
    for (service, operation), tests in sorted(made.items()):
        names = [f"`{test.rpartition('::')[2]}`" for test in sorted(tests)]
        more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
        rows.append(f"| {service} | `{operation}` | {', '.join(names[:NAMED])}{more} |\n")
    return HEAD + "".join(rows)


def test_the_list_of_calls_is_what_the_tests_make(request: pytest.FixtureRequest) -> None:
    page = PAGE.read_text("utf-8") if PAGE.exists() else ""
    ran = {item.name.partition("[")[0] for item in request.session.items}
    if missing := set(re.findall(r"`(test_\w+)`", page)) - ran - {"test_the_calls"}:
        pytest.skip(f"a part of the tests ran: without {sorted(missing)[0]}")
    if os.environ.get("UPDATE_CALLS"):
        PAGE.write_text(_page(), "utf-8")
    assert PAGE.read_text("utf-8") == _page()
