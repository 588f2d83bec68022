"""Infra check: a candidate loads on a server of its own, answers as training predicted, quickly enough and in
little enough memory, and then loads beside the champion.

Belongs here: the check. Does not belong here: giving the candidate any traffic (`stage`, `promote`), or
judging how good it is (the evaluation gate has done that).
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from airloop import registry
from airloop.airflow_run import run_id
from airloop.errors import RolloutError
from airloop.jobs import run_job
from airloop.prediction_request import InputValue
from airloop.references import InfraChecked
from airloop.serving_history import recorded_champion
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from serving.model_config import exclusive, read_models, served_model, write_models
from serving.model_server_client import ModelServer, ModelServerDown, ModelServerLate, ModelServerRefused
from serving.rollout import candidate_version, rollout_parser, stage_model, version_folder
from serving.routing import forget_giving_up
from serving.scratch_server import ScratchServer, scratch_server
from serving.serve import bring_into_line, load_version

log = logging.getLogger(__name__)

REPLAY_TIMEOUT_SECONDS: Final = 30.0
TIMED_REQUESTS: Final = 200
"""Requests of one row in a round, after a tenth as many that are not timed."""
TIMED_ROUNDS: Final = 5
"""At most: the first that is within the spec's limit is enough."""


Answers = Sequence[tuple[float, ...]]
"""Of each row the numbers of an answer (`serving.model_server_client.Prediction`)."""


def parse_recorded(spec: UseCase, text: str) -> tuple[dict[str, list[InputValue]], Answers]:
    """The recorded model inputs, by name, and the answers that training computed for them.

    Raises `RolloutError` unless every model input has one value for every answer, and there is one.
    """
    try:
        document = json.loads(text)
        target = spec.label.target
        recorded = document[target.output]
        answers = [tuple(map(float, row)) if target.is_wide else (float(row),) for row in recorded]
        columns: dict[str, list[InputValue]] = {
            item.name: [math.nan if value is None else value for value in document["inputs"][item.name]]
            for item in spec.inputs
        }
        problem = "no rows" if not answers else ""
        uneven = [name for name, values in columns.items() if len(values) != len(answers)]
        if uneven:
            problem = f"{len(answers)} answers, but another number of {', '.join(uneven)}"
    except (ValueError, TypeError, KeyError) as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        raise RolloutError(
            expected=f"{registry.RECORDED_REQUESTS} to hold every model input and what was answered",
            found=problem,
            next_step="train the model again with the present spec",
        )
    return columns, answers


def largest_difference(
    columns: Mapping[str, Sequence[InputValue]],
    recorded: Answers,
    answered: Answers,
    limit: float,
    *,
    by: str,
) -> float:
    """The largest absolute difference between any two numbers, which must not be above `limit`.

    `by` is the address of the server that answered.

    Raises `RolloutError` with the row where it is largest; an answer that is no number differs infinitely.
    """
    if (shape := list(map(len, answered))) != (expected := list(map(len, recorded))):
        raise RolloutError(
            expected=f"{len(expected)} answers of {expected[0]} numbers",
            found=f"{len(shape)} by {by}, of {' or '.join(map(str, sorted(set(shape)))) or 'no'} numbers",
            next_step="check the model's serving signature: one answer per row",
        )
    differences = [
        max(abs(a - b) if math.isfinite(b) else math.inf for a, b in zip(was, told, strict=True))
        for was, told in zip(recorded, answered, strict=True)
    ]
    worst = max(range(len(differences)), key=differences.__getitem__)
    if not differences[worst] <= limit:
        row = {name: values[worst] for name, values in columns.items()}
        raise RolloutError(
            expected=f"every recorded request answered within {limit:g} of what training computed",
            found=f"a difference of {differences[worst]:.6g} at row {worst} of {len(recorded)}: recorded "
            f"{_words(recorded[worst])}, answered by {by} {_words(answered[worst])}, for {row}",
            next_step="compare the TensorFlow versions and hardware of training and serving; the champion "
            "keeps serving",
        )
    return differences[worst]


def infra_check(
    settings: Settings, spec: UseCase, version: int | None, *, apart: bool = True
) -> InfraChecked:
    """Check `version` (by default the challenger, else the champion) apart, then load it on the model server.

    Where nothing serves, though something did, the default is the champion on record.
    Without `apart` it has no server of its own first, and its latency and memory are not measured. Leaves it
    loaded and in the model config, without a label. A version that serves already was checked
    then. Raises `RegistryError` when there is no such version or its artifacts are not as they were signed,
    `RolloutError` when it does not load, answers differently, or is too slow or too large; what the model
    server serves is then as before.
    """
    name = spec.model_name
    bring_into_line(settings)
    model = served_model(settings, read_models(settings), name)
    if version is None and model.champion is None:
        # A models folder that was lost: whoever comes next must earn its traffic beside what served last.
        version = recorded_champion(settings, spec.name)
    version = candidate_version(settings, spec, version)
    was_there = version_folder(settings, name, version).exists()
    columns, recorded = parse_recorded(spec, stage_model(settings, name, version))
    checked = InfraChecked(
        name=name,
        version=version,
        champion=model.champion,
        requests_replayed=len(recorded),
        largest_difference=0.0,
    )
    if apart and version != checked.champion:
        try:
            with scratch_server(
                settings, name, version, timeout=spec.rollout.load_timeout_seconds
            ) as scratch:
                checked = _checked_apart(spec, scratch, checked, columns, recorded)
        except BaseException:
            if not was_there:
                shutil.rmtree(version_folder(settings, name, version), ignore_errors=True)
            raise
    with exclusive(settings), ModelServer.of(settings) as server:
        models = read_models(settings)
        models[name] = served_model(settings, models, name).with_version(version)
        load_version(server, models, name, version, timeout=spec.rollout.load_timeout_seconds)
        difference = replayed(spec, server, version, columns, recorded)
        write_models(settings, models)
    log.info("version %d of model %s answers as training predicted", version, name)
    return checked.model_copy(update={"largest_difference": max(difference, checked.largest_difference)})


