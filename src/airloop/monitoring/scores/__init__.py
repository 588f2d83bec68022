"""How good answers were, as sums that add up: by the hour, by slice, and by the label's kind.

Belongs here: which sums serve which kind. Does not belong here: joining answers to labels
(`spark_jobs.count_scores`), or what figures say (`airloop.monitoring.decay`).

sums      what the kinds have in common
binary    labels that are 1 or 0
losses    numbers, quantiles, one of several classes

Sums over rows are as small for a hundred million answers as for a hundred, and any longer window is a sum of
its hours.
"""

from __future__ import annotations

from airloop.monitoring.scores.binary import BinaryScoring
from airloop.monitoring.scores.losses import LossScoring
from airloop.monitoring.scores.sums import EVERYTHING, Figures, Scores, Scoring, Tested
from airloop.use_cases.target import Binary, Target

__all__ = ["EVERYTHING", "Figures", "Scores", "Scoring", "Tested", "scoring_of"]


def scoring_of(target: Target) -> Scoring:
    """How answers to labels of this kind are scored."""
    return BinaryScoring() if isinstance(target, Binary) else LossScoring(target)
