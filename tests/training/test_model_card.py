"""The model card of a real candidate says everything that a card must, in one file that loads nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

from airloop.registry import open_registry
from airloop.training.evaluate import evaluate
from airloop.training.model_card import CARD, WEAKEST, card_of, weakest_slices, windows
from airloop.training.publication import read_facts, read_verdict
from airloop.use_cases.gates import Behaviour, Slicing
from airloop.use_cases.spec import UseCase
from airloop.verdict import Verdict, overridden
from tests.test_verdict import OVERRIDE, champion, slice_of, verdict_on
from tests.training.conftest import Trained
from tests.training.planted import SPLITS

NOT_FOR = "anything with <b>people</b> & plants"


@dataclass(frozen=True)
class Card:
    """A card, and what it was made from."""

    page: str
    verdict: Verdict
    spec: UseCase


@pytest.fixture(scope="module")
def card(trained: Trained) -> Card:
    gates = trained.spec.gates.model_copy(
        update={
            "slices": (
                Slicing(name="colour", input="colour"),
                Slicing(name="hour", input="due_local", edges=(8, 16)),
                Slicing(name="heat", input="heat", edges=(10, 60)),
            ),
            "behaviours": (
                Behaviour(
                    name="hotter", changes={"heat": 15}, only={"heat": (70, 90)}, effect="rises", why="x"
                ),
            ),
        }
    )
    spec = trained.spec.model_copy(
        update={
            "gates": gates,
            "intended_use": "a gardener who decides whether to water",
            "not_for": (NOT_FOR,),
            "limits": ("it knows nothing of winter",),
        }
    )
    evaluate(trained.settings, spec, trained.training_set, trained.candidate)
    run_id = trained.candidate.run_id
    folder = trained.settings.reports_dir / "planted" / trained.training_set.tag
    return Card((folder / CARD).read_text(), read_verdict(trained.settings, run_id), spec)


def text_of(page: str) -> str:
    """What a person reads, without markup, in single spaces."""
    parts: list[str] = []
    parser = HTMLParser()
    parser.handle_data = parts.append  # type: ignore[method-assign]
    parser.feed(page)
    return re.sub(r"\s+", " ", " ".join(parts))


def test_a_card_says_what_the_model_is_for_and_who_owns_it(card: Card) -> None:
    text = text_of(card.page)
    for said in (
        "Model card: planted accepted",
        "owner tests",
        "a label that depends on colour, heat, hour and waiting time",
        "a gardener who decides whether to water",
        NOT_FOR,
        "it knows nothing of winter",
        "asked 2 hours before due",
        "known 1 hour after it was asked",
    ):
        assert said in text
    assert "<b>people</b>" not in card.page


def test_it_says_what_the_model_learnt_from(card: Card, trained: Trained) -> None:
    text = text_of(card.page)
    assert "train 2013-01-01T00:00+00:00 2013-01-28" in text
    labels = trained.rows["happened"].to_pylist()
    first = 0
    for split, rows in SPLITS.items():
        positives = sum(labels[first : first + rows])
        share = f"{100 * positives / rows:.1f}%"
        assert re.search(rf"{split} \S+ \S+ {rows:,} {positives:,} {share}", text)
        first += rows
    assert f"source clean.colours snapshot {trained.training_set.sources[0].snapshot_id}" in text
    assert trained.candidate.run_id in text
    assert "1111111111111111111111111111111111111111" in text
    assert "planted_v1" in text


def test_it_has_the_verdicts_figures_rules_slices_probes_and_costs(card: Card) -> None:
    text, verdict = text_of(card.page), card.verdict
    for measures in (verdict.candidate, verdict.baseline):
        assert measures is not None
        for value in measures.figures().values():
            assert f"{value:.4f}" in text
    for rule in verdict.rules:
        assert f"{rule.name} " in text
    for part in verdict.slices:
        assert part.name in text
    assert "paired bootstrap over days, 1,000 resamples of 1" in text
    assert "hotter heat +15 rises" in text
    assert "Leakage probe: " in text
    cost = verdict.serving_cost
    assert cost is not None
    assert f"{cost.single_row_p99_milliseconds:.2f}" in text
    assert f"{cost.mebibytes:.1f} MiB" in text
    assert "Expected calibration error" in text


def test_it_names_weak_slices_and_those_of_which_nothing_is_known(card: Card) -> None:
    text = text_of(card.page)
    weakest = weakest_slices(card.verdict)
    assert weakest
    section = text[text.index("Where it is weakest") : text.index("What it learnt from")]
    for weak in weakest:
        assert f"{weak.part.name} {weak.part.candidate.rows:,}" in section
    assert re.search(r"too few rows of one class: .*heat=-inf\.\.10", section)


def test_it_shows_what_the_model_pays_attention_to(card: Card) -> None:
    svgs = re.findall(r"<svg.*?</svg>", card.page, re.DOTALL)
    assert len(svgs) == 3
    reliability, overall, by_slice = (text_of(svg) for svg in svgs)
    assert "mean predicted probability" in reliability
    for item in card.spec.inputs:
        assert item.name in overall
    assert re.search(r"colour=red \(\d+\)", by_slice)


def test_it_is_one_file_without_scripts_and_without_anything_to_load(card: Card) -> None:
    loads = re.findall(r"<(?:script|link|img|iframe|object|embed|video|audio)\b|@import|src=", card.page)
    assert loads == []
    assert set(re.findall(r'(?:xlink:)?href="([^"#][^"]*)"', card.page)) == set()
    assert not re.search(r"url\((?!#)", card.page)


def test_the_same_facts_make_the_same_card_and_it_is_an_artifact(
    card: Card, trained: Trained, tmp_path: Path
) -> None:
    facts = read_facts(trained.settings, trained.candidate.run_id)
    assert card_of(card.spec, card.verdict, facts) == card.page
    path = open_registry(trained.settings).download_artifacts(trained.candidate.run_id, CARD, str(tmp_path))
    assert Path(path).read_text() == card.page


def test_the_verdicts_page_leads_to_it(trained: Trained, card: Card) -> None:
    page = trained.settings.reports_dir / "planted" / trained.training_set.tag / "verdict.html"
    assert '<a href="model_card.html">model card</a>' in page.read_text()


def test_an_override_is_on_the_card(card: Card, trained: Trained) -> None:
    facts = read_facts(trained.settings, trained.candidate.run_id)
    text = text_of(
        card_of(card.spec, overridden(verdict_on(champion=champion(roc_auc=0.8)), OVERRIDE), facts)
    )
    assert "Model card: planted overridden" in text
    assert f"Accepted by {OVERRIDE.by} in spite of the rules" in text
    assert OVERRIDE.reason in text


def test_what_nobody_wrote_down_is_said_to_be_missing(trained: Trained) -> None:
    facts = read_facts(trained.settings, trained.candidate.run_id).model_copy(
        update={"importance": None, "windows": ()}
    )
    bare = verdict_on(baseline=None, champion=None, slices=(), serving_cost=None, reliability=(), ranges={})
    text = text_of(card_of(trained.spec, bare, facts))
    for said in (
        "(intended_use)",
        "(not_for)",
        "(limits)",
        "Not explained.",
        "Not measured.",
        "could not be read",
        "no champion",
        "is not known: too few days",
    ):
        assert said in text


def test_the_weakest_slices_are_judged_ones_with_the_least_gain() -> None:
    losses = {"a": 0.42, "b": 0.44, "c": 0.30, "d": 0.41, "e": 0.40, "f": 0.39}
    slices = [slice_of(name, log_loss=loss) for name, loss in losses.items()]
    few = slice_of("few", log_loss=0.9, positives=5)
    weakest = weakest_slices(verdict_on(slices=(*slices, few, slice_of("unknown", log_loss=None))))
    assert [weak.part.name for weak in weakest] == ["b", "a", "d", "e", "f"][:WEAKEST]
    assert weakest[0].gain == pytest.approx(-0.01)


def test_a_split_that_cannot_be_read_is_left_out(trained: Trained) -> None:
    gone = trained.training_set.model_copy(update={"snapshot_id": 1})
    assert list(windows(trained.settings, trained.spec, gone)) == []