def _checked_apart(
    spec: UseCase,
    scratch: ScratchServer,
    checked: InfraChecked,
    columns: Mapping[str, Sequence[InputValue]],
    recorded: Answers,
) -> InfraChecked:
    version = checked.version
    difference = replayed(spec, scratch.client, version, columns, recorded)
    limits = spec.rollout
    # A machine that is busy for a moment makes one round slow, a slow model makes all of them.
    p99 = _single_row_p99(spec, scratch.client, version, columns)
    for _ in range(TIMED_ROUNDS - 1):
        if p99 * 1000 <= limits.max_single_row_p99_milliseconds:
            break
        p99 = min(p99, _single_row_p99(spec, scratch.client, version, columns))
    memory = scratch.memory_mebibytes()
    if p99 * 1000 > limits.max_single_row_p99_milliseconds:
        raise RolloutError(
            expected=f"a row answered within {limits.max_single_row_p99_milliseconds:g} ms (99th percentile)",
            found=f"{p99 * 1000:.1f} ms, with the server to itself",
            next_step="train a smaller model, or allow more in the spec; the champion keeps serving",
        )
    if memory is not None and memory > limits.max_memory_mebibytes:
        raise RolloutError(
            expected=f"a model server of at most {limits.max_memory_mebibytes:g} MiB",
            found=f"{memory:.0f} MiB, with this version alone",
            next_step="train a smaller model, or allow more in the spec; the champion keeps serving",
        )
    return checked.model_copy(
        update={
            "largest_difference": difference,
            "single_row_p99_seconds": round(p99, 6),
            "memory_mebibytes": None if memory is None else round(memory, 1),
        }
    )


def replayed(
    spec: UseCase,
    server: ModelServer,
    version: int,
    columns: Mapping[str, Sequence[InputValue]],
    recorded: Answers,
) -> float:
    """Ask `version` its recorded requests, on each server that answers: one may have a damaged copy.

    Returns the largest difference from what training computed. Raises `RolloutError` when it is above the
    spec's, or the version does not answer.
    """
    found = 0.0
    try:
        for member in server.members():
            answer = member.predict(spec, columns, version=version, timeout=REPLAY_TIMEOUT_SECONDS)
            limit = spec.rollout.max_absolute_difference
            difference = largest_difference(columns, recorded, answer.answers, limit, by=member.address)
            found = max(found, difference)
    except ModelServerRefused as refusal:
        raise RolloutError(
            expected=f"version {version} of model {spec.model_name} to answer its recorded requests",
            found=str(refusal),
            next_step="check that the model's serving signature has the spec's inputs",
        ) from None
    except (ModelServerDown, ModelServerLate) as error:
        raise RolloutError(
            expected=f"version {version} of model {spec.model_name} to answer its recorded requests",
            found=str(error),
            next_step="read the model server's log: the version may have ended it, or be far too slow",
        ) from None
    return found


def _words(answer: tuple[float, ...]) -> str:
    return repr(answer[0] if len(answer) == 1 else answer)


def _single_row_p99(
    spec: UseCase, server: ModelServer, version: int, columns: Mapping[str, Sequence[InputValue]]
) -> float:
    """99th percentile of the seconds that one row takes, asked one after the other."""
    rows = len(next(iter(columns.values())))
    seconds = []
    for number in range(TIMED_REQUESTS + TIMED_REQUESTS // 10):
        row = {name: [values[number % rows]] for name, values in columns.items()}
        begun = time.perf_counter()
        server.predict(spec, row, version=version, timeout=REPLAY_TIMEOUT_SECONDS)
        seconds.append(time.perf_counter() - begun)
    return float(np.quantile(seconds[TIMED_REQUESTS // 10 :], 0.99))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> InfraChecked:
        spec = use_case(arguments.use_case)
        # A run that is cleared from its start begins anew, with what it gave up before.
        again = forget_giving_up(settings, spec.model_name, run_id())
        before = (again.candidate or again.champion) if again is not None else None
        return infra_check(settings, spec, arguments.version or before)

    return run_job(rollout_parser(__doc__, version_required=False), work, argv)


if __name__ == "__main__":
    sys.exit(main())
