"""A number, quantiles and classes through the same jobs: trained, judged, registered, with card and page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from airloop.training.evaluate import evaluate
from airloop.training.publication import read_verdict
from airloop.training.register import register
from airloop.training.train import train
from airloop.use_cases.gates import FigureGate, Slicing
from airloop.use_cases.spec import Label, UseCase
from airloop.use_cases.target import Multiclass, Quantiles, Regression, Target
from tests.training.conftest import COMMIT, settings_in
from tests.training.planted import planted_rows, planted_use_case, write_training_set

CLASSES = ("calm", "some", "wild")
KINDS: list[Target] = [
    Regression(unit="points"),
    Quantiles(unit="points", levels=(0.1, 0.5, 0.9)),
    Multiclass(classes=CLASSES),
]


def use_case_of(target: Target) -> UseCase:
    spec = planted_use_case()
    parameters = {**spec.training.parameters, "max_epochs": 8}
    del parameters["outcome_weight"]
    gates = spec.gates.model_copy(
        update={
            "figures": {target.figures[0].name: FigureGate(beyond_chance=True)},
            "slices": (Slicing(name="colour", input="colour"),),
        }
    )
    return spec.model_copy(
        update={
            "label": Label(
                name="label", description="", matures_after=spec.label.matures_after, target=target
            ),
            "training": spec.training.model_copy(update={"parameters": parameters}),
            "gates": gates,
        }
    )


def rows_of(target: Target) -> pa.Table:
    rows = planted_rows()
    intensity = rows["intensity"].to_numpy()
    if target.kind == "multiclass":
        label = pa.array(np.array(CLASSES, object)[np.digitize(intensity, [-1.5, 1.0])].tolist())
    else:
        label = pa.array(10 + 5 * intensity)
    return rows.drop_columns(["happened", "intensity"]).append_column("label", label)


@pytest.mark.parametrize("target", KINDS, ids=[target.kind for target in KINDS])
def test_what_is_learnt_beats_what_is_usual_and_is_registered(target: Target, tmp_path: Path) -> None:
    settings, spec = settings_in(tmp_path), use_case_of(target)
    training_set = write_training_set(settings, rows_of(target))
    candidate = train(settings, spec, training_set, COMMIT)
    evaluated = evaluate(settings, spec, training_set, candidate)
    assert evaluated.accepted, evaluated.failed
    verdict = read_verdict(settings, candidate.run_id)
    assert verdict.target == target
    names = {rule.name for rule in verdict.rules}
    ranks = target.figures[0]
    assert {f"{ranks.name}_gain_over_baseline", f"{ranks.name}_gain_over_baseline_beyond_chance"} <= names
    assert f"slice_{target.loss.name}_excess_over_baseline" in names
    assert ("test_class_rows" in names) == (target.kind == "multiclass")
    assert not [name for name in names if "roc_auc" in name and target.kind != "multiclass"]
    folder = settings.reports_dir / "planted" / training_set.tag
    card = (folder / "model_card.html").read_text()
    page = (folder / "verdict.html").read_text()
    for text in (card, page):
        assert ranks.words in text
        assert "positive" not in text
    assert register(settings, spec, evaluated).version == 1
    # The champion of a kind is one of its kind.
    again = evaluate(settings, spec, training_set, candidate)
    assert again.figures == evaluated.figures
