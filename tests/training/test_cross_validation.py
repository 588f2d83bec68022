"""Cross-validation: folds are in order of time, share no row with what they know, and never see the test."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from airloop.errors import HistoryError, SpecError
from airloop.references import FoldMeasured, TrainingSet, Tuned
from airloop.registry import download_artifacts, open_registry
from airloop.settings import Settings
from airloop.training import folds
from airloop.training.cross_validated import DOCUMENT, collect
from airloop.training.fold import joined, measure_fold
from airloop.training.folds import Days, cut, folds_of, list_folds
from airloop.training.staging import MICROS_PER_DAY, stage
from airloop.use_cases.spec import UseCase
from airloop.use_cases.training_policy import CrossValidation
from tests.training.conftest import COMMIT, settings_in
from tests.training.planted import FIRST, SPLITS, planted_rows, planted_use_case, write_training_set
from tests.training.test_tuning import without_test_rows

FOLDS = CrossValidation(folds=3, fold_days=4)
HOUR = np.timedelta64(1, "h")


def use_case_with(policy: CrossValidation, epochs: int = 2) -> UseCase:
    spec = planted_use_case()
    parameters = {**spec.training.parameters, "max_epochs": epochs}
    update = {"cross_validation": policy, "parameters": parameters}
    return spec.model_copy(update={"training": spec.training.model_copy(update=update)})


class Validated:
    """A cross-validation of the planted use case, whose test rows cannot be read."""

    def __init__(self, folder: Path) -> None:
        self.settings: Settings = settings_in(folder)
        self.spec = use_case_with(FOLDS)
        self.training_set: TrainingSet = write_training_set(self.settings, without_test_rows(planted_rows()))
        self.listed = list_folds(self.settings, self.spec, self.training_set)
        self.measured = [self.measure(number) for number in self.listed.folds]

    def measure(self, number: int) -> FoldMeasured:
        return measure_fold(self.settings, self.spec, self.training_set, number, COMMIT)


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Validated:
    return Validated(tmp_path_factory.mktemp("folds"))


@pytest.mark.parametrize(("first", "end"), [(0, 30), (15000, 15200)])
def test_folds_grow_follow_one_another_and_end_with_the_last_day(first: int, end: int) -> None:
    found = folds_of(FOLDS, first, end)
    assert len(found) == FOLDS.folds
    assert found[-1].end == end
    for before, after in pairwise(found):
        assert before.end == after.start
        assert before.stopping < after.stopping
    for fold in found:
        assert first < fold.stopping < fold.start < fold.end
        assert fold.start - fold.stopping == fold.end - fold.start == FOLDS.fold_days


def test_too_few_days_are_no_folds() -> None:
    assert folds_of(FOLDS, 0, 17)
    with pytest.raises(HistoryError, match="16 days"):
        folds_of(FOLDS, 0, 16)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("matures", [np.timedelta64(0, "h"), HOUR, np.timedelta64(60, "h")])
def test_no_row_is_in_two_parts_and_all_labels_were_known(seed: int, matures: np.timedelta64) -> None:
    """Against a row-by-row reading of the definition, days without rows and whole-day edges included."""
    random = np.random.default_rng(seed)
    times = np.sort(random.integers(0, 30 * MICROS_PER_DAY, 400))
    times[random.integers(0, 400, 60)] = random.integers(0, 30, 60) * MICROS_PER_DAY
    times = np.sort(times)
    late = int(matures / np.timedelta64(1, "us"))
    for days in folds_of(FOLDS, 0, 30):
        found = cut(days, times, matures)
        numbers = np.arange(len(times))
        parts = [numbers[part].tolist() for part in found]
        day = times // MICROS_PER_DAY
        known = times + late < days.start * MICROS_PER_DAY if late else day < days.start
        assert parts[0] == numbers[(day < days.stopping) & known].tolist()
        assert parts[1] == numbers[(day >= days.stopping) & (day < days.start) & known].tolist()
        assert parts[2] == numbers[(day >= days.start) & (day < days.end)].tolist()
        assert not set(parts[2]) & {*parts[0], *parts[1]}


def test_both_splits_are_joined_in_order_with_their_words(tmp_path: Path) -> None:
    settings, spec = settings_in(tmp_path), planted_use_case()
    rows = planted_rows()
    index = rows.schema.get_field_index("colour")
    colours = rows["colour"].to_pylist()
    # A word that only the validation split has, and one that only the train split has.
    colours[0], colours[SPLITS["train"] + 3] = "amber", "blank"
    training_set = write_training_set(settings, rows.set_column(index, "colour", [colours]))
    train, validation = (
        stage(settings, spec, training_set, split, tmp_path / split) for split in ("train", "validation")
    )
    found = joined(train, validation, tmp_path / "joined")
    assert len(found) == SPLITS["train"] + SPLITS["validation"]
    assert (np.diff(found.times) >= 0).all()
    for part, at in ((train, slice(0, len(train))), (validation, slice(len(train), None))):
        theirs, ours = part.at(slice(None)), found.at(at)
        np.testing.assert_array_equal(theirs.labels, ours.labels)
        np.testing.assert_array_equal(part.times, found.times[at])
        np.testing.assert_array_equal(part.outcomes, found.outcomes[at])
        for name, values in theirs.columns.items():
            np.testing.assert_array_equal(values, ours.columns[name], err_msg=name)
    assert found.words["colour"].tolist() == ["amber", "blank", "blue", "green", "red"]
    with pytest.raises(HistoryError, match="after it"):
        joined(validation, train, tmp_path / "reversed")


def test_each_fold_is_measured_on_the_days_after_what_it_knew(validated: Validated) -> None:
    last = FIRST + timedelta(seconds=400 * (SPLITS["train"] + SPLITS["validation"] - 1))
    end = (last + timedelta(days=1)).replace(hour=0, minute=0, second=0)
    assert validated.listed.folds == (0, 1, 2)
    for fold, measured in enumerate(validated.measured):
        assert measured.fold == fold
        start = end - timedelta(days=(FOLDS.folds - fold) * FOLDS.fold_days)
        assert measured.start == f"{start:%Y-%m-%d}"
        assert measured.end == f"{start + timedelta(days=FOLDS.fold_days):%Y-%m-%d}"
        times = [FIRST + timedelta(seconds=400 * row) for row in range(sum(SPLITS.values()))]
        stopping = start - timedelta(days=FOLDS.fold_days)
        known = start - validated.spec.label.matures_after
        assert measured.train_rows == sum(time < stopping for time in times)
        assert measured.stopping_rows == sum(stopping <= time < known for time in times)
        until = min(datetime.fromisoformat(measured.end).replace(tzinfo=UTC), last + timedelta(seconds=1))
        assert measured.rows == sum(start <= time < until for time in times)
        area, error = (measured.figures[name] for name in ("roc_auc", "calibration_error"))
        assert area is not None
        assert area > 0.6
        assert error is not None
        assert 0 < error < 0.2


def test_a_fold_is_the_same_again_and_leaves_nothing(validated: Validated) -> None:
    assert validated.measure(1) == validated.measured[1]
    assert not list(validated.settings.scratch_dir.iterdir())
    assert not list(validated.settings.checkpoints_dir.rglob("*.npz"))


def test_mean_and_spread_are_logged_once(validated: Validated, tmp_path: Path) -> None:
    arguments = (validated.settings, validated.spec, validated.training_set, validated.measured[::-1], COMMIT)
    found = collect(*arguments)
    assert collect(*arguments) == found
    client = open_registry(validated.settings)
    experiment = client.get_experiment_by_name("planted")
    assert len(client.search_runs([experiment.experiment_id])) == 1
    run = client.get_run(found.run_id)
    values = [fold.figures["roc_auc"] for fold in validated.measured]
    spread = found.figures["roc_auc"]
    assert spread is not None
    assert spread.mean == pytest.approx(np.mean(values))
    assert spread.deviation == pytest.approx(np.std(values, ddof=1))
    assert run.data.metrics["folds_roc_auc_mean"] == pytest.approx(np.mean(values))
    assert run.data.tags["airloop.report_kind"] == "cross_validation"
    assert "airloop.training_set" not in run.data.tags
    history = {point.step: point.value for point in client.get_metric_history(found.run_id, "fold_roc_auc")}
    assert list(history.values()) == values
    document = json.loads(
        download_artifacts(validated.settings, found.run_id, DOCUMENT, tmp_path).read_text()
    )
    assert [fold["fold"] for fold in document["folds"]] == [0, 1, 2]
    assert document["parameters"] == validated.spec.training.parameters


def test_a_missing_fold_and_one_without_a_measure_are_told(validated: Validated) -> None:
    arguments = (validated.settings, validated.spec, validated.training_set)
    with pytest.raises(SpecError, match=r"found \[0, 2\]"):
        collect(*arguments, [validated.measured[0], validated.measured[2]], COMMIT)
    undefined = validated.measured[1].model_copy(
        update={"figures": {**validated.measured[1].figures, "roc_auc": None}}
    )
    found = collect(*arguments, [validated.measured[0], undefined, validated.measured[2]], "2" * 40)
    assert found.figures["roc_auc"] is None
    assert found.figures["log_loss"] is not None


def test_tuned_parameters_reach_the_folds(validated: Validated) -> None:
    own = validated.spec.training.parameters
    given = Tuned(
        study="s",
        parameters={**own, "learning_rate": 1e-6},
        improved=True,
        loss=0.5,
        own_loss=0.6,
        complete=2,
        pruned=0,
        unfinished=0,
        run_id="r",
        page_uri="",
    )
    arguments = (validated.settings, validated.spec, validated.training_set)
    assert list_folds(*arguments, given).tuned == given
    found = measure_fold(*arguments, 0, COMMIT, tuned=given)
    # It learns nothing at that rate.
    loss, learnt = found.figures["log_loss"], validated.measured[0].figures["log_loss"]
    assert loss is not None
    assert learnt is not None
    assert loss > learnt


def test_what_is_no_fold_is_refused(validated: Validated) -> None:
    with pytest.raises(SpecError, match="a fold from 0 to 2"):
        validated.measure(3)
    arguments = (validated.settings, planted_use_case(), validated.training_set)
    with pytest.raises(SpecError, match=r"training\.cross_validation"):
        list_folds(*arguments)
    many = use_case_with(CrossValidation(folds=20, fold_days=2))
    with pytest.raises(HistoryError, match="for 20 folds of 2"):
        list_folds(validated.settings, many, validated.training_set)


def test_a_fold_of_a_reference_that_is_not_the_tables_fails(validated: Validated) -> None:
    wrong = validated.training_set.model_copy(update={"train_rows": 5999})
    with pytest.raises(HistoryError, match="5999 train rows"):
        measure_fold(validated.settings, validated.spec, wrong, 0, COMMIT)


def test_days_are_numbered_from_the_epoch() -> None:
    assert folds.cut(Days(1, 2, 3), np.array([0, MICROS_PER_DAY, 2 * MICROS_PER_DAY]), 0 * HOUR) == (
        slice(0, 1),
        slice(1, 2),
        slice(2, 3),
    )
