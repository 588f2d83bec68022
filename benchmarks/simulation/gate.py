"""The verdict on a candidate: whether it may take the champion's place.

Belongs here: measuring both on the candidate's test window, as `airloop.training.evaluate` does. Does not
belong here: the rules (`airloop.verdict`). The size and the latency of a SavedModel are not measured, for
there is none: those two rules are left out, all others decide; ranges are made from sums by day.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from airloop import baseline
from airloop.references import TrainingSet
from airloop.row_losses import log_losses
from airloop.training.bootstrap import LEVEL, RESAMPLES, gain_range, resampled
from airloop.training.examples import SECONDS_PER_DAY
from airloop.training.measures.binary import measure
from airloop.training.slices import slices_of
from airloop.verdict import Champion, Range, Resampling, SliceMeasures, judge
from benchmarks.simulation.candidates import Candidate
from benchmarks.simulation.year import Year

CELLS: Final = 1000
"""Of equally many answers, within which ROC AUC takes answers for equal when days are resampled."""
NOT_MEASURED: Final = ("model_mebibytes", "single_row_p99_milliseconds")


def failed_rules(year: Year, candidate: Candidate, champion: Candidate | None) -> tuple[str, ...]:
    """The rules that `candidate` fails, with their reasons; none: it is accepted."""
    spec, splits = year.spec, year.splits(candidate.as_of)
    train, test = year.examples(splits["train"]), year.examples(splits["test"])
    rates = baseline.fit(spec.label.target, spec.gates.baseline, train.columns, train.labels).predict(
        test.columns
    )
    ours, labels = candidate.of(splits["test"]), test.labels
    found = {"candidate": ours, "baseline": rates}
    theirs = None
    if champion is not None:
        found["champion"] = champion.of(splits["test"])
        theirs = Champion(version=1, measures=measure(labels, found["champion"]))
    days = test.columns[spec.event_field] // SECONDS_PER_DAY
    slices = []
    for part in slices_of(spec, test.columns):
        rows = part.rows
        gains = log_losses(labels[rows], rates[rows]) - log_losses(labels[rows], ours[rows])
        slices.append(
            SliceMeasures(
                name=part.name,
                candidate=measure(labels[rows], ours[rows]),
                baseline=measure(labels[rows], rates[rows]),
                gain=gain_range(gains, days[rows], spec.training.seed),
            )
        )
    verdict = judge(
        use_case=spec.name,
        target=spec.label.target,
        gates=spec.gates,
        run_id=candidate.profile.run_id,
        training_set=TrainingSet(
            table="simulated",
            tag="simulated",
            snapshot_id=0,
            rows=sum(rows.stop - rows.start for rows in splits.values()),
            **{f"{name}_rows": rows.stop - rows.start for name, rows in splits.items()},
            as_of=candidate.as_of.isoformat(),
            sources=(),
        ),
        candidate=measure(labels, ours),
        baseline=measure(labels, rates),
        champion=theirs,
        ranges=ranges(found, labels, days, spec.training.seed),
        resampling=Resampling(blocks=len(np.unique(days)), resamples=RESAMPLES),
        slices=tuple(slices),
        behaviours=candidate.behaviours,
        leaks=candidate.leaks,
    )
    return tuple(f"{rule.name}: {rule.detail}" for rule in verdict.failed if rule.name not in NOT_MEASURED)


class KeptGate:
    """`failed_rules`, asked once for each pair of models and kept in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, year: Year, candidate: Candidate, champion: Candidate | None) -> tuple[str, ...]:
        """The rules that `candidate` fails."""
        against = f"{champion.as_of:%Y%m%d}" if champion else "none"
        file = self._folder / f"{candidate.as_of:%Y%m%d}_{against}.json"
        if not file.is_file():
            found = failed_rules(year, candidate, champion)
            file.with_suffix(".part").write_text(json.dumps(found), encoding="utf-8")
            file.with_suffix(".part").rename(file)
        return tuple(json.loads(file.read_text(encoding="utf-8")))


def ranges(
    models: Mapping[str, np.ndarray], labels: np.ndarray, blocks: np.ndarray, seed: int
) -> dict[str, Range]:
    """The ranges that the rules weigh, as `airloop.training.bootstrap.ranges` has them, of the same draws.

    Days' sums are drawn and not their rows: 1,000 draws would take as long as one of these trainings.
    """
    found, block = np.unique(blocks, return_inverse=True)
    weights = np.array(list(resampled(np.arange(len(found)), seed)))
    rows = weights @ np.bincount(block)
    areas = {name: _areas(weights, labels, answers, block) for name, answers in models.items()}
    losses = {
        name: weights @ np.bincount(block, log_losses(labels, answers)) / rows
        for name, answers in models.items()
    }
    first, *others = models
    return {
        **{f"roc_auc_over_{name}": _range(areas[first] - areas[name]) for name in others},
        **{f"log_loss_under_{name}": _range(losses[name] - losses[first]) for name in others},
    }


def _areas(weights: np.ndarray, labels: np.ndarray, answers: np.ndarray, block: np.ndarray) -> np.ndarray:
    """ROC AUC for each of `weights` [resamples, days], [resamples]."""
    cells = np.searchsorted(np.quantile(answers, np.linspace(0, 1, CELLS + 1)[1:-1]), answers)
    shape = (weights.shape[1], CELLS)
    above, below = (
        weights
        @ np.bincount((block * CELLS + cells)[labels == label], minlength=shape[0] * CELLS).reshape(shape)
        for label in (1, 0)
    )
    right = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
    areas: np.ndarray = right / (above.sum(axis=1) * below.sum(axis=1))
    return areas


def _range(values: np.ndarray) -> Range:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Range(
        low=float(low), high=float(high), level=LEVEL, share_not_above_zero=float((values <= 0).mean())
    )
