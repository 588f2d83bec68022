"""An A/B test's statistics, by simulation and by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from airloop.prediction_log import variants
from airloop.use_cases.target import Binary
from serving.experiment import in_words
from serving.experiment_result import difference, result_of, sample_ratio_p_value
from serving.observations import Observed

UNITS = 2000


def attempts(
    random: np.random.Generator, *, noise: float = 0.0, lost: float = 0.0, labels: bool = True
) -> pa.Table:
    """Rows of an experiment: each unit asks one to three times, and B is noisier by `noise`."""
    rows = []
    for number in range(UNITS):
        treated = random.uniform() < 0.5
        if treated and random.uniform() < lost:
            continue
        truth = float(random.beta(2, 5))
        for _ in range(int(random.integers(1, 4))):
            logit = np.log(truth / (1 - truth)) + (random.normal(0, noise) if treated and noise else 0)
            rows.append(
                {
                    "unit": f"u{number}",
                    "variant": variants.TREATMENT if treated else variants.CONTROL,
                    "error": None,
                    "answer_0": float(1 / (1 + np.exp(-logit))),
                    "label": float(random.uniform() < truth) if labels else None,
                }
            )
    schema = pa.schema(
        [
            ("unit", pa.string()),
            ("variant", pa.string()),
            ("error", pa.string()),
            ("answer_0", pa.float64()),
            ("label", pa.float64()),
        ]
    )
    return pa.Table.from_pylist(rows, schema=schema)


def result(rows: pa.Table, share: float = 0.5):
    return result_of(Observed(Binary(), rows), name="ab", version=4, champion=3, share=share)


def test_a_worse_version_is_worse_and_an_equal_one_is_not() -> None:
    random = np.random.default_rng(1)
    worse = result(attempts(random, noise=2.0))
    loss = {measure.name: measure for measure in worse.measures}["log_loss"]
    assert loss.low > 0
    assert in_words(worse).startswith("version 3 is better: log loss +")
    equal = result(attempts(random))
    assert in_words(equal).startswith("no difference is known")
    assert not equal.sample_ratio_mismatch


def test_the_interval_covers_no_difference_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        found = difference("x", random.exponential(1, 200), random.exponential(1, 150))
        covered += found.low <= 0 <= found.high
    # A binomial share of 0.95 of 400 is above 0.91 in all but a few cases of ten thousand.
    assert covered / 400 > 0.91


def test_lost_units_are_found_before_anything_is_believed() -> None:
    random = np.random.default_rng(3)
    lost = result(attempts(random, lost=0.25, noise=2.0))
    assert lost.sample_ratio_mismatch
    assert in_words(lost).startswith("no result")
    assert sample_ratio_p_value(1000, 1000, 0.5) == pytest.approx(1)
    assert sample_ratio_p_value(1000, 1150, 0.5) == pytest.approx(stats.chisquare([1000, 1150]).pvalue)
    assert sample_ratio_p_value(900, 100, 0.1) == pytest.approx(1)
    assert sample_ratio_p_value(0, 0, 0.5) is None


def test_a_unit_counts_once_however_often_it_asks() -> None:
    rows = pa.table(
        {
            "unit": ["a", "a", "a", "b", "c", "d"],
            "variant": [variants.CONTROL] * 4 + [variants.TREATMENT] * 2,
            "error": pa.array([None] * 6, pa.string()),
            "answer_0": [0.3, 0.3, 0.3, 0.5, 0.6, 0.8],
            "label": [0.0, 0.0, 1.0, 1.0, 1.0, 0.0],
        }
    )
    found = {measure.name: measure for measure in result(rows).measures}
    assert found["prediction"].control == pytest.approx(0.4)
    assert found["prediction"].effect == pytest.approx(0.3)
    assert (found["label"].control, found["label"].control_units) == (pytest.approx(2 / 3), 2)


def test_a_treatment_that_failed_counts_with_what_its_client_got() -> None:
    rows = pa.table(
        {
            "unit": ["a", "b", "b", "c"],
            "variant": [variants.CONTROL, variants.TREATMENT, variants.FALLBACK, variants.FALLBACK],
            "error": pa.array([None, variants.LATE, None, None]),
            "answer_0": pa.array([0.3, None, 0.7, 0.5]),
            "label": pa.array([1.0, 1.0, 1.0, None]),
        }
    )
    found = result(rows)
    assert (found.control_units, found.treatment_units) == (1, 2)
    assert {m.name: m.treatment for m in found.measures}["prediction"] is None, "of one control, no mean"


def test_too_few_labels_are_no_result() -> None:
    assert in_words(result(attempts(np.random.default_rng(4), labels=False))).startswith("too few labels")
