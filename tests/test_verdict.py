"""The rules of a verdict: each can fail, and what was not measured fails."""

from __future__ import annotations

import math
from typing import Any

import pytest

from airloop.references import TrainingSet
from airloop.use_cases.gates import Behaviour, FigureGate, Gates
from airloop.use_cases.target import Binary
from airloop.verdict import (
    Champion,
    Measures,
    Override,
    Probe,
    Range,
    ReliabilityBin,
    Resampling,
    ServingCost,
    SliceMeasures,
    Verdict,
    judge,
    overridden,
    rule_names,
)

GATES = Gates(
    baseline=("colour",),
    min_test_rows=1000,
    min_test_class_rows=100,
    figures={
        "roc_auc": FigureGate(min_gain_over_baseline=0.01, beyond_chance=True, max_loss_to_champion=0.002),
        "log_loss": FigureGate(max_loss_to_champion=0.002),
    },
    behaviours=(Behaviour(name="hotter", changes={"heat": 5.0}, effect="rises", why="heat harms"),),
)
TRAINING_SET = TrainingSet(
    table="training.planted",
    tag="as_of_20130112",
    snapshot_id=1,
    rows=5000,
    train_rows=3000,
    validation_rows=1000,
    test_rows=1000,
    as_of="2013-01-12T00:00:00+00:00",
    sources=(),
)
CANDIDATE = Measures(
    rows=1000,
    positives=200,
    roc_auc=0.71,
    log_loss=0.40,
    average_precision=0.4,
    brier=0.15,
    calibration_error=0.01,
)
BASELINE = CANDIDATE.model_copy(update={"roc_auc": 0.64, "log_loss": 0.43})

RANGES = {
    "roc_auc_over_baseline": Range(low=0.05, high=0.09, level=0.95, share_not_above_zero=0.0),
    "roc_auc_over_champion": Range(low=-0.02, high=0.01, level=0.95, share_not_above_zero=0.6),
    "log_loss_under_champion": Range(low=-0.01, high=0.02, level=0.95, share_not_above_zero=0.2),
}

RELIABILITY = (
    ReliabilityBin(rows=500, mean_prediction=0.1, observed_rate=0.12, low=0.09, high=0.15),
    ReliabilityBin(rows=500, mean_prediction=0.3, observed_rate=0.28, low=0.24, high=0.32),
)
COST = ServingCost(
    mebibytes=1.5,
    calls=300,
    single_row_p50_milliseconds=1.5,
    single_row_p99_milliseconds=4.0,
    batch_rows=256,
    batch_p50_milliseconds=3.0,
    batch_p99_milliseconds=9.0,
)
OVERRIDE = Override(
    by="Ada Lovelace",
    reason="the champion saw the storm, this one did not",
    at="2026-11-25T08:00:00+00:00",
    rules=("roc_auc_loss_to_champion",),
    audit_record=7,
)


def slice_of(name: str, **changes: Any) -> SliceMeasures:
    candidate = CANDIDATE.model_copy(update=changes)
    return SliceMeasures(name=name, candidate=candidate, baseline=BASELINE)


def verdict_on(**changes: Any) -> Verdict:
    """The verdict on a candidate that passes every rule, but for `changes`."""
    given: dict[str, Any] = {
        "use_case": "planted",
        "target": Binary(),
        "gates": GATES,
        "run_id": "r1",
        "training_set": TRAINING_SET,
        "candidate": CANDIDATE,
        "baseline": BASELINE,
        "champion": Champion(version=3, measures=CANDIDATE),
        "ranges": RANGES,
        "resampling": Resampling(blocks=28, resamples=1000),
        "reliability": RELIABILITY,
        "serving_cost": COST,
        "slices": (slice_of("colour=red"), slice_of("colour=blue")),
        "behaviours": (Probe(name="hotter", value=0.02, detail="moved"),),
        "leaks": (Probe(name="heat", value=0.7, detail="alone"), Probe(name="noise", value=0.5, detail="")),
    }
    return judge(**{**given, **changes})


