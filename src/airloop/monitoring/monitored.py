"""What of a model's inputs is watched, and its values.

Belongs here: from a model's inputs, as training and serving have them, to the features whose spread is
compared. Does not belong here: counting them (`cells`), or where the inputs come from.

Instants are not watched by themselves: that they move on is no drift. What the model makes of them is: the
hour on the wall clock, and the hours between two of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import numpy as np

from airloop.prediction_log.answers import one_number
from airloop.use_cases.spec import UseCase
from airloop.use_cases.target import Target

PREDICTION: Final = "prediction"
"""What the model's answers are called among the features."""
SECONDS_PER_HOUR: Final = 3600


def watched(use_case: UseCase) -> dict[str, Literal["number", "category"]]:
    """The kind of each watched feature, by name."""
    found: dict[str, Literal["number", "category"]] = {}
    for item in use_case.inputs:
        if item.type == "string":
            found[item.name] = "category"
        elif item.type == "double":
            found[item.name] = "number"
        elif item.type == "local_time":
            found[f"{item.name}_hour"] = "number"
    return found | {span.name: "number" for span in use_case.elapsed}


def watched_inputs(use_case: UseCase) -> dict[str, frozenset[str]]:
    """The model inputs that each watched feature is made of."""
    found = {
        f"{item.name}_hour" if item.type == "local_time" else item.name: frozenset({item.name})
        for item in use_case.inputs
        if item.type != "instant"
    }
    return found | {span.name: frozenset({span.since, span.until}) for span in use_case.elapsed}


def watched_values(use_case: UseCase, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The values of each watched feature, [rows], from a model's inputs [rows] by name.

    Inputs have a missing value as a model does (`airloop.training.examples.Columns`): "" for text, NaN for a
    number, 0 for a time. Missing values of the result are "" and NaN.
    """
    found: dict[str, np.ndarray] = {}
    for item in use_case.inputs:
        values = inputs[item.name]
        if item.type in ("string", "double"):
            found[item.name] = values
        elif item.type == "local_time":
            hours = np.floor_divide(values, SECONDS_PER_HOUR) % 24
            found[f"{item.name}_hour"] = np.where(values == 0, np.nan, hours)
    for span in use_case.elapsed:
        since, until = inputs[span.since], inputs[span.until]
        hours = (until - since) / SECONDS_PER_HOUR
        found[span.name] = np.where((since == 0) | (until == 0), np.nan, hours)
    return found


def watched_answer(target: Target, answers: np.ndarray) -> np.ndarray:
    """What of each answer is watched, [rows]: `one_number` of it, or the name of the most probable class."""
    found = one_number(target, answers)
    return np.array(target.classes, object)[found] if target.kind == "multiclass" else found
