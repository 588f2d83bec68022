"""Asking versions: the champion, which must answer, others that may fail, and copies that nobody waits for.

Belongs here: one attempt at one version, how it may end, and who is left alone for a moment. Does not belong
here: which version is asked (`versions`), or what becomes of the answer (`prediction`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from airloop.prediction_log import variants
from airloop.prediction_request import InputValue
from airloop.use_cases.spec import UseCase
from serving.gateway.circuit import Circuit, CircuitOpen
from serving.gateway.pace import Pace
from serving.model_server_client import (
    ModelServer,
    ModelServerDown,
    ModelServerLate,
    ModelServerRefused,
    Prediction,
    predict_request,
)

log = logging.getLogger(__name__)

_NOT_LOADED: Final = "Servable not found for request"
"""How the model server begins its NOT_FOUND for a version that is not loaded (any more, or yet). A model may
fail with that code too, and then it is the model's fault."""

Columns = dict[str, list[InputValue]]
Trace = Sequence[tuple[str, str]]


class NotFinite(Exception):
    """A version answered, with something that is no number."""


@dataclass(frozen=True)
class Attempt:
    """What came of asking a version."""

    version: int
    answers: tuple[tuple[float, ...], ...] | None
    """One per row (`Prediction.answers`); None where there was no usable answer."""
    error: str | None
    """Why: `airloop.prediction_log.variants`."""
    seconds: float