def candidate(**changes: Any) -> Measures:
    return CANDIDATE.model_copy(update=changes)


def champion(**changes: Any) -> Champion:
    return Champion(version=3, measures=CANDIDATE.model_copy(update=changes))


def failed(verdict: Verdict) -> set[str]:
    return {rule.name for rule in verdict.rules if not rule.passed}


def test_a_candidate_that_passes_every_rule_is_accepted() -> None:
    verdict = verdict_on()
    assert verdict.accepted
    assert verdict.reasons == ()
    assert verdict.overridden_by is None


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        (
            {"candidate": candidate(rows=999), "champion": champion(rows=999)},
            {"test_rows", "all_test_rows_measured"},
        ),
        ({"training_set": TRAINING_SET.model_copy(update={"test_rows": 1001})}, {"all_test_rows_measured"}),
        ({"candidate": candidate(positives=99), "champion": champion(positives=99)}, {"test_positives"}),
        ({"candidate": candidate(brier=math.nan)}, {"undefined_measures"}),
        ({"candidate": candidate(average_precision=None)}, {"undefined_measures"}),
        (
            {"candidate": candidate(calibration_error=math.inf)},
            {"undefined_measures", "calibration_error"},
        ),
        ({"candidate": candidate(calibration_error=0.101)}, {"calibration_error"}),
        ({"serving_cost": None}, {"model_mebibytes", "single_row_p99_milliseconds"}),
        ({"serving_cost": COST.model_copy(update={"mebibytes": 501.0})}, {"model_mebibytes"}),
        (
            {"serving_cost": COST.model_copy(update={"single_row_p99_milliseconds": 251.0})},
            {"single_row_p99_milliseconds"},
        ),
        (
            {"serving_cost": COST.model_copy(update={"single_row_p99_milliseconds": math.nan})},
            {"single_row_p99_milliseconds"},
        ),
        (
            {"candidate": candidate(roc_auc=math.nan)},
            {"undefined_measures", "roc_auc_gain_over_baseline", "roc_auc_loss_to_champion"},
        ),
        (
            {"candidate": candidate(log_loss=None)},
            {"undefined_measures", "log_loss_gain_over_baseline", "log_loss_excess_over_champion"},
        ),
        ({"baseline": None}, {"roc_auc_gain_over_baseline", "log_loss_gain_over_baseline"}),
        ({"baseline": candidate(roc_auc=0.701, log_loss=0.43)}, {"roc_auc_gain_over_baseline"}),
        ({"baseline": candidate(roc_auc=math.nan, log_loss=0.43)}, {"roc_auc_gain_over_baseline"}),
        ({"baseline": candidate(roc_auc=0.6, log_loss=0.40)}, {"log_loss_gain_over_baseline"}),
        ({"baseline": candidate(roc_auc=0.6, log_loss=None)}, {"log_loss_gain_over_baseline"}),
        ({"champion": champion(roc_auc=0.7121)}, {"roc_auc_loss_to_champion"}),
        ({"champion": champion(roc_auc=math.nan)}, {"roc_auc_loss_to_champion"}),
        ({"champion": champion(log_loss=0.3979)}, {"log_loss_excess_over_champion"}),
        ({"champion": champion(rows=1200)}, {"champion_on_same_rows"}),
        ({"champion": Champion(version=3, measures=None, problem="gone")}, {"champion_measured"}),
        ({"champion": Champion(version=3, measures=None)}, {"champion_measured"}),
        ({"champion": Champion(version=3, measures=CANDIDATE, problem="odd")}, {"champion_measured"}),
    ],
)
def test_each_rule_can_reject(changes: dict[str, Any], rules: set[str]) -> None:
    verdict = verdict_on(**changes)
    assert not verdict.accepted
    assert failed(verdict) == rules
    assert len(verdict.reasons) == len(rules)


