"""Why a model says what it says: what each input adds to one prediction, or takes from it.

Belongs here: contributions to single predictions, by the same code for a model card and for one request.
Does not belong here: what they are on average (`airloop.training.importance`), or showing them.

Contributions are Shapley values of the inputs (Lundberg and Lee, A Unified Approach to Interpreting Model
Predictions, NeurIPS 2017), by the library `shap`'s permutation explainer: the served model is asked with
some inputs of the row and the others of background rows. It sees the model as a server does, through raw
inputs, so it explains any model; what the model derives from an input counts as that input's.
"""

from __future__ import annotations

import json
import math
import threading
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np
import shap

from airloop.errors import RegistryError
from airloop.registry import EXPLANATION_BACKGROUND
from airloop.use_cases.target import Target

if TYPE_CHECKING:
    # The gateway explains too, and has no tables to read rows from.
    from airloop.training.examples import Columns

BACKGROUND_ROWS: Final = 50
PERMUTATIONS: Final = 1
"""Orders in which a row's inputs are put in, each forwards and backwards; one is exact for a model in which
no three inputs act together."""
_SMALLEST: Final = 1e-7


class Model(Protocol):
    """What can be explained: `airloop.training.served_model.ServedModel`, or a client of a model server."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The model's inputs by name."""

    def predict(self, columns: Columns) -> np.ndarray:
        """Answers, [rows], or [rows, numbers of an answer]."""


class Explained(NamedTuple):
    """Contributions on the scale of the label's kind (`scale`): in each row they add up to the
    prediction less `base`."""

    base: np.ndarray
    """The mean of the background rows, float64 [rows]: one value, but for the class that each row is given
    where there are several."""
    contributions: Mapping[str, np.ndarray]
    """By input, float64 [rows]; above 0 it made the outcome more likely, or the number greater."""
    answers: np.ndarray
    """What the model answers, as it does: [rows], or [rows, numbers of an answer]."""

    def total(self) -> np.ndarray:
        """What base and contributions add up to, [rows]."""
        total: np.ndarray = self.base + np.sum(list(self.contributions.values()), axis=0)
        return total


class Explainer:
    """Explains single predictions of one model against background rows.

    Log-odds, not probabilities: effects add up there as the model adds them up, and the same push counts the
    same near 0 and near 1. Of several classes it is that which the row is given; of quantiles their mean. A
    row's explanation depends on the row, the background and the seed, not on the
    rows beside it. Threads may share an explainer; they wait for one another. The first explanation of a
    process takes seconds longer: shap compiles its loops.
    """

    # shap draws from NumPy's global state.
    _random: Final = threading.Lock()

    def __init__(
        self,
        target: Target,
        model: Model,
        background: Columns,
        *,
        seed: int,
        permutations: int = PERMUTATIONS,
    ) -> None:
        """`background` has the rows, some tens, that stand for what is usual: base and missing inputs.

        Each explained row asks the model about 2 * inputs * permutations * background rows, in batches.
        """
        self._target, self._model = target, model
        self._names = tuple(model.inputs)
        self._background = {name: background[name] for name in self._names}
        self._seed = seed
        self._permutations = permutations

    def explain(self, columns: Columns) -> Explained:
        """What each input contributes to each row of `columns`, which may hold more than the inputs."""
        asked = {name: columns[name] for name in self._names}
        rows = len(next(iter(asked.values())))
        words, background, codes = self._encode(asked)

        usual, own = self._model.predict(self._background), self._model.predict(asked)
        given = own.argmax(axis=1) if self._target.kind == "multiclass" else np.zeros(rows, np.int64)
        masker = shap.maskers.Independent(background, max_samples=len(background))
        evaluations = self._permutations * (2 * len(self._names) + 1)
        values, base = np.zeros((rows, len(self._names))), np.zeros(rows)

        def explainer_of(number: int) -> Any:
            def answers(matrix: np.ndarray) -> np.ndarray:
                # Codes lead back to values of the input's own type: strings, NaN, instants to the second.
                places = matrix.astype(np.int64)
                columns = {name: words[name][places[:, i]] for i, name in enumerate(self._names)}
                return _on_scale(self._target, self._model.predict(columns), number)

            return shap.PermutationExplainer(answers, masker, seed=self._seed)

        with self._random:
            state = np.random.get_state()
            try:
                explainers = {number: explainer_of(number) for number in np.unique(given).tolist()}
                for row, number in enumerate(given.tolist()):
                    base[row] = _on_scale(self._target, usual, number).mean()
                    # Other orders for other rows, so that their mean gains from more than one.
                    np.random.seed(self._seed_of(asked, row))
                    found = explainers[number](codes[row : row + 1], max_evals=evaluations, silent=True)
                    values[row] = found.values[0]
            finally:
                np.random.set_state(state)
        return Explained(base, {name: values[:, i] for i, name in enumerate(self._names)}, own)

    def _encode(self, asked: Columns) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """The values of each input, and background and asked rows as places among them, [rows, inputs].

        shap calculates with numbers, and takes those for equal that differ by a hundred thousandth: instants
        hours apart. Places are whole numbers, and few enough.
        """
        words, columns = {}, []
        for name in self._names:
            both = np.concatenate([self._background[name], asked[name]])
            words[name], places = np.unique(both, return_inverse=True)
            columns.append(places)
        matrix = np.stack(columns, axis=1).astype(np.float64)
        size = len(next(iter(self._background.values())))
        return words, matrix[:size], matrix[size:]

    def _seed_of(self, asked: Columns, row: int) -> int:
        text = repr([asked[name][row : row + 1].tolist() for name in self._names])
        return zlib.crc32(text.encode(), self._seed)


