"""Questions whose answers are known before they are asked: of the candidate, and of its data.

Belongs here: changing rows and looking at what the model says then; how well single inputs tell the label.
Does not belong here: what follows from the answers (`airloop.verdict`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from sklearn.metrics import roc_auc_score

from airloop import baseline
from airloop.training.examples import Examples, take
from airloop.training.served_model import ServedModel
from airloop.training.statistics import SECONDS_PER_HOUR, elapsed_hours
from airloop.use_cases.gates import Behaviour
from airloop.use_cases.spec import UseCase
from airloop.use_cases.target import Binary, Regression, Target
from airloop.verdict import Probe

PROBED_ROWS: Final = 5000
"""Rows that a behaviour is tried on at most, evenly spaced."""
MEAN_BINS: Final = 20
_SHARES: Final = np.linspace(0, 1, MEAN_BINS + 1)[1:-1]
_ANY_NUMBER: Final = Regression(unit="any")


def behaviours(use_case: UseCase, model: ServedModel, rows: Examples) -> Iterator[Probe]:
    """For each behaviour of the spec, by how much the mean answer moves when the rows are changed.

    Of quantiles that is their mean, and of classes the mean number of the class, by their order in the spec.
    """
    types, target = {item.name: item.type for item in use_case.inputs}, use_case.label.target
    for wanted in use_case.gates.behaviours:
        at = np.flatnonzero(_concerned(wanted, types, rows))
        if not len(at):
            yield Probe(name=wanted.name, value=None, detail="no row has what is changed")
            continue
        at = np.unique(at[np.linspace(0, len(at) - 1, min(PROBED_ROWS, len(at))).round().astype(int)])
        before = take(rows.columns, at)
        after = dict(before)
        for name, change in wanted.changes.items():
            scale = 1 if types[name] == "double" else SECONDS_PER_HOUR
            after[name] = (before[name] + change * scale).astype(before[name].dtype)
        moved = _middle(target, model.predict(after)) - _middle(target, model.predict(before))
        yield Probe(
            name=wanted.name,
            value=float(moved.mean()),
            detail=f"the mean of {len(at)} rows moved by {moved.mean():+.4f}; "
            f"it rose in {(moved > 0).mean():.0%}",
        )


def _middle(target: Target, answers: np.ndarray) -> np.ndarray:
    found: np.ndarray = answers.astype(np.float64)
    if target.kind == "multiclass":
        return found @ np.arange(len(target.classes))
    return found.mean(axis=1) if target.is_wide else found


def _concerned(wanted: Behaviour, types: Mapping[str, str], rows: Examples) -> np.ndarray:
    """The rows that have every input that is changed, and lie where the behaviour is expected."""
    concerned = np.ones(len(rows), bool)
    for name in (*wanted.changes, *wanted.only):
        values = rows.columns[name]
        concerned &= np.isfinite(values) if types[name] == "double" else values != 0
    for name, (low, high) in wanted.only.items():
        values = rows.columns[name]
        if types[name] != "double":
            values = values / SECONDS_PER_HOUR % 24
        concerned &= (values >= low) & (values < high)
    return concerned


def single_inputs(use_case: UseCase, rows: Examples) -> Iterator[Probe]:
    """For each input how well it alone tells the labels of the later half of the rows.

    Of a label with classes that is ROC AUC, 0.5 or more, of the class that it tells best against the others.
    A string is scored by its base rates in the earlier half. A number is scored by itself, either way up, and
    by whether it is missing: what is only written down once the outcome is known leaks by being there. Of a
    label that is a number it is the share of its variance that the input's means in the earlier half explain,
    0 or more: by word, or by number in `MEAN_BINS` bins of equally many rows.
    """
    half = len(rows) // 2
    target, labels = use_case.label.target, rows.labels
    if not half or len(np.unique(labels[half:])) < 2:
        return
    least = use_case.gates.min_slice_rows
    for item in use_case.inputs:
        values = rows.columns[item.name]
        if item.type == "string":
            yield _probe(target, item.name, _by_words(target, values, labels, half))
        else:
            known = np.isfinite(values) if item.type == "double" else values != 0
            yield _probe(target, item.name, _by_number(target, values, known, labels, half, least))
    # The model is given these too: an instant of the outcome's tells nothing before another is taken off.
    for span in use_case.elapsed:
        hours = elapsed_hours(rows.columns[span.since], rows.columns[span.until])
        known = np.isfinite(hours)
        if target.has_classes and not _enough(target, labels[half:][known[half:]], least):
            continue
        # That it is missing is its instants' doing, which were probed for that.
        yield _probe(target, span.name, _by_number(target, hours, known, labels, half, least, alone=True))


def _probe(target: Target, name: str, told: float) -> Probe:
    words = f"ROC AUC {told:.3f}" if target.has_classes else f"{told:.1%} of the variance"
    return Probe(name=name, value=told, detail=f"{words} alone")


def _by_words(target: Target, words: np.ndarray, labels: np.ndarray, half: int) -> float:
    if not target.has_classes:
        return _explained(words, labels, half)
    early, late = {"word": words[:half]}, {"word": words[half:]}
    areas = []
    for truth in _one_against_others(target, labels):
        rates = baseline.fit(Binary(), ("word",), early, truth[:half])
        areas.append(_area(truth[half:], rates.predict(late)))
    return max(areas)


def _by_number(
    target: Target,
    values: np.ndarray,
    known: np.ndarray,
    labels: np.ndarray,
    half: int,
    least: int,
    *,
    alone: bool = False,
) -> float:
    """`least` rows of a class are needed for the values; `alone` leaves out whether they are known."""
    if not target.has_classes:
        if alone:
            values, labels = values[known], labels[known]
            half, known = int(np.count_nonzero(known[:half])), np.ones(len(values), bool)
        seen = values[:half][known[:half]]
        edges = np.unique(np.quantile(seen, _SHARES)) if len(seen) else np.empty(0)
        places = np.where(known, np.searchsorted(edges, np.where(known, values, 0)), -1)
        return _explained(places, labels, half)
    there, told = known[half:], [0.5]
    for truth in _one_against_others(target, labels):
        late = truth[half:]
        if not alone:
            told.append(_area(late, there))
        if _enough(Binary(), late[there], least):
            told.append(_area(late[there], values[half:][there]))
    return max(told)


def _enough(target: Target, labels: np.ndarray, least: int) -> bool:
    """Whether some class and the others have `least` rows: a few rows are told apart by anything."""
    positives = [int(truth.sum()) for truth in _one_against_others(target, labels)]
    return any(min(count, len(labels) - count) >= least for count in positives)


def _one_against_others(target: Target, labels: np.ndarray) -> Iterator[np.ndarray]:
    if target.kind != "multiclass":
        yield labels
        return
    for number in range(len(target.classes)):
        yield (labels == number).astype(np.int8)


def _explained(groups: np.ndarray, labels: np.ndarray, half: int) -> float:
    """The share of the later labels' variance that the earlier ones' means by group explain; 0 at least."""
    late = labels[half:].astype(np.float64)
    if not half or not late.size or not late.var():
        return 0.0
    means = baseline.fit(_ANY_NUMBER, ("group",), {"group": groups[:half]}, labels[:half])
    left = np.mean((late - means.predict({"group": groups[half:]})) ** 2)
    return max(0.0, float(1 - left / late.var()))


def _area(labels: np.ndarray, scores: np.ndarray) -> float:
    if not 0 < labels.sum() < len(labels):
        return 0.5
    area = float(roc_auc_score(labels, scores))
    return max(area, 1 - area)
