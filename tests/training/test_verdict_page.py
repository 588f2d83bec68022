"""The verdict's page says what the document says, and runs nothing."""

from __future__ import annotations

from airloop.training.verdict_page import page_of
from airloop.verdict import overridden
from tests.test_verdict import OVERRIDE, champion, slice_of, verdict_on


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


def test_it_names_the_test_of_chance_with_its_intervals_and_shares() -> None:
    page = page_of(verdict_on())
    assert "paired bootstrap over days, 1,000 resamples of\n28 days" in page
    assert "+0.0500 to +0.0900" in page
    assert "-0.0100 to +0.0200" in page
    assert "20.0%" in page
    assert "is not known: too few days" in page_of(verdict_on(ranges={}))


def test_it_shows_calibration_latency_and_size() -> None:
    page = page_of(verdict_on())
    assert page.count("<svg ") == 1
    assert "0.0900 to 0.1500" in page
    assert "1.5 MiB" in page
    assert "256 rows" in page
    bare = page_of(verdict_on(reliability=(), serving_cost=None))
    assert "<svg" not in bare
    assert bare.count("Not measured") == 2


def test_an_override_says_who_and_why_and_what_the_rules_said() -> None:
    page = page_of(overridden(verdict_on(champion=champion(roc_auc=0.80)), OVERRIDE), "model_card.html")
    assert ">overridden<" in page
    for said in (
        OVERRIDE.by,
        OVERRIDE.reason,
        OVERRIDE.at,
        "Record\n7 of the audit log",
        "What the rules said",
    ):
        assert said in page
    assert '<a href="model_card.html">' in page
