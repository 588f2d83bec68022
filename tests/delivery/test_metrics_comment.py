"""The comment on a change: its model beside main's, honest about what can be compared."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from airloop.delivery.metrics_comment import MARKER, comment_of, main
from airloop.errors import EXIT_PERMANENT
from airloop.use_cases.flight_delay import USE_CASE
from airloop.verdict import Override, SliceMeasures, Verdict
from tests.delivery.conftest import verdict_on

MAIN = verdict_on(USE_CASE, "1")


def measured(verdict: Verdict, **figures: float) -> Verdict:
    return verdict.model_copy(update={"candidate": verdict.candidate.model_copy(update=figures)})


def row(comment: str, title: str) -> list[str]:
    """The cells of the table's row with `title`."""
    (line,) = [line for line in comment.splitlines() if line.startswith(f"| {title} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


@pytest.mark.parametrize(
    ("figures", "title", "cells"),
    [
        ({"roc_auc": 0.73}, "ROC AUC", ["0.7200", "0.7300", "+0.0100 (better)", "0.6700"]),
        ({"roc_auc": 0.70}, "ROC AUC", ["0.7200", "0.7000", "-0.0200 (worse)", "0.6700"]),
        ({"log_loss": 0.40}, "log loss", ["0.4100", "0.4000", "-0.0100 (better)", "0.4400"]),
        ({"log_loss": 0.42}, "log loss", ["0.4100", "0.4200", "+0.0100 (worse)", "0.4400"]),
        ({"log_loss": 0.41001}, "log loss", ["0.4100", "0.4100", "as before", "0.4400"]),
        ({"log_loss": math.nan}, "log loss", ["0.4100", "-", "", "0.4400"]),
    ],
)
def test_better_and_worse_are_told_by_what_the_figure_means(
    figures: dict[str, float], title: str, cells: list[str]
) -> None:
    comment = comment_of(measured(MAIN, **figures), MAIN)
    assert comment.startswith(f"{MARKER}\n")
    assert row(comment, title) == cells
    assert "same 2,000 test rows of `as_of_20130603`" in comment


@pytest.mark.parametrize("update", [{"rows": 1999}, {"positives": 399}])
def test_other_rows_are_not_compared(update: dict[str, int]) -> None:
    comment = comment_of(measured(MAIN, roc_auc=0.9, **update), MAIN)
    assert "**Not comparable**" in comment
    assert "better" not in comment
    assert row(comment, "ROC AUC") == ["0.7200", "0.9000", "", "0.6700"]


def test_another_training_set_is_not_compared() -> None:
    training_set = MAIN.training_set.model_copy(update={"tag": "as_of_20130610"})
    comment = comment_of(MAIN.model_copy(update={"training_set": training_set}), MAIN)
    assert "main on 2,000 of `as_of_20130603`" in comment


def test_the_first_change_has_nothing_to_be_compared_with() -> None:
    comment = comment_of(MAIN, None, link="https://ci.example.org/7")
    assert "no verdict of main" in comment
    assert row(comment, "ROC AUC") == ["-", "0.7200", "", "0.6700"]
    assert "[The run that trained it](https://ci.example.org/7)" in comment


def test_a_rejection_names_its_rules_and_data_is_no_markup() -> None:
    rule = MAIN.rules[0].model_copy(
        update={"passed": False, "detail": "|x| <img> @all [a](b)\n# head", "slice": "carrier=*"}
    )
    comment = comment_of(MAIN.model_copy(update={"accepted": False, "rules": (rule,)}), MAIN)
    assert "**rejected** (0 of 1 rules)" in comment
    assert (
        r"- `roc_auc_gain_over_baseline` (carrier=\*): \|x\| &lt;img&gt; \@all \[a\]\(b\) \# head" in comment
    )
    override = Override(by="Ada", reason="storm", at="2026-11-25T08:00:00+00:00", rules=(), audit_record=1)
    assert "accepted by Ada in spite" in comment_of(MAIN.model_copy(update={"override": override}), MAIN)


def test_the_slices_that_moved_most_come_first() -> None:
    def with_slices(**log_losses: float) -> Verdict:
        slices = tuple(
            SliceMeasures(
                name=name,
                candidate=MAIN.candidate.model_copy(update={"log_loss": value}),
                baseline=None,
            )
            for name, value in log_losses.items()
        )
        return MAIN.model_copy(update={"slices": slices})

    before = with_slices(a=0.4, b=0.4, c=0.4, gone=0.4)
    comment = comment_of(with_slices(a=0.41, b=0.4, c=0.35, new=0.1), before)
    assert "2 moved" in comment
    assert row(comment, "c") == ["0.4000", "0.3500", "-0.0500 (better)"]
    assert comment.index("| c |") < comment.index("| a |")
    assert "| b |" not in comment


def test_the_command_line_prints_the_comment_or_says_which_file_is_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, before = tmp_path / "change.json", tmp_path / "main.json"
    change.write_text(measured(MAIN, roc_auc=0.73).model_dump_json())
    before.write_text(MAIN.model_dump_json())
    assert main(["--change", str(change), "--main", str(before)]) == 0
    assert capsys.readouterr().out == comment_of(measured(MAIN, roc_auc=0.73), MAIN)
    before.write_text("{}")
    assert main(["--change", str(change), "--main", str(before)]) == EXIT_PERMANENT
    assert f"expected a verdict document in {before}" in capsys.readouterr().err