class Versions:
    """Asks the versions on a model server; threads may share it.

    A server, or a version, that keeps failing is not asked for a moment (`Circuit`): waiting for it would
    take the threads that could tell clients so.
    """

    def __init__(self, model_server: ModelServer, *, timeout: float) -> None:
        self._server = model_server
        self._timeout = timeout
        self._circuit = Circuit("model server", (ModelServerDown, ModelServerLate))
        self._candidates: dict[tuple[str, int], Circuit] = {}
        self._inputs: dict[tuple[str, int | str], frozenset[str]] = {}
        self._met: set[tuple[str, int]] = set()
        self._paces: dict[str, tuple[int, Pace]] = {}
        """By model, its shadow and how fast that may be asked."""

    def champion(self, use_case: UseCase, label: str, columns: Columns, trace: Trace) -> Attempt:
        """The answer of the version behind `label`.

        Raises `ModelServerDown`, `ModelServerLate`, `ModelServerRefused`, `NotFinite` or `CircuitOpen`.
        """
        begun = time.perf_counter()
        found = self._circuit.call(lambda: self._answer(use_case, label, columns, trace, self._timeout))
        seconds = time.perf_counter() - begun
        if use_case.model_name in self._paces:
            self._paces[use_case.model_name][1].champion_took(seconds)
        return Attempt(found.version, found.answers, None, seconds)

    def candidate(self, use_case: UseCase, version: int, columns: Columns, trace: Trace) -> Attempt | None:
        """What came of asking `version`, within the time that the spec gives it; None if it was not asked."""
        self._meet(use_case, version)
        circuit = self._circuit_of(use_case, version)
        timeout = min(self._timeout, use_case.rollout.candidate_timeout_seconds)
        begun = time.perf_counter()
        try:
            found = circuit.call(lambda: self._answer(use_case, version, columns, trace, timeout))
        except CircuitOpen:
            return None
        except (ModelServerDown, ModelServerLate, ModelServerRefused, NotFinite) as error:
            return Attempt(version, None, error_of(error), time.perf_counter() - begun)
        return Attempt(found.version, found.answers, None, time.perf_counter() - begun)

    def copy(
        self, use_case: UseCase, version: int, columns: Columns, done: Callable[[Attempt], None]
    ) -> bool:
        """Ask `version` too, and have `done` called with what came of it; whether it was asked.

        It is not where it fails to keep up, or keeps failing.
        """
        self._meet(use_case, version)
        circuit = self._circuit_of(use_case, version)
        pace = self._pace_of(use_case, version)
        if circuit.is_open or not pace.begin():
            return False
        begun = time.perf_counter()

        def finished(found: Prediction | Exception) -> None:
            seconds = time.perf_counter() - begun
            pace.end(seconds)
            circuit.count(found if isinstance(found, ModelServerLate | ModelServerDown) else None)
            try:
                if isinstance(found, Exception):
                    done(Attempt(version, None, error_of(found), seconds))
                elif not found.is_finite:
                    done(Attempt(version, None, variants.NOT_FINITE, seconds))
                else:
                    done(Attempt(version, found.answers, None, seconds))
            except Exception:
                log.exception("a copy's answer could not be kept")

        request = predict_request(
            use_case, columns, version=version, inputs=self._inputs.get((use_case.model_name, version))
        )
        # No client waits, so a slow answer is better than none: how slow is what is to be found out.
        timeout = 10 * use_case.rollout.candidate_timeout_seconds
        self._server.answer_later(request, finished, timeout=timeout)
        return True

    def inputs(self, use_case: UseCase, version: int | str) -> frozenset[str] | None:
        """The inputs that `version` takes, where they are known not to be the spec's."""
        return self._inputs.get((use_case.model_name, version))

    def _answer(
        self, use_case: UseCase, version: int | str, columns: Columns, trace: Trace, timeout: float
    ) -> Prediction:
        known = self.inputs(use_case, version)
        request = predict_request(use_case, columns, version=version, inputs=known)
        try:
            found = self._server.answer(request, timeout=timeout, metadata=trace)
        except ModelServerRefused as refusal:
            # It may have been trained with an older spec, or just have followed one that was.
            if refusal.code != "INVALID_ARGUMENT" or not self._learn_inputs(use_case, version, known):
                raise
            request = predict_request(
                use_case, columns, version=version, inputs=self.inputs(use_case, version)
            )
            found = self._server.answer(request, timeout=timeout, metadata=trace)
        if not found.is_finite:
            raise NotFinite(f"version {found.version} answered {found.answers[:5]}")
        return found

    def _pace_of(self, use_case: UseCase, version: int) -> Pace:
        known, pace = self._paces.get(use_case.model_name, (None, None))
        if pace is None or known != version:
            pace = Pace()
            self._paces[use_case.model_name] = (version, pace)
        return pace

    def _circuit_of(self, use_case: UseCase, version: int) -> Circuit:
        failures = (ModelServerDown, ModelServerLate, ModelServerRefused, NotFinite)
        key = (use_case.model_name, version)
        return self._candidates.setdefault(key, Circuit(f"version {version}", failures))

    def _meet(self, use_case: UseCase, version: int) -> None:
        """Ask once which inputs a version takes that clients do not depend on."""
        key = (use_case.model_name, version)
        if key not in self._met:
            self._met.add(key)
            self._learn_inputs(use_case, version, None)

    def _learn_inputs(self, use_case: UseCase, version: int | str, known: frozenset[str] | None) -> bool:
        """Ask which inputs `version` takes; whether they are others than were sent, and all in the spec."""
        sent = known if known is not None else frozenset(item.name for item in use_case.inputs)
        try:
            taken = self._server.inputs(use_case.model_name, version, timeout=self._timeout)
        except (ModelServerDown, ModelServerLate, ModelServerRefused):
            return False
        if taken == sent or not taken <= {item.name for item in use_case.inputs}:
            return False
        self._inputs[use_case.model_name, version] = taken
        return True


def error_of(error: Exception) -> str:
    """The word for a failure in the prediction log."""
    match error:
        case NotFinite():
            return variants.NOT_FINITE
        case ModelServerLate():
            return variants.LATE
        case ModelServerRefused(code=code, message=message):
            not_loaded = code == "NOT_FOUND" and message.startswith(_NOT_LOADED)
            return variants.DOWN if not_loaded else variants.REFUSED
        case _:
            return variants.DOWN