def sample(columns: Columns, rows: int, seed: int) -> np.ndarray:
    """Numbers of `rows` rows (or all, if there are fewer), drawn without replacement, in order."""
    count = len(next(iter(columns.values())))
    drawn: np.ndarray = np.sort(np.random.default_rng(seed).permutation(count)[:rows])
    return drawn


def background_document(background: Columns) -> str:
    """`background` as JSON, for `EXPLANATION_BACKGROUND`."""
    inputs = {name: [_plain(value) for value in values.tolist()] for name, values in background.items()}
    return json.dumps({"inputs": inputs}, allow_nan=False)


def read_background(text: str) -> Columns:
    """The rows that `background_document` wrote, with their types; raises `RegistryError` for other text."""
    try:
        inputs = json.loads(text)["inputs"]
        columns = {name: _vector(values) for name, values in inputs.items()}
        if len({len(values) for values in columns.values()}) != 1:
            raise ValueError("inputs of different lengths")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryError(
            expected=f"{EXPLANATION_BACKGROUND} with rows of the model's inputs",
            found=f"{type(error).__name__}: {error}",
            next_step="evaluate the candidate again, which writes it",
        ) from None
    return columns


def _vector(values: list[Any]) -> np.ndarray:
    """As `Columns` has them: strings, else whole numbers, else numbers of which null is NaN."""
    if all(isinstance(value, str) for value in values):
        return np.array(values, object)
    if all(isinstance(value, int) for value in values):
        return np.array(values, np.int64)
    return np.array([math.nan if value is None else float(value) for value in values], np.float32)


def _on_scale(target: Target, answers: np.ndarray, number: int) -> np.ndarray:
    """Answers as they are explained, float64 [rows]; of several classes that of class `number`."""
    found: np.ndarray = answers.astype(np.float64)
    if target.has_classes:
        found = found[:, number] if found.ndim > 1 else found
        p = np.clip(found, _SMALLEST, 1 - _SMALLEST)
        found = np.log(p) - np.log1p(-p)
    return found if found.ndim == 1 else found.mean(axis=1)


def _plain(value: Any) -> str | int | float | None:
    plain: str | int | float = value
    return None if isinstance(value, float) and not math.isfinite(value) else plain
