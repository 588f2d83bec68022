"""How far a figure, or a difference of two models' figures, may be chance: bootstrap over blocks of time.

Belongs here: resampling whole blocks and the figures on a resample. Does not belong here: which figures a
verdict weighs, or thresholds (`airloop.verdict`).

Rows of one day share its weather, so single rows tell less than they seem to: days are drawn, not rows (a
cluster bootstrap; Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). Models
are compared on the same draws, which makes the comparison a paired one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from airloop.training.measures import scored
from airloop.use_cases.target import Target
from airloop.verdict import Range

RESAMPLES: Final = 1000
LEVEL: Final = 0.95
FEWEST_BLOCKS: Final = 5
"""With two days the low end is the worse day's figure, which says nothing of chance."""


def resampled(blocks: np.ndarray, seed: int, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """Weights of the rows for each resample: how often its block, a number in `blocks` [rows], was drawn."""
    random = np.random.default_rng(seed)
    _, block = np.unique(blocks, return_inverse=True)
    count = int(block.max()) + 1
    for _ in range(resamples):
        yield np.bincount(random.integers(0, count, count), minlength=count)[block].astype(np.float64)


def ranges(
    target: Target, models: Mapping[str, np.ndarray], labels: np.ndarray, blocks: np.ndarray, seed: int
) -> dict[str, Range]:
    """Ranges of each model's figures and of their differences from the first model's.

    `models` has answers [rows], or [rows, numbers of an answer], by name, the candidate's first. The names of
    the ranges are `<model>.<figure>`, and for the others `<figure>_over_<model>` (the first's minus the
    other's) or, of a figure that is better the less it is, `<figure>_under_<model>` (the other's minus the
    first's): above 0 the first is better. Those are of the figure that ranks models, and of the loss.
    Empty where there are fewer than `FEWEST_BLOCKS` blocks, one label only, or an answer that is not finite.
    """
    finite = all(np.isfinite(found).all() for found in models.values())
    if not finite or len(np.unique(blocks)) < FEWEST_BLOCKS or len(np.unique(labels)) < 2:
        return {}
    prepared = {name: scored(target, labels, found) for name, found in models.items()}
    compared = dict.fromkeys((target.figures[0], target.loss))
    first, *others = prepared
    drawn: dict[str, list[float]] = {}
    for weights in resampled(blocks, seed):
        figures = {name: model.figures(weights) for name, model in prepared.items()}
        for name, found in figures.items():
            for figure, value in found.items():
                drawn.setdefault(f"{name}.{figure}", []).append(value)
        ours = figures[first]
        for name in others:
            theirs = figures[name]
            for item in compared:
                gain = ours[item.name] - theirs[item.name]
                drawn.setdefault(f"{item.gain}_{name}", []).append(gain if item.higher_is_better else -gain)
    return {name: _range(np.array(values)) for name, values in drawn.items()}


def gain_range(gains: np.ndarray, blocks: np.ndarray, seed: int) -> Range | None:
    """The range of the mean of `gains` [rows]; None where there are too few of `blocks` [rows]."""
    found, block = np.unique(blocks, return_inverse=True)
    if not np.isfinite(gains).all() or len(found) < FEWEST_BLOCKS:
        return None
    sums, rows = np.bincount(block, gains), np.bincount(block)
    # A mean needs the blocks' sums alone, and not a weight for each row.
    means = [weights @ sums / (weights @ rows) for weights in resampled(np.arange(len(found)), seed)]
    return _range(np.array(means))


def _range(values: np.ndarray) -> Range:
    known = values[np.isfinite(values)]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Range(
        low=float(low), high=float(high), level=LEVEL, share_not_above_zero=float((known <= 0).mean())
    )
