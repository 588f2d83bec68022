"""The verdict on a candidate: rules, each with its value and threshold, and the document they make.

Belongs here: pure rules over measures that were taken elsewhere. Does not belong here: TensorFlow, MLflow,
files, or a clock; the same inputs make the same document. Every rule fails closed: what was not measured
does not pass.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from airloop.references import TrainingSet
from airloop.use_cases.gates import FigureGate, Gates
from airloop.use_cases.target import Binary, Figure, Kind, Target, figure_names

USUAL: Final[Mapping[Kind, str]] = {
    "binary": "base rate",
    "multiclass": "base rates",
    "regression": "mean",
    "quantiles": "quantiles",
}
"""What the baseline answers, by the label's kind."""
Comparison = Literal[">=", ">", "<="]
_HOLDS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
}


class Part(BaseModel):
    """Base of the document's parts: frozen, unknown fields rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Measures(Part):
    """Measures of one model's predictions on the test rows: those of the label's kind, the others None.

    One of the kind is None where it is not defined.
    """

    kind: Kind = "binary"
    rows: int
    positives: int | None = None
    """Rows of the rarest class; of the positive one, if there are two. None without classes."""
    roc_auc: float | None = None
    log_loss: float | None = None
    average_precision: float | None = None
    brier: float | None = None
    calibration_error: float | None = None
    accuracy: float | None = None
    macro_f1: float | None = None
    root_mean_squared_error: float | None = None
    mean_squared_error: float | None = None
    mean_absolute_error: float | None = None
    r_squared: float | None = None
    absolute_bias: float | None = None
    """How far the mean prediction is from the mean label."""
    pinball_loss: float | None = None
    """Mean over the levels and rows."""
    coverage_error: float | None = None
    """Mean over the levels of how far the share of labels at or below the quantile is from its level."""

    def figures(self) -> dict[str, float | None]:
        """The measures of the label's kind, by name; None for those that are not finite."""
        found = {name: getattr(self, name) for name in figure_names(self.kind)}
        return {name: value if _finite(value) else None for name, value in found.items()}


class Range(Part):
    """How far a figure may be chance (`airloop.training.bootstrap`)."""

    low: float
    high: float
    level: float
    """The share of resamples between `low` and `high`, in the middle."""
    share_not_above_zero: float
    """For a difference: how often the resampled rows showed none, or the opposite."""


class Resampling(Part):
    """How every `Range` was found: a paired bootstrap over blocks of days, the verdict's one test of chance.

    See `airloop.training.bootstrap`. Candidate, baseline and champion are measured on the same draws, so a
    difference whose range lies above 0 is more than what these days happened to be.
    """

    method: Literal["paired bootstrap over days"] = "paired bootstrap over days"
    blocks: int
    """Days that were drawn from."""
    resamples: int


class ReliabilityBin(Part):
    """Test rows with neighbouring predictions: what was predicted for them, and what came of it."""

    rows: int
    mean_prediction: float
    observed_rate: float
    """The share of positive rows; the mean label, where there are no classes."""
    low: float
    """Low end of its interval at 95%."""
    high: float


class ServingCost(Part):
    """What the exported model costs where it is served, asked through its signature by one process."""

    mebibytes: float
    """Size of the SavedModel's folder."""
    calls: int
    """Calls of each kind that were timed, after a warm-up."""
    single_row_p50_milliseconds: float
    single_row_p99_milliseconds: float
    batch_rows: int
    batch_p50_milliseconds: float
    batch_p99_milliseconds: float


class SliceMeasures(Part):
    """Both models on the test rows of one slice."""

    name: str
    """`<slicing>=<value>`, or `<slicing>=<low>..<high>`."""
    candidate: Measures
    baseline: Measures | None
    gain: Range | None = None
    """How far the baseline's loss minus the candidate's may be chance; None with too few days."""


class Probe(Part):
    """A question to the candidate, or to its data, whose answer is known beforehand."""

    name: str
    value: float | None
    """None where no row could be asked."""
    detail: str


class Champion(Part):
    """The champion of the moment, measured on the candidate's test rows."""

    version: int
    measures: Measures | None
    problem: str | None = None
    """Why it could not be measured."""


class Rule(Part):
    """One rule: it passes when `value comparison threshold` holds."""

    name: str
    value: float | None
    threshold: float | None
    comparison: Comparison | None
    passed: bool
    detail: str
    slice: str | None = None
    """The part of the test rows that it is about; all of them without one."""
    range: Range | None = None
    """How far the gain that it weighs may be chance; a loss or an excess is a gain with the other sign."""


