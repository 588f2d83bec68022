"""Explanations: what each input adds to one prediction of the champion, or takes from it.

Belongs here: the champion's explainer, asked through the model server. Does not belong here: how
contributions are computed (`airloop.training.explain`, which the model card uses too).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import BaseModel

from airloop.errors import RegistryError
from airloop.prediction_log.answers import shaped
from airloop.use_cases.spec import UseCase
from serving.gateway import problems
from serving.gateway.attempts import Columns
from serving.model_server_client import ModelServer, ModelServerDown, ModelServerLate, ModelServerRefused
from serving.staged import explanation_file

if TYPE_CHECKING:
    from airloop.training.explain import Explainer

MOST_AT_ONCE: Final = 2
"""An explanation asks the model about thousands of rows."""
ROWS_AT_ONCE: Final = 1000
"""Below the model server's largest batch (`serving/batching.config`)."""
TIMEOUT_SECONDS: Final = 10.0
_TYPES: Final = {"string": object, "double": np.float32}


class Contribution(BaseModel):
    """What one input did."""

    input: str
    value: str | float | int | None
    contribution: float
    """On the answer's scale: above 0 it made the outcome more likely, or the number greater."""


class Explained(BaseModel):
    """Why the champion says what it says of one request."""

    version: int
    prediction: dict[str, float]
    scale: str
    """What base and contributions are counted in."""
    base: float
    """Of the rows that stand for what is usual; with the contributions, it adds up to the prediction's."""
    contributions: list[Contribution]
    """The largest first."""


class _Asked:
    """A version on the model server, as an explainer asks a model."""

    def __init__(self, server: ModelServer, use_case: UseCase, version: int, inputs: frozenset[str]) -> None:
        self._server, self._use_case, self._version = server, use_case, version
        self.inputs: Mapping[str, Any] = {
            item.name: item.type for item in use_case.inputs if item.name in inputs
        }

    def predict(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Answers, [rows], or [rows, numbers of an answer]."""
        names = list(self.inputs)
        rows = len(columns[names[0]])
        found: list[tuple[float, ...]] = []
        for start in range(0, rows, ROWS_AT_ONCE):
            part = {name: columns[name][start : start + ROWS_AT_ONCE].tolist() for name in names}
            answer = self._server.predict(
                self._use_case, part, version=self._version, timeout=TIMEOUT_SECONDS, inputs=names
            )
            found += answer.answers
        return shaped(self._use_case.label.target, np.array(found, np.float32))


class Explanations:
    """Explains predictions; threads may share it. The first one of a process takes seconds longer."""

    def __init__(self, models_dir: Path, server: ModelServer) -> None:
        self._models_dir = models_dir
        self._server = server
        self._at_once = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._explainers: dict[str, tuple[int, Explainer]] = {}

    def explain(self, use_case: UseCase, version: int, columns: Columns) -> Explained:
        """What the inputs in `columns`, one row, did to the prediction of `version`; raises `Problem`."""
        if not self._at_once.acquire(blocking=False):
            raise problems.overloaded_explanations(MOST_AT_ONCE)
        try:
            explainer = self._explainer(use_case, version)
            row = {
                item.name: np.array(columns[item.name], _TYPES.get(item.type, np.int64))
                for item in use_case.inputs
            }
            found = explainer.explain(row)
        except ModelServerDown as error:
            raise problems.model_server_down(str(error)) from None
        except ModelServerLate as error:
            raise problems.model_server_late(str(error)) from None
        except ModelServerRefused as error:
            raise problems.model_server_refused(str(error)) from None
        finally:
            self._at_once.release()
        contributions = [
            Contribution(input=name, value=_plain(row[name][0]), contribution=float(values[0]))
            for name, values in found.contributions.items()
        ]
        contributions.sort(key=lambda item: -abs(item.contribution))
        return Explained(
            version=version,
            prediction=use_case.label.named(np.atleast_1d(found.answers[0]).tolist()),
            scale=use_case.label.target.scale,
            base=float(found.base[0]),
            contributions=contributions,
        )

    def _explainer(self, use_case: UseCase, version: int) -> Explainer:
        # Imported when first needed: shap and its compiler are large, and most gateways never explain.
        from airloop.training.explain import Explainer, read_background

        known = self._explainers.get(use_case.name)
        if known is not None and known[0] == version:
            return known[1]
        try:
            background = read_background(
                explanation_file(self._models_dir, use_case.model_name, version).read_text("utf-8")
            )
        except (OSError, RegistryError) as error:
            raise problems.no_explainer(use_case, version, str(error)) from None
        inputs = self._server.inputs(use_case.model_name, version)
        made = Explainer(
            use_case.label.target,
            _Asked(self._server, use_case, version, inputs),
            background,
            seed=use_case.training.seed,
        )
        self._explainers[use_case.name] = (version, made)
        return made


def _plain(value: Any) -> str | float | int | None:
    if isinstance(value, str):
        return value
    plain = value.item()
    return None if isinstance(plain, float) and not np.isfinite(plain) else plain
