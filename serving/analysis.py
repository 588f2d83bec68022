"""Whether a candidate may go on: what traffic suffers from it, beside the champion in the same minutes.

Belongs here: the guardrails and the quality rule, pure functions of what the prediction log says. Does not
belong here: reading the log (`serving.observations`), or acting on the outcome (`serving.stage`).

Each rule compares bounds, not points: a candidate is not given up for what chance does to two hundred
requests. Errors that are the model server's own (`down`) count for nobody.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np
from scipy.stats import binom, chi2, norm

from airloop.references import RolloutCheck
from airloop.row_losses import row_losses
from airloop.use_cases.rollout_policy import Guardrails
from airloop.use_cases.spec import UseCase
from airloop.use_cases.target import Target
from serving.sequential_test import confidence_sequence

CHANCE: Final = 0.001
"""How likely each guardrail may be to be breached by chance at one look; a rollout has tens of looks."""
BINS: Final = 10
"""Of the stability index: tenths of the champion's predictions."""


@dataclass(frozen=True)
class Arm:
    """What one version did with its requests."""

    errors: int
    """Requests without a usable answer, but for those where the model server was not there."""
    seconds: np.ndarray
    """The model server's time of each answered request, of one row or a batch, [requests - errors]."""
    numbers: np.ndarray
    """What stands for each answer (`airloop.prediction_log.answers.one_number`), [answers]."""
    lacking: int
    """Answers that were made without some feature."""

    @property
    def answers(self) -> int:
        """Usable answers, each row of a batch one."""
        return len(self.numbers)

    @property
    def answered(self) -> int:
        """Requests with usable answers, a batch one."""
        return len(self.seconds)

    @property
    def requests(self) -> int:
        """Requests with usable answers, and with none."""
        return self.answered + self.errors


@dataclass(frozen=True)
class Labelled:
    """Requests that both versions answered."""

    label: np.ndarray
    """NaN where the outcome is not known."""
    champion: np.ndarray
    """Its answers, [requests], or [requests, numbers of an answer] where these are several."""
    candidate: np.ndarray
    event: np.ndarray | None = None
    """A number for what each is about; by default, each is about something of its own."""

    @property
    def known(self) -> Labelled:
        """Those whose outcome is known."""
        known = np.isfinite(self.label)
        event = None if self.event is None else self.event[known]
        return Labelled(self.label[known], self.champion[known], self.candidate[known], event)

    @property
    def disagreement(self) -> float | None:
        """The mean absolute difference between the two."""
        return float(np.abs(self.candidate - self.champion).mean()) if len(self.champion) else None

    def by_event(self, values: np.ndarray) -> np.ndarray:
        """The mean of `values`, one for each request, over the requests about each event, [events].

        Requests about one event share its outcome: they are one observation, not several.
        """
        if self.event is None:
            return values
        _, codes = np.unique(self.event, return_inverse=True)
        means: np.ndarray = np.bincount(codes, values) / np.bincount(codes)
        return means

    @classmethod
    def none(cls) -> Self:
        """No such requests."""
        return cls(np.array([]), np.array([]), np.array([]))


def checks_of(spec: UseCase, champion: Arm, candidate: Arm, labelled: Labelled) -> tuple[RolloutCheck, ...]:
    """Every rule's finding."""
    return tuple(_checks(spec, champion, candidate, labelled))


def _checks(spec: UseCase, champion: Arm, candidate: Arm, labelled: Labelled) -> Iterator[RolloutCheck]:
    rules = spec.rollout.guardrails
    yield _error_rate(rules, champion, candidate)
    yield _latency(rules, champion, candidate, 0.5)
    yield _latency(rules, champion, candidate, 0.99)
    yield _prediction_shift(rules, champion, candidate)
    yield _missing_features(rules, champion, candidate)
    yield _quality(rules, spec.label.target, labelled)


def _error_rate(rules: Guardrails, champion: Arm, candidate: Arm) -> RolloutCheck:
    """An exact binomial test: are so many errors credible at the rate that is allowed?"""
    value = candidate.errors / candidate.requests if candidate.requests else None
    beside = champion.errors / champion.requests if champion.requests else None
    allowed = max(rules.max_error_rate, beside or 0.0)
    chance = float(binom.sf(candidate.errors - 1, candidate.requests, allowed)) if candidate.errors else 1.0
    return RolloutCheck(
        name="error_rate",
        value=value,
        champion=beside,
        threshold=allowed,
        requests=candidate.requests,
        outcome=_outcome(candidate.requests > 0, chance < CHANCE),
        detail=f"{candidate.errors} of {candidate.requests} requests without a usable answer",
    )


