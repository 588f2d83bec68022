"""The answers of the prediction log as numbers.

Belongs here: from the log's column to arrays, by the label's kind. Does not belong here: what an answer costs
(`airloop.row_losses`), or whether answers drift (`airloop.monitoring`).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airloop.use_cases.target import Target

COLUMN = "answer"
"""Of the log's table."""


def numbers_of(answers: pa.Array | pa.ChunkedArray, target: Target) -> np.ndarray:
    """Lists of numbers as float64 [rows], or [rows, numbers of an answer] where these are several.

    NaN where there is no answer, or another spec's label had another number of them.
    """
    width = len(target.answers)
    right = pc.equal(pc.fill_null(pc.list_value_length(answers), 0), width)
    found = np.full((len(answers), width), np.nan)
    flat = pc.list_flatten(answers.filter(right)).to_numpy(zero_copy_only=False)
    found[right.to_numpy(zero_copy_only=False)] = flat.reshape(-1, width)
    return shaped(target, found)


def shaped(target: Target, numbers: np.ndarray) -> np.ndarray:
    """Answers as formulas take them, from [rows, numbers of an answer]: [rows] where each is one number."""
    return numbers if target.is_wide else numbers[:, 0]


def one_number(target: Target, answers: np.ndarray) -> np.ndarray:
    """What stands for each answer, [rows]: of several classes the number of the most probable, of quantiles
    the one in the middle (of an even number the lower of the two), else the answer itself."""
    if target.kind == "multiclass":
        found: np.ndarray = answers.argmax(axis=1)
        return found
    return answers[:, (answers.shape[1] - 1) // 2] if target.kind == "quantiles" else answers
