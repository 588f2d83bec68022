"""Job: open the study that tunes a use case's parameters on a pinned training set.

    python -m airloop.training.study --use-case NAME --training-set JSON [--trials N] [--minutes M]
        [--code-commit SHA] [--result FILE]

Belongs here: the budget. Does not belong here: what a study is (`tuning`), or its trials (`trial`). Run
again, it opens the same study, with the trials that it has and its time anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from airloop.jobs import run_job
from airloop.references import Study, TrainingSet
from airloop.settings import Settings
from airloop.training import tuning
from airloop.training.arguments import commit_of, training_parser, training_set_of
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase


def open_study(
    settings: Settings,
    spec: UseCase,
    training_set: TrainingSet,
    commit: str,
    *,
    opened: datetime,
    trials: int | None = None,
    minutes: int | None = None,
) -> Study:
    """Open the study; `trials` and `minutes` are the spec's where they are None.

    Raises `SpecError` when the spec has no search space.
    """
    policy = tuning.tuning_of(spec)
    name = tuning.open_study(
        settings, spec, training_set, commit, minutes=minutes or policy.minutes, opened=opened
    )
    return Study(name=name, slots=tuple(range(trials or policy.trials)))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = training_parser("Open the study that tunes a use case's parameters.", commit=True)
    parser.add_argument("--trials", type=int, help="how many trials; by default the spec's")
    parser.add_argument("--minutes", type=int, help="after how many no trial starts; by default the spec's")

    def work(arguments: argparse.Namespace, settings: Settings) -> Study:
        for name in ("trials", "minutes"):
            if (value := getattr(arguments, name)) is not None and value < 1:
                parser.error(f"--{name} must be at least 1, found {value}")
        return open_study(
            settings,
            use_case(arguments.use_case),
            training_set_of(arguments),
            commit_of(arguments, settings),
            opened=datetime.now(UTC),
            trials=arguments.trials,
            minutes=arguments.minutes,
        )

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
