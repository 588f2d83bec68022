"""Infra check: a candidate loads on the model server beside the champion and answers as training predicted.

Belongs here: the check. Does not belong here: giving the candidate any traffic (`promote`), or judging how
good it is (the evaluation gate has done that).
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Mapping, Sequence

from airloop import registry
from airloop.errors import RolloutError
from airloop.jobs import run_job
from airloop.prediction_request import InputValue
from airloop.references import InfraChecked
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from serving.model_config import exclusive, read_models, served_model, write_models
from serving.model_server_client import ModelServer, ModelServerRefused
from serving.rollout import candidate_version, load_version, rollout_parser, stage_model

log = logging.getLogger(__name__)

REPLAY_TIMEOUT_SECONDS = 30.0


def parse_recorded(spec: UseCase, text: str) -> tuple[dict[str, list[InputValue]], tuple[float, ...]]:
    """The recorded model inputs, by name, and the probabilities that training computed for them.

    Raises `RolloutError` unless every model input has one value for every probability, and there is one.
    """
    try:
        document = json.loads(text)
        probability = tuple(float(value) for value in document["probability"])
        columns: dict[str, list[InputValue]] = {
            item.name: [math.nan if value is None else value for value in document["inputs"][item.name]]
            for item in spec.inputs
        }
        problem = "no rows" if not probability else ""
        uneven = [name for name, values in columns.items() if len(values) != len(probability)]
        if uneven:
            problem = f"{len(probability)} probabilities, but another number of {', '.join(uneven)}"
    except (ValueError, TypeError, KeyError) as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        raise RolloutError(
            expected=f"{registry.RECORDED_REQUESTS} to hold every model input and its probabilities",
            found=problem,
            next_step="train the model again with the present spec",
        )
    return columns, probability


def largest_difference(
    columns: Mapping[str, Sequence[InputValue]],
    recorded: Sequence[float],
    answered: Sequence[float],
    limit: float,
) -> float:
    """The largest absolute difference between the two, which must not be above `limit`.

    Raises `RolloutError` with the row where it is largest; an answer that is no number differs infinitely.
    """
    if len(answered) != len(recorded):
        raise RolloutError(
            expected=f"{len(recorded)} probabilities",
            found=f"{len(answered)}",
            next_step="check the model's serving signature: one probability per row",
        )
    differences = [
        abs(a - b) if math.isfinite(b) else math.inf for a, b in zip(recorded, answered, strict=True)
    ]
    worst = max(range(len(differences)), key=differences.__getitem__)
    if not differences[worst] <= limit:
        row = {name: values[worst] for name, values in columns.items()}
        raise RolloutError(
            expected=f"every recorded request answered within {limit:g} of what training computed",
            found=f"a difference of {differences[worst]:.6g} at row {worst} of {len(recorded)}: recorded "
            f"{recorded[worst]!r}, answered {answered[worst]!r}, for {row}",
            next_step="compare the TensorFlow versions and hardware of training and serving; the champion "
            "keeps serving",
        )
    return differences[worst]


def infra_check(settings: Settings, spec: UseCase, version: int | None) -> InfraChecked:
    """Load `version` (by default the challenger, else the champion) and replay its recorded requests.

    Leaves it loaded and in the model config, without a label. Raises `RegistryError` when there is no such
    version or its artifacts are not as they were signed, `RolloutError` when it does not load or answers
    differently; the config file is then as before.
    """
    name = spec.model_name
    version = candidate_version(settings, spec, version)
    with exclusive(settings), ModelServer.of(settings) as server:
        columns, recorded = parse_recorded(spec, stage_model(settings, name, version))
        models = read_models(settings)
        models[name] = served_model(settings, models, name).with_version(version)
        load_version(server, models, name, version, timeout=spec.rollout.load_timeout_seconds)
        try:
            answer = server.predict(spec, columns, version=version, timeout=REPLAY_TIMEOUT_SECONDS)
        except ModelServerRefused as refusal:
            raise RolloutError(
                expected=f"version {version} of model {name} to answer its recorded requests",
                found=str(refusal),
                next_step="check that the model's serving signature has the spec's inputs",
            ) from None
        limit = spec.rollout.max_absolute_difference
        difference = largest_difference(columns, recorded, answer.probability, limit)
        write_models(settings, models)
    log.info("version %d of model %s answers as training predicted", version, name)
    return InfraChecked(
        name=name, version=version, requests_replayed=len(recorded), largest_difference=difference
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> InfraChecked:
        return infra_check(settings, use_case(arguments.use_case), arguments.version)

    return run_job(rollout_parser(__doc__, version_required=False), work, argv)


if __name__ == "__main__":
    sys.exit(main())
