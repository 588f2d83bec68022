"""The tutorial, typed by a machine: every command, every change, and what is shown of the output."""

from __future__ import annotations

import pytest

from airloop.settings import REPOSITORY
from tests.tutorial.checkout import Checkout, blocks_of, commands_of, unlike

TUTORIAL = REPOSITORY / "docs" / "tutorial.md"
WHOLE_LOOP = "make run "


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("home"))


def test_every_step_does_what_the_page_says(checkout: Checkout) -> None:
    ran = changed = 0
    for block in blocks_of(TUTORIAL):
        if block.kind == "diff":
            checkout.change(block.text)
            changed += 1
            continue
        for command, wanted in commands_of(block):
            if command.startswith(WHOLE_LOOP):
                continue
            printed = checkout.run(command)
            assert unlike(wanted, printed) == [], f"$ {command}\n{printed}"
            ran += 1
    assert (ran, changed) == (7, 4)


@pytest.mark.parametrize(
    ("file", "was", "becomes", "said"),
    [
        (
            "src/airloop/use_cases/{name}.py",
            "lookback=timedelta(days=8)",
            'lookback="a week"',
            ["lookback: ", "src/airloop/use_cases/{name}.py"],
        ),
        (
            "src/airloop/use_cases/{name}.py",
            'name="{name}",\n    # Who',
            'name="{name}"\n    # Who',
            ["src/airloop/use_cases/{name}.py to be a module", "SyntaxError", "line"],
        ),
        (
            "src/airloop/use_cases/{name}.py",
            'RequestField(name="plan"',
            'RequestField(name="tariff"',
            ["inputs: 'plan' is taken from 'plan', not a request field"],
        ),
        (
            "spark_jobs/transforms/{name}.py",
            'hour_known("ordered_at")',
            'hour_known("bought_at")',
            ["spark_jobs/transforms/{name}.py to run; found in line ", "bought_at", "Next: mend that line"],
        ),
        (
            "spark_jobs/transforms/{name}.py",
            '"ordered_at",\n            F.from_utc',
            "F.from_utc",
            ["spark_jobs.transforms.{name}.clean to yield {name}_events with its ordered_at"],
        ),
        (
            "spark_jobs/transforms/{name}.py",
            'F.count("*").over(week_after) == 0',
            'F.when(F.col("plan") == "pro", F.count("*").over(week_after) == 0)',
            ["expected stays_away to be 0 or 1; found None", "spark_jobs/transforms/{name}.py"],
        ),
        (
            "feature_repo/{name}.py",
            '"customer_id": ',
            '"customer": ',
            ["expected feature_repo.{name} to describe every entity", "customer_id"],
        ),
    ],
    ids=["field", "syntax", "name", "line", "time", "label", "entity"],
)
def test_what_is_wrong_is_named_with_its_file_and_its_mend(
    checkout: Checkout, request: pytest.FixtureRequest, file: str, was: str, becomes: str, said: list[str]
) -> None:
    name = f"wrong_{request.node.callspec.id}"
    assert "Written" in checkout.run(f"make new-use-case NAME={name}")
    path = checkout.folder / file.format(name=name)
    text = path.read_text("utf-8")
    was, becomes = was.replace("{name}", name), becomes.replace("{name}", name)
    assert text.count(was) == 1
    try:
        path.write_text(text.replace(was, becomes), "utf-8")
        printed = checkout.run(f"make try-use-case NAME={name}")
    finally:
        (checkout.folder / f"src/airloop/use_cases/{name}.py").unlink()
    last = [line for line in printed.splitlines() if line.startswith("try-use-case: ")]
    assert len(last) == 1, printed
    assert [part for part in said if part.replace("{name}", name) not in last[0]] == [], last[0]
