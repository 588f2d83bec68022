"""The verdict's page says what the document says, and runs nothing."""

from __future__ import annotations

from airloop.training.verdict_page import page_of
from tests.test_verdict import champion, slice_of, verdict_on


def test_an_accepted_candidate_has_its_figures_ranges_rules_and_slices() -> None:
    verdict = verdict_on()
    page = page_of(verdict)
    assert ">accepted<" in page
    assert "Why it was rejected" not in page
    assert "0.7100" in page
    assert "champion (version 3)" in page
    for rule in verdict.rules:
        assert rule.name in page
    assert "colour=blue" in page


def test_a_rejected_one_says_why_first() -> None:
    page = page_of(verdict_on(champion=champion(roc_auc=0.80)))
    assert ">rejected<" in page
    assert page.index("Why it was rejected") < page.index("Figures on the test rows")
    assert "roc_auc_loss_to_champion: ROC AUC 0.7100, champion version 3 0.8000" in page
    assert page.count("FAILED") == 1


def test_what_was_not_measured_is_said_and_names_are_no_markup() -> None:
    page = page_of(verdict_on(baseline=None, slices=(slice_of("colour=<script>alert(1)</script>"),)))
    assert "n/a" in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
