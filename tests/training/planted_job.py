"""The training job for the planted use case, which is in no catalogue; for tests that need processes.

python -m tests.training.planted_job STATE TRAINING_SET [--workers N] [--result FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from pathlib import Path

from airloop.jobs import run_job
from airloop.references import Candidate, Followed, TrainingSet
from airloop.settings import Settings
from airloop.training import fitting, workers
from airloop.training.devices import TF_CONFIG
from airloop.training.train import stop_on_sigterm, train
from airloop.use_cases.spec import UseCase
from tests.training.conftest import COMMIT, settings_in
from tests.training.planted import planted_use_case

EPOCHS = 16


def long_use_case() -> UseCase:
    """Long enough to be killed in, with masks of every kind."""
    spec = planted_use_case()
    changes = {"max_epochs": EPOCHS, "patience_epochs": EPOCHS, "learning_rate": 0.002}
    changes |= {"dropout": 0.2, "category_dropout": 0.2, "input_dropout": 0.1}
    policy = spec.training.model_copy(update={"parameters": {**spec.training.parameters, **changes}})
    return spec.model_copy(update={"training": policy})


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("training_set")
    parser.add_argument("--workers", type=int, default=1)
    stop = threading.Event()
    stop_on_sigterm(stop)
    known, _ = parser.parse_known_args()
    if known.workers > 1 and TF_CONFIG not in os.environ:
        return workers.run_locally(known.workers, "tests.training.planted_job", sys.argv[1:], stop)
    fitting.CHECKPOINT_SECONDS = 0.2

    def work(arguments: argparse.Namespace, _: Settings) -> Candidate | Followed:
        training_set = TrainingSet.model_validate_json(arguments.training_set)
        return train(settings_in(arguments.folder), long_use_case(), training_set, COMMIT, stop)

    return run_job(parser, work)


if __name__ == "__main__":
    sys.exit(main())
