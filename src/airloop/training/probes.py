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
from airloop.verdict import Probe

PROBED_ROWS: Final = 5000
"""Rows that a behaviour is tried on at most, evenly spaced."""


def behaviours(use_case: UseCase, model: ServedModel, rows: Examples) -> Iterator[Probe]:
    """For each behaviour of the spec, by how much the mean probability moves when the rows are changed."""
    types = {item.name: item.type for item in use_case.inputs}
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
        moved = model.predict(after).astype(np.float64) - model.predict(before)
        yield Probe(
            name=wanted.name,
            value=float(moved.mean()),
            detail=f"the mean of {len(at)} rows moved by {moved.mean():+.4f}; "
            f"it rose in {(moved > 0).mean():.0%}",
        )


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
    """For each input how well it alone tells the labels of the later half of the rows: ROC AUC, 0.5 or more.

    A string is scored by its base rates in the earlier half. A number is scored by itself, either way up, and
    by whether it is missing: what is only written down once the outcome is known leaks by being there.
    """
    half = len(rows) // 2
    late = rows.labels[half:]
    if len(np.unique(late)) < 2:
        return
    for item in use_case.inputs:
        values = rows.columns[item.name]
        if item.type == "string":
            if not half:
                continue
            rates = baseline.fit((item.name,), take(rows.columns, np.arange(half)), rows.labels[:half])
            areas = [_area(late, rates.predict(take(rows.columns, np.arange(half, len(rows)))))]
        else:
            known = np.isfinite(values) if item.type == "double" else values != 0
            areas = [_area(late, known[half:])]
            positives = int(late[known[half:]].sum())
            # A few rows are told apart by anything.
            if min(positives, int(known[half:].sum()) - positives) >= use_case.gates.min_slice_rows:
                areas.append(_area(late[known[half:]], values[half:][known[half:]]))
        yield Probe(name=item.name, value=max(areas), detail=f"ROC AUC {max(areas):.3f} alone")
    # The model is given these too: an instant of the outcome's tells nothing before another is taken off.
    for span in use_case.elapsed:
        hours = elapsed_hours(rows.columns[span.since], rows.columns[span.until])[half:]
        known = np.isfinite(hours)
        positives = int(late[known].sum())
        if min(positives, int(known.sum()) - positives) >= use_case.gates.min_slice_rows:
            area = _area(late[known], hours[known])
            yield Probe(name=span.name, value=area, detail=f"ROC AUC {area:.3f} alone")


def _area(labels: np.ndarray, scores: np.ndarray) -> float:
    area = float(roc_auc_score(labels, scores))
    return max(area, 1 - area)
