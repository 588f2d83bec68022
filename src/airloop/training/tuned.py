"""Job: close a study: the parameters to train with, and what the trials looked like.

    python -m airloop.training.tuned --use-case NAME --study NAME [--result FILE]

Belongs here: what follows from a study. Does not belong here: its trials (`trial`), or its page
(`study_page`). Run again, it closes the same study in the same way, with the trials that were added.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from airloop.jobs import run_job
from airloop.references import Tuned
from airloop.settings import Settings
from airloop.training import tuning
from airloop.training.study_page import page_of, plots_of
from airloop.training.tracking import TrainingRuns
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.whole_files import write_whole

log = logging.getLogger(__name__)

STUDY_FILE = "study.json"
STUDY_PAGE = "study.html"


def close_study(settings: Settings, spec: UseCase, name: str) -> Tuned:
    """The study's best parameters; its page and plots go to the reports folder and an MLflow run.

    Raises `TuningError` when there is no such study, or none of its trials is complete.
    """
    study = tuning.load_study(settings, spec, name)
    training_set = tuning.training_set_of(study)
    best, parameters = tuning.best_parameters(study, spec)
    folder = settings.reports_dir / spec.name / training_set.tag / "study"
    page = folder / STUDY_PAGE
    tuned = _outcome(study, spec, best, dict(parameters), page)
    plots = plots_of(study, spec)
    for file, image in plots.items():
        _write_whole(folder / file, image)
    loss = spec.label.target.loss.name
    write_whole(page, page_of(study, spec, tuned, best, training_set.tag, plots))
    write_whole(folder / STUDY_FILE, tuned.model_dump_json(indent=2, exclude={"run_id", "page_uri"}))
    for former in folder.glob("*.png"):
        if former.name not in plots:
            former.unlink()
    run_id = TrainingRuns(settings, spec).report(
        "study",
        name,
        params={key: repr(value) for key, value in tuned.parameters.items()}
        | {"training_set": training_set.tag},
        metrics={f"trial_{loss}": _losses(study), f"best_{loss}": [tuned.loss]},
        artifacts=folder,
    )
    log.info("study %s: %s", name, tuned.parameters if tuned.improved else "the spec's own parameters stay")
    return tuned.model_copy(update={"run_id": run_id})


def _outcome(
    study: optuna.Study, spec: UseCase, best: FrozenTrial, parameters: dict[str, int | float], page: Path
) -> Tuned:
    own = tuning.finished(study, tuning.OWN_SLOT)
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    complete, pruned = states.count(TrialState.COMPLETE), states.count(TrialState.PRUNED)
    assert best.value is not None, "complete trials have one"
    return Tuned(
        study=study.study_name,
        parameters=parameters,
        improved=parameters != dict(spec.training.parameters),
        loss=best.value,
        own_loss=own.value if own is not None and own.state == TrialState.COMPLETE else None,
        complete=complete,
        pruned=pruned,
        unfinished=len(states) - complete - pruned,
        run_id="",
        page_uri=page.as_uri(),
    )


def _losses(study: optuna.Study) -> list[float]:
    """Of the complete trials, in order."""
    found = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial.value for trial in found if trial.value is not None and math.isfinite(trial.value)]


def _write_whole(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    aside.write_bytes(content)
    aside.replace(file)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Close a study.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--study", required=True, help="the study's name, as airloop.training.study gave it")

    def work(arguments: argparse.Namespace, settings: Settings) -> Tuned:
        return close_study(settings, use_case(arguments.use_case), arguments.study)

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