class Override(Part):
    """A person's decision to accept a rejected candidate."""

    by: str
    reason: str
    at: str
    """ISO 8601 instant."""
    rules: tuple[str, ...]
    """The failed rules, as `name`, or `name (slice)`."""
    audit_record: int
    """Sequence of the record in the audit log (`airloop.audit_log`)."""


class Verdict(Part):
    """The machine-readable document on which registration depends."""

    use_case: str
    target: Target = Binary()
    run_id: str
    training_set: TrainingSet
    accepted: bool
    rules: tuple[Rule, ...]
    candidate: Measures
    baseline: Measures | None
    champion: Champion | None
    ranges: Mapping[str, Range] = {}
    """By `<model>.<figure>`, and `<figure>_over_<model>`, or `_under_` where less is better."""
    resampling: Resampling | None = None
    """How the ranges were found."""
    slices: tuple[SliceMeasures, ...] = ()
    reliability: tuple[ReliabilityBin, ...] = ()
    """The candidate's, in bins of equally many rows; empty where its calibration error is not defined."""
    serving_cost: ServingCost | None = None
    override: Override | None = None
    """None for a verdict that the rules made."""

    @property
    def overridden_by(self) -> str | None:
        """Who accepted the candidate in spite of the rules."""
        return None if self.override is None else self.override.by

    @property
    def failed(self) -> tuple[Rule, ...]:
        """The rules that did not pass."""
        return tuple(rule for rule in self.rules if not rule.passed)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it was rejected: the failed rules, as `name: detail`."""
        return tuple(f"{rule.name}: {rule.detail}" for rule in self.failed)


def judge(
    *,
    use_case: str,
    target: Target,
    gates: Gates,
    run_id: str,
    training_set: TrainingSet,
    candidate: Measures,
    baseline: Measures | None,
    champion: Champion | None,
    ranges: Mapping[str, Range],
    resampling: Resampling | None = None,
    slices: tuple[SliceMeasures, ...] = (),
    reliability: tuple[ReliabilityBin, ...] = (),
    serving_cost: ServingCost | None = None,
    behaviours: tuple[Probe, ...] = (),
    leaks: tuple[Probe, ...] = (),
) -> Verdict:
    """The verdict on the candidate of run `run_id`: accepted when every rule passes.

    `champion` is None only when no version has ever earned the alias; that is a rule of its own, so that
    the document says why there was no comparison.
    """
    rules = (
        *_enough_data(target, gates, candidate, training_set),
        _all_measured(candidate),
        *_against_baseline(target, gates, candidate, baseline, ranges),
        *_against_champion(target, gates, candidate, champion, ranges),
        *_calibrated(gates, candidate),
        *_by_slice(target, gates, slices),
        *_behaves(gates, behaviours),
        _no_leak(target, gates, leaks),
        *_affordable(gates, serving_cost),
    )
    return Verdict(
        use_case=use_case,
        target=target,
        run_id=run_id,
        training_set=training_set,
        accepted=all(rule.passed for rule in rules),
        rules=rules,
        candidate=candidate,
        baseline=baseline,
        champion=champion,
        ranges=ranges,
        resampling=resampling,
        slices=slices,
        reliability=reliability,
        serving_cost=serving_cost,
    )


def overridden(verdict: Verdict, override: Override) -> Verdict:
    """`verdict`, accepted by a person; its rules stay as they are."""
    return verdict.model_copy(update={"accepted": True, "override": override})


def rule_names(rules: tuple[Rule, ...]) -> tuple[str, ...]:
    """Each rule as `name`, or `name (slice)`."""
    return tuple(rule.name if rule.slice is None else f"{rule.name} ({rule.slice})" for rule in rules)


def _enough_data(
    target: Target, gates: Gates, candidate: Measures, training_set: TrainingSet
) -> Iterator[Rule]:
    yield _compare(
        "test_rows",
        candidate.rows,
        ">=",
        gates.min_test_rows,
        f"{candidate.rows} test rows measured, {gates.min_test_rows} needed",
    )
    yield _compare(
        "all_test_rows_measured",
        candidate.rows,
        ">=",
        training_set.test_rows,
        f"{candidate.rows} of the training set's {training_set.test_rows} test rows measured",
    )
    if target.has_classes:
        rarest = "positive test rows" if target.kind == "binary" else "test rows of the rarest class"
        yield _compare(
            "test_positives" if target.kind == "binary" else "test_class_rows",
            candidate.positives,
            ">=",
            gates.min_test_class_rows,
            f"{candidate.positives} {rarest}, {gates.min_test_class_rows} needed",
        )


def _all_measured(candidate: Measures) -> Rule:
    absent = [name for name, value in candidate.figures().items() if value is None]
    return _compare(
        "undefined_measures",
        len(absent),
        "<=",
        0,
        f"not finite: {', '.join(absent)}" if absent else "every measure is finite",
    )


def _against_baseline(
    target: Target,
    gates: Gates,
    candidate: Measures,
    baseline: Measures | None,
    ranges: Mapping[str, Range],
) -> Iterator[Rule]:
    by = f"{USUAL[target.kind]} by {' and '.join(gates.baseline)}"
    for figure, gate in _gated(target, gates):
        found = ranges.get(f"{figure.gain}_baseline")
        yield _compare(
            f"{figure.name}_gain_over_baseline",
            _gain(figure, candidate, baseline),
            ">=" if gate.min_gain_over_baseline else ">",
            gate.min_gain_over_baseline,
            f"{figure.words} {_shown(candidate, figure.name)}, {by} {_shown(baseline, figure.name)}",
            found,
        )
        if gate.beyond_chance:
            yield _compare(
                f"{figure.name}_gain_over_baseline_beyond_chance",
                found.low if found else None,
                ">",
                0.0,
                f"the gain is {_between(found)} over resampled days",
                found,
            )


def _gated(target: Target, gates: Gates) -> Iterator[tuple[Figure, FigureGate]]:
    return ((figure, gates.figures[figure.name]) for figure in target.figures if figure.name in gates.figures)


def _calibrated(gates: Gates, candidate: Measures) -> Iterator[Rule]:
    """What it says is what comes: on average over the bins, predictions are near the observed rates."""
    for name in ("calibration_error", "coverage_error"):
        if name in candidate.figures():
            yield _compare(
                name,
                _figure(candidate, name),
                "<=",
                gates.max_calibration_error,
                f"predictions are {_shown(candidate, name)} from the observed rates, on average over "
                + ("bins of equally many rows" if name == "calibration_error" else "the levels"),
            )


def _affordable(gates: Gates, cost: ServingCost | None) -> tuple[Rule, ...]:
    """Small and fast enough to be served."""
    return (
        _compare(
            "model_mebibytes",
            cost.mebibytes if cost else None,
            "<=",
            gates.max_model_mebibytes,
            f"the exported model has {cost.mebibytes:.1f} MiB" if cost else "not measured",
        ),
        _compare(
            "single_row_p99_milliseconds",
            cost.single_row_p99_milliseconds if cost else None,
            "<=",
            gates.max_single_row_p99_milliseconds,
            f"99% of {cost.calls} calls with one row took at most {cost.single_row_p99_milliseconds:.1f} ms, "
            f"half of them {cost.single_row_p50_milliseconds:.1f} ms"
            if cost
            else "not measured",
        ),
    )


def _by_slice(target: Target, gates: Gates, slices: tuple[SliceMeasures, ...]) -> tuple[Rule, ...]:
    """In no slice with enough rows, of each class if there are any, may it be worse than the baseline."""
    loss = target.loss
    return tuple(
        _compare(
            f"slice_{loss.name}_excess_over_baseline",
            _difference(part.candidate, part.baseline, loss.name),
            "<=",
            gates.max_slice_loss_excess_over_baseline,
            f"{part.name}: {loss.words} {_shown(part.candidate, loss.name)}, {USUAL[target.kind]} "
            f"{_shown(part.baseline, loss.name)} on {part.candidate.rows} rows{_chance(part.gain)}",
            part.gain,
            slice=part.name,
        )
        for part in slices
        if fewest_rows(target, part.candidate) >= gates.min_slice_rows
    )


def fewest_rows(target: Target, measured: Measures) -> int:
    """Rows of the rarer class; of the rarest, where there are several, and all where there are none."""
    if measured.positives is None:
        return measured.rows
    if target.kind == "binary":
        return min(measured.positives, measured.rows - measured.positives)
    return measured.positives


def _behaves(gates: Gates, probes: tuple[Probe, ...]) -> tuple[Rule, ...]:
    """Each behaviour of the spec; one that was not tried fails."""
    found = {probe.name: probe for probe in probes}
    rules = []
    for wanted in gates.behaviours:
        probe = found.get(wanted.name)
        value = probe.value if probe else None
        wrong = {"rises": -1.0, "falls": 1.0}.get(wanted.effect)
        if value is not None:
            value = abs(value) if wrong is None else value * wrong
        rules.append(
            _compare(
                f"behaviour_{wanted.name}",
                value,
                "<=",
                wanted.tolerance,
                f"{wanted.why}: {probe.detail if probe else 'not tried'}",
            )
        )
    return tuple(rules)


def _no_leak(target: Target, gates: Gates, probes: tuple[Probe, ...]) -> Rule:
    """No single input tells the label too well."""
    most = max(probes, key=lambda probe: probe.value or 0.0, default=None)
    name, words = (
        ("roc_auc", "has ROC AUC") if target.has_classes else ("explained", "explains of the variance")
    )
    return _compare(
        f"single_input_{name}",
        most.value if most else None,
        "<=",
        gates.max_single_input,
        f"{most.name} alone {words} {most.value or 0:.3f}, the most of all" if most else "not probed",
    )


def _against_champion(
    target: Target,
    gates: Gates,
    candidate: Measures,
    champion: Champion | None,
    ranges: Mapping[str, Range],
) -> tuple[Rule, ...]:
    if champion is None:
        return (
            Rule(
                name="no_champion_yet",
                value=None,
                threshold=None,
                comparison=None,
                passed=True,
                detail="no version has the alias champion; the first model has only the baseline to beat",
            ),
        )
    theirs = champion.measures
    if theirs is None or champion.problem is not None:
        return (
            Rule(
                name="champion_measured",
                value=None,
                threshold=None,
                comparison=None,
                passed=False,
                detail=f"champion version {champion.version} could not be measured: "
                f"{champion.problem or 'no reason was given'}",
            ),
        )
    gated = tuple(_gated(target, gates))
    return (
        _compare(
            "champion_on_same_rows",
            float(theirs.rows == candidate.rows and theirs.positives == candidate.positives),
            ">=",
            1.0,
            f"champion measured on {_rows(theirs)}, candidate on {_rows(candidate)}",
        ),
        *(
            _compare(
                f"{figure.lack}_{'to' if figure.higher_is_better else 'over'}_champion",
                _gain(figure, theirs, candidate),
                "<=",
                gate.max_loss_to_champion,
                f"{figure.words} {_shown(candidate, figure.name)}, champion version {champion.version} "
                f"{_shown(theirs, figure.name)}{_chance(ranges.get(f'{figure.gain}_champion'))}",
                ranges.get(f"{figure.gain}_champion"),
            )
            for figure, gate in gated
        ),
        *(
            _not_certainly_worse(figure.name, champion, ranges.get(f"{figure.gain}_champion"))
            for figure, _ in gated
        ),
    )


def _rows(measured: Measures) -> str:
    of_them = "" if measured.positives is None else f" ({measured.positives} positive)"
    return f"{measured.rows} rows{of_them}"


def _not_certainly_worse(figure: str, champion: Champion, gain: Range | None) -> Rule:
    """A loss may be within the gates, but must not be there on nearly every resample of the days."""
    return _compare(
        f"{figure}_not_worse_than_champion_beyond_chance",
        gain.high if gain else None,
        ">=",
        0.0,
        f"the gain over champion version {champion.version} is {_between(gain)} over resampled days",
        gain,
    )


def _compare(
    name: str,
    value: float | None,
    comparison: Comparison,
    threshold: float,
    detail: str,
    range: Range | None = None,
    *,
    slice: str | None = None,
) -> Rule:
    """A rule that passes when the comparison holds; it fails when `value` is absent or not finite."""
    if value is None or not math.isfinite(value):
        value, passed = None, False
    else:
        passed = _HOLDS[comparison](value, threshold)
    return Rule(
        name=name,
        value=value,
        threshold=threshold,
        comparison=comparison,
        passed=passed,
        detail=detail,
        slice=slice,
        range=range,
    )


def _between(range: Range | None) -> str:
    return "not known" if range is None else f"{range.low:.4f} to {range.high:.4f} ({range.level:.0%})"


def _chance(range: Range | None) -> str:
    """What a paired comparison on resampled days adds to a difference."""
    if range is None:
        return ""
    return (
        f"; better by {range.low:.4f} to {range.high:.4f} ({range.level:.0%}, paired bootstrap over days), "
        f"no better in {range.share_not_above_zero:.0%} of resamples of the days"
    )


def _gain(figure: Figure, one: Measures | None, other: Measures | None) -> float | None:
    """By how much `one` is better than `other`."""
    first, second = (one, other) if figure.higher_is_better else (other, one)
    return _difference(first, second, figure.name)


def _difference(one: Measures | None, other: Measures | None, figure: str) -> float | None:
    first, second = _figure(one, figure), _figure(other, figure)
    return None if first is None or second is None else first - second


def _figure(measures: Measures | None, figure: str) -> float | None:
    return None if measures is None else measures.figures().get(figure)


def _shown(measures: Measures | None, figure: str) -> str:
    value = _figure(measures, figure)
    return "not measured" if value is None else f"{value:.4f}"


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