@pytest.mark.parametrize(
    "changes",
    [
        {"champion": champion(roc_auc=0.7119, log_loss=0.3981)},
        {"champion": champion(roc_auc=0.5, log_loss=0.6)},
        {"baseline": candidate(roc_auc=0.6999, log_loss=0.4001)},
        {"candidate": candidate(calibration_error=0.1)},
        {"serving_cost": COST.model_copy(update={"mebibytes": 500.0, "single_row_p99_milliseconds": 250.0})},
    ],
)
def test_values_inside_the_thresholds_pass(changes: dict[str, Any]) -> None:
    assert verdict_on(**changes).accepted


def test_the_first_model_is_accepted_by_a_rule_of_its_own() -> None:
    verdict = verdict_on(champion=None)
    assert verdict.accepted
    assert [rule.name for rule in verdict.rules if "champion" in rule.name] == ["no_champion_yet"]


def test_the_first_model_must_beat_the_baseline_too() -> None:
    assert failed(verdict_on(champion=None, baseline=None)) == {
        "roc_auc_gain_over_baseline",
        "log_loss_gain_over_baseline",
    }


def test_an_unreadable_champion_gives_its_reason() -> None:
    verdict = verdict_on(champion=Champion(version=3, measures=None, problem="the file is damaged"))
    assert any("version 3" in reason and "the file is damaged" in reason for reason in verdict.reasons)


def test_the_same_inputs_make_the_same_document_and_it_can_be_read_again() -> None:
    text = verdict_on(candidate=candidate(brier=math.nan)).model_dump_json()
    assert text == verdict_on(candidate=candidate(brier=math.nan)).model_dump_json()
    assert "NaN" not in text
    assert not Verdict.model_validate_json(text).accepted


def test_a_gain_that_may_be_chance_is_none() -> None:
    chance = RANGES["roc_auc_over_baseline"].model_copy(update={"low": -0.001})
    found = failed(verdict_on(ranges={**RANGES, "roc_auc_over_baseline": chance}))
    assert found == {"roc_auc_gain_over_baseline_beyond_chance"}


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("roc_auc_over_champion", "roc_auc_not_worse_than_champion_beyond_chance"),
        ("log_loss_under_champion", "log_loss_not_worse_than_champion_beyond_chance"),
    ],
)
def test_a_loss_to_the_champion_that_is_no_chance_rejects_however_small(name: str, rule: str) -> None:
    worse = Range(low=-0.0009, high=-0.0001, level=0.95, share_not_above_zero=1.0)
    assert failed(verdict_on(ranges={**RANGES, name: worse})) == {rule}
    equal = Range(low=0, high=0, level=0.95, share_not_above_zero=1.0)
    assert verdict_on(ranges={**RANGES, name: equal}).accepted


def test_without_ranges_nothing_is_known_to_be_no_chance() -> None:
    assert failed(verdict_on(ranges={})) == {
        "roc_auc_gain_over_baseline_beyond_chance",
        "roc_auc_not_worse_than_champion_beyond_chance",
        "log_loss_not_worse_than_champion_beyond_chance",
    }
    assert failed(verdict_on(ranges={}, champion=None)) == {"roc_auc_gain_over_baseline_beyond_chance"}


def test_a_rule_says_how_far_its_value_may_be_chance() -> None:
    rules = {rule.name: rule for rule in verdict_on().rules}
    assert rules["roc_auc_gain_over_baseline"].range == RANGES["roc_auc_over_baseline"]
    assert rules["log_loss_excess_over_champion"].range == RANGES["log_loss_under_champion"]
    detail = rules["log_loss_excess_over_champion"].detail
    assert "better by -0.0100 to 0.0200 (95%, paired bootstrap over days)" in detail
    assert "no better in 20% of resamples" in detail
    gain = Range(low=0.01, high=0.02, level=0.95, share_not_above_zero=0.0)
    red = slice_of("colour=red").model_copy(update={"gain": gain})
    (of_slice,) = (rule for rule in verdict_on(slices=(red,)).rules if rule.slice == "colour=red")
    assert of_slice.range == gain
    assert "better by 0.0100 to 0.0200" in of_slice.detail


