"""Sums over answers to numbers, quantiles and classes say what the answers themselves say, and add up."""

from __future__ import annotations

import numpy as np
import pytest

from airloop.baseline import overall
from airloop.monitoring.decay import quality
from airloop.monitoring.scores import Figures, Scoring, scoring_of
from airloop.monitoring.scores.sums import nothing
from airloop.row_losses import row_losses
from airloop.training.measures import measure
from airloop.use_cases.monitoring_policy import DecayRule
from airloop.use_cases.target import Multiclass, Quantiles, Regression, Target

ROWS = 5_000
CLASSES = Multiclass(classes=("a", "b", "c"))
TARGETS = [
    Regression(unit="minutes"),
    Regression(unit="minutes", estimates="median"),
    Quantiles(unit="minutes", levels=(0.1, 0.5, 0.9)),
    CLASSES,
]


def answers(
    target: Target, random: np.random.Generator, *, noise: float = 1.0, level: float = 0.0, rows: int = ROWS
) -> tuple[np.ndarray, np.ndarray]:
    """Answers that know a label but for `noise`, and the labels; `level` moves both."""
    known = random.normal(level, 2.0, rows)
    if target.kind == "multiclass":
        logits = np.stack([known, -known, np.zeros(rows)], axis=1)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        labels = (random.random(rows)[:, None] > shares.cumsum(axis=1)).sum(axis=1).astype(float)
        told = np.exp(logits / (1 + noise))
        return told / told.sum(axis=1, keepdims=True), labels
    labels = known + random.normal(0, 1.0, rows)
    told = known + random.normal(0, noise, rows)
    if target.kind == "quantiles":
        return told[:, None] + np.array([-1.28, 0.0, 1.28]), labels
    return told, labels


def scored(target: Target, told: np.ndarray, labels: np.ndarray, usual: tuple[float, ...]) -> Figures:
    scoring = scoring_of(target)
    return scoring.figures(scoring.scores_of(told, labels, usual))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: "_".join((target.kind, *target.answers)))
def test_figures_of_sums_are_those_of_the_answers(target: Target) -> None:
    told, labels = answers(target, np.random.default_rng(0))
    usual = overall(target, labels)
    found = scored(target, told, labels, usual)
    exact = measure(target, labels.astype(int) if target.kind == "multiclass" else labels, told)
    named = {name: value for name, value in found.named.items() if name != "skill"}
    assert named.keys() == {figure.name for figure in scoring_of(target).measured} - {"skill"}
    for name, value in named.items():
        assert value == pytest.approx(getattr(exact, name), rel=1e-6), name
    same = np.tile(usual, (ROWS, 1))
    loss = row_losses(target, labels, told)
    base = row_losses(target, labels, same if target.is_wide else same[:, 0])
    assert found.named["skill"] == pytest.approx(1 - loss.mean() / base.mean())
    assert scored(target, same if target.is_wide else same[:, 0], labels, usual).named["skill"] == (
        pytest.approx(0)
    )


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: "_".join((target.kind, *target.answers)))
def test_chance_is_as_large_as_it_is_said_to_be(target: Target) -> None:
    random = np.random.default_rng(1)
    usual = overall(target, answers(target, random)[1])
    found = [scored(target, *answers(target, random, rows=400), usual).tested[0] for _ in range(400)]
    said = np.mean([one.variance for one in found])
    assert np.var([one.value for one in found]) == pytest.approx(said, rel=0.25)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: "_".join((target.kind, *target.answers)))
def test_sums_of_parts_are_the_sums_of_the_whole_and_no_label_is_no_loss(target: Target) -> None:
    told, labels = answers(target, np.random.default_rng(2))
    labels[::7] = np.nan
    scoring: Scoring = scoring_of(target)
    usual = overall(target, labels[~np.isnan(labels)])
    whole, parts = scoring.scores_of(told, labels, usual), nothing(scoring)
    for start in range(0, ROWS, 900):
        parts = parts.plus(scoring.scores_of(told[start : start + 900], labels[start : start + 900], usual))
    assert tuple(whole.sums) == scoring.sums
    for name, sums in whole.sums.items():
        assert parts[name] == pytest.approx(sums)
    found = scoring.figures(whole)
    assert (found.answers, found.labelled) == (ROWS, int((~np.isnan(labels)).sum()))
    none = scoring.figures(scoring.scores_of(told, np.full(ROWS, np.nan), usual))
    assert (none.labelled, none.tested) == (0, ())


@pytest.mark.parametrize("target", [TARGETS[0], TARGETS[2]], ids=lambda target: target.kind)
def test_a_model_of_numbers_that_knows_less_than_it_knew_is_found(target: Target) -> None:
    random, rule = np.random.default_rng(3), DecayRule()
    usual = overall(target, answers(target, random)[1])

    def day(noise: float) -> Figures:
        told = answers(target, random, noise=noise, level=random.normal(0, 0.3), rows=900)
        return scored(target, *told, usual)

    days = [day(1.0) for _ in range(28)]
    assert np.mean([quality(day(1.0), days, rule).decayed for _ in range(200)]) < 0.03
    assert np.mean([quality(day(1.6), days, rule).decayed for _ in range(50)]) > 0.9
