"""Job: train a candidate on a pinned training set, and log it to MLflow with everything it came from.

    python -m airloop.training.train --use-case NAME --training-set JSON [--code-commit SHA] [--result FILE]

Belongs here: the order of the steps. Does not belong here: the steps. A rerun for the same training set,
spec and (clean) commit returns the run that is there; a run that died on the way is marked as failed.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from airloop.dotted import load
from airloop.jobs import run_job
from airloop.references import Candidate, TrainingSet
from airloop.registry import RECORDED_REQUESTS, SAVED_MODEL
from airloop.settings import Settings
from airloop.training import fitting, statistics
from airloop.training.arguments import parse_reference
from airloop.training.calibration import calibrate
from airloop.training.examples import Examples, read_examples, take
from airloop.training.network import Network, require_parameters
from airloop.training.provenance import code_commit
from airloop.training.served_model import ServedModel, export, recorded_requests
from airloop.training.tracking import TRAINING_SET_FILE, TrainingRuns, params_of_run, tags_of_run
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase

log = logging.getLogger(__name__)


def train(settings: Settings, spec: UseCase, training_set: TrainingSet, commit: str) -> Candidate:
    """Train on `training_set` and log the run.

    Raises `HistoryError` when the training set is not what its reference says, `SpecError` when the spec's
    builder or parameters are unusable; the run is then marked as failed.
    """
    runs = TrainingRuns(settings, spec)
    tags, params = tags_of_run(spec, training_set, commit), params_of_run(spec, training_set)
    if there := runs.finished_like(tags, params):
        log.info("run %s trained on %s already", there.info.run_id, training_set.tag)
        return Candidate(
            run_id=there.info.run_id, model_uri=runs.artifact_uri(there.info.run_id, SAVED_MODEL)
        )
    run_id = runs.start(tags, params)
    settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="train-", dir=settings.scratch_dir) as scratch:
            _train_into(Path(scratch), settings, spec, training_set, runs, run_id)
            runs.log_artifacts(run_id, Path(scratch))
        runs.finish(run_id)
    except BaseException:
        runs.fail(run_id)
        raise
    return Candidate(run_id=run_id, model_uri=runs.artifact_uri(run_id, SAVED_MODEL))


def _train_into(
    folder: Path,
    settings: Settings,
    spec: UseCase,
    training_set: TrainingSet,
    runs: TrainingRuns,
    run_id: str,
) -> None:
    """Write the run's artifacts to `folder`, and log its metrics on the way."""
    policy = spec.training
    require_parameters(policy.parameters, frozenset({"quantile_bins"}), "the statistics")
    fitting.make_deterministic(policy.seed, settings.training_threads)
    train_split = read_examples(settings, spec, training_set, "train")
    facts = statistics.compute(
        spec, train_split.columns, train_split.labels, bins=int(policy.parameters["quantile_bins"])
    )
    network: Network = load(policy.model_builder)(spec, facts, policy.parameters)
    encoded_train = fitting.encode(network, train_split.columns), train_split.labels
    del train_split
    validation = read_examples(settings, spec, training_set, "validation")
    encoded_validation = fitting.encode(network, validation.columns)

    def on_epoch(epoch: int, losses: Mapping[str, float]) -> None:
        log.info("epoch %d: %s", epoch, ", ".join(f"{name} {value:.5f}" for name, value in losses.items()))
        runs.log_metrics(run_id, losses, step=epoch)

    best = fitting.fit(
        network,
        encoded_train,
        (encoded_validation, validation.labels),
        policy.parameters,
        policy.seed,
        on_epoch,
    )
    calibration = calibrate(fitting.logits(network, encoded_validation), validation.labels, facts.prior_logit)
    runs.log_metrics(
        run_id,
        {
            "best_epoch": best,
            "calibration_slope": calibration.slope,
            "calibration_offset": calibration.offset,
            "train_base_rate": facts.base_rate,
        },
    )
    saved_model = folder / SAVED_MODEL
    export(network.served(slope=calibration.slope, offset=calibration.offset), spec, saved_model)
    sample = _evenly_spaced(
        read_examples(settings, spec, training_set, "test"), spec.rollout.replayed_requests
    )
    recorded = recorded_requests(ServedModel(saved_model), sample)
    (folder / RECORDED_REQUESTS).write_text(recorded, encoding="utf-8")
    (folder / TRAINING_SET_FILE).write_text(training_set.model_dump_json(indent=2), encoding="utf-8")


def _evenly_spaced(examples: Examples, rows: int) -> dict[str, np.ndarray]:
    """At most `rows` rows of `examples`, spread over the whole split."""
    indices = np.unique(np.linspace(0, len(examples) - 1, min(rows, len(examples))).round().astype(int))
    return take(examples.columns, indices)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Train a candidate on a pinned training set.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--training-set", required=True, help="TrainingSet reference, JSON")
    parser.add_argument("--code-commit", help="commit to record; by default the repository's")

    def work(arguments: argparse.Namespace, settings: Settings) -> Candidate:
        return train(
            settings,
            use_case(arguments.use_case),
            parse_reference(TrainingSet, arguments.training_set, "--training-set"),
            arguments.code_commit or code_commit(settings.repository),
        )

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