def test_one_slice_that_a_base_rate_serves_better_rejects_and_is_named() -> None:
    verdict = verdict_on(slices=(slice_of("colour=red"), slice_of("colour=blue", log_loss=0.431)))
    (rule,) = (rule for rule in verdict.rules if not rule.passed)
    assert (rule.name, rule.slice) == ("slice_log_loss_excess_over_baseline", "colour=blue")
    assert rule.value == pytest.approx(0.001)
    assert any("colour=blue" in reason for reason in verdict.reasons)


@pytest.mark.parametrize("changes", [{"positives": 99}, {"rows": 1000, "positives": 901}])
def test_a_slice_with_too_few_rows_of_a_class_is_shown_and_not_judged(changes: dict[str, int]) -> None:
    verdict = verdict_on(slices=(slice_of("colour=red", log_loss=9.0, **changes),))
    assert verdict.accepted
    assert [part.name for part in verdict.slices] == ["colour=red"]


def test_a_slice_that_was_not_measured_rejects() -> None:
    assert failed(verdict_on(slices=(slice_of("colour=red", log_loss=None),))) == {
        "slice_log_loss_excess_over_baseline"
    }


@pytest.mark.parametrize(
    ("effect", "value", "passes"),
    [
        ("rises", 0.02, True),
        ("rises", -0.0005, True),
        ("rises", -0.002, False),
        ("falls", -0.02, True),
        ("falls", 0.002, False),
        ("stays", -0.0005, True),
        ("stays", -0.002, False),
        ("stays", 0.002, False),
        ("rises", None, False),
        ("rises", math.nan, False),
    ],
)
def test_a_model_behaves_as_is_known_beforehand(effect: str, value: float | None, passes: bool) -> None:
    wanted = GATES.behaviours[0].model_copy(update={"effect": effect})
    verdict = verdict_on(
        gates=GATES.model_copy(update={"behaviours": (wanted,)}),
        behaviours=(Probe(name="hotter", value=value, detail="moved"),),
    )
    assert failed(verdict) == (set() if passes else {"behaviour_hotter"})


def test_a_behaviour_that_was_not_tried_rejects() -> None:
    assert failed(verdict_on(behaviours=())) == {"behaviour_hotter"}


def test_an_input_that_knows_the_label_is_named() -> None:
    leak = Probe(name="arrived_at", value=0.97, detail="alone")
    verdict = verdict_on(leaks=(Probe(name="heat", value=0.7, detail="alone"), leak))
    assert failed(verdict) == {"single_input_roc_auc"}
    assert any("arrived_at alone has ROC AUC 0.970" in reason for reason in verdict.reasons)
    assert failed(verdict_on(leaks=())) == {"single_input_roc_auc"}


def test_an_override_changes_the_outcome_and_no_rule() -> None:
    rejected = verdict_on(champion=champion(roc_auc=0.8), slices=(slice_of("colour=red", log_loss=9.0),))
    verdict = overridden(rejected, OVERRIDE)
    assert (rejected.accepted, verdict.accepted) == (False, True)
    assert verdict.overridden_by == "Ada Lovelace"
    assert verdict.rules == rejected.rules
    assert rule_names(verdict.failed) == (
        "roc_auc_loss_to_champion",
        "slice_log_loss_excess_over_baseline (colour=red)",
    )
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_a_document_of_before_these_parts_can_still_be_read() -> None:
    document = verdict_on().model_dump(mode="json")
    for part in ("resampling", "reliability", "serving_cost", "override"):
        del document[part]
    assert Verdict.model_validate(document).accepted