def _latency(rules: Guardrails, champion: Arm, candidate: Arm, share: float) -> RolloutCheck:
    """The lower bound of the candidate's percentile against what the champion's allows.

    The median beside the 99th: where both share processors, a slow candidate slows the champion's worst
    answers down too, and its own do not stand out any more.
    """
    value, low = _percentile(candidate.seconds, share)
    beside, _ = _percentile(champion.seconds, share)
    known = value is not None and beside is not None
    allowed = (
        max(beside * rules.max_latency_ratio, beside + rules.latency_slack_seconds)
        if beside is not None
        else None
    )
    return RolloutCheck(
        name=f"latency_p{100 * share:.0f}_seconds",
        value=value,
        champion=beside,
        threshold=allowed,
        low=low,
        requests=candidate.answered,
        outcome=_outcome(known, known and low is not None and allowed is not None and low > allowed),
        detail=f"{100 * share:.0f}th percentile of the model server's time",
    )


def _prediction_shift(rules: Guardrails, champion: Arm, candidate: Arm) -> RolloutCheck:
    """The population stability index, less what chance alone makes of so few predictions.

    Between two samples of one distribution it is distributed as chi-squared with one degree of freedom less
    than bins, times (1/n + 1/m) (Yurdakul, Statistical Properties of Population Stability Index, 2018).
    """
    n, m = champion.answers, candidate.answers
    known = min(n, m) >= 5 * BINS
    value = stability_index(champion.numbers, candidate.numbers) if known else None
    allowed = rules.max_population_stability_index
    if known:
        allowed += float(chi2.ppf(1 - CHANCE, BINS - 1)) * (1 / n + 1 / m)
    return RolloutCheck(
        name="prediction_shift",
        value=value,
        champion=0.0 if known else None,
        threshold=allowed,
        requests=m,
        outcome=_outcome(known, value is not None and value > allowed),
        detail="population stability index of its predictions against the champion's"
        + (f"; means {candidate.numbers.mean():.4f} and {champion.numbers.mean():.4f}" if known else ""),
    )


def stability_index(before: np.ndarray, after: np.ndarray, bins: int = BINS) -> float:
    """The population stability index between two samples, over `bins` equal parts of `before`.

    Half a count is added to each bin, so that an empty one is not infinitely far.
    """
    edges = np.unique(np.quantile(before, np.linspace(0, 1, bins + 1)[1:-1]))
    shares = []
    for sample in (before, after):
        counts = np.bincount(np.searchsorted(edges, sample, side="left"), minlength=len(edges) + 1) + 0.5
        shares.append(counts / counts.sum())
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))


def _missing_features(rules: Guardrails, champion: Arm, candidate: Arm) -> RolloutCheck:
    """The lower bound of the difference of two proportions (Wald's interval)."""
    known = champion.answers > 0 and candidate.answers > 0
    value = candidate.lacking / candidate.answers if candidate.answers else None
    beside = champion.lacking / champion.answers if champion.answers else None
    low = None
    if value is not None and beside is not None:
        spread = math.sqrt(value * (1 - value) / candidate.answers + beside * (1 - beside) / champion.answers)
        low = value - beside - float(norm.ppf(1 - CHANCE)) * spread
    return RolloutCheck(
        name="missing_feature_rate",
        value=value,
        champion=beside,
        threshold=(beside or 0.0) + rules.max_missing_rate_excess,
        low=None if low is None or beside is None else beside + low,
        requests=candidate.answers,
        outcome=_outcome(known, low is not None and low > rules.max_missing_rate_excess),
        detail="share of predictions that lack a feature",
    )


def _quality(rules: Guardrails, target: Target, labelled: Labelled) -> RolloutCheck:
    """A confidence sequence of the difference of losses on the same requests, by what they are about."""
    before = row_losses(target, labelled.label, labelled.champion)
    after = row_losses(target, labelled.label, labelled.candidate)
    losses = labelled.by_event(before)
    found = confidence_sequence(labelled.by_event(after - before))
    count = len(losses)
    known = count >= rules.min_labels
    return RolloutCheck(
        name=target.loss.lack,
        value=found.mean if count >= 2 else None,
        champion=float(losses.mean()) if count else None,
        threshold=rules.max_loss_excess,
        low=found.low if count >= 2 else None,
        high=found.high if count >= 2 else None,
        requests=count,
        outcome=_outcome(known, known and found.low > rules.max_loss_excess),
        detail=f"{target.loss.words} less the champion's, on {count} events whose outcome is known "
        f"({rules.min_labels} needed)",
    )


def _percentile(values: np.ndarray, share: float) -> tuple[float | None, float | None]:
    """The percentile and its lower bound, an order statistic (Conover, Practical Nonparametric Statistics,
    3.2)."""
    if not len(values):
        return None, None
    ordered = np.sort(values)
    place = int(binom.ppf(CHANCE, len(ordered), share)) - 1
    return float(np.quantile(ordered, share)), float(ordered[max(place, 0)]) if place >= 0 else 0.0


def _outcome(known: bool, breached: bool) -> Literal["passed", "breached", "unknown"]:
    if not known:
        return "unknown"
    return "breached" if breached else "passed"
