"""Job: what all folds of a cross-validation say together: mean and spread, in an MLflow run.

    python -m airloop.training.cross_validated --use-case NAME --training-set JSON --measured JSON
        [--parameters JSON] [--code-commit SHA] [--result FILE]

Belongs here: collecting the folds. Does not belong here: measuring them (`fold`), or judging a candidate by
them: no rule of the verdict does, for folds are few, and share most of their rows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import statistics
import sys
from collections.abc import Sequence
from typing import Final

from pydantic import TypeAdapter, ValidationError

from airloop.errors import SpecError
from airloop.jobs import run_job
from airloop.references import CrossValidated, FoldMeasured, Spread, TrainingSet, Tuned
from airloop.settings import Settings
from airloop.training import folds, learning
from airloop.training.arguments import parse_reference
from airloop.training.provenance import code_commit
from airloop.training.tracking import CODE_COMMIT, TrainingRuns, params_of_run
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.whole_files import write_whole
from airloop.work_folders import work_folder

log = logging.getLogger(__name__)

DOCUMENT: Final = "cross_validation.json"
_FOLDS: Final = TypeAdapter(tuple[FoldMeasured, ...])


def collect(
    settings: Settings,
    spec: UseCase,
    training_set: TrainingSet,
    measured: Sequence[FoldMeasured],
    commit: str,
    *,
    tuned: Tuned | None = None,
) -> CrossValidated:
    """Mean and spread of each measure over the folds; they go to an MLflow run of the use case's experiment.

    A measure that one fold lacks has none. Raises `SpecError` when a fold is missing or there twice.
    """
    ordered = sorted(measured, key=lambda fold: fold.fold)
    wanted = list(range(folds.policy_of(spec).folds))
    if (numbers := [fold.fold for fold in ordered]) != wanted:
        raise SpecError(
            expected=f"the folds {wanted}, each once",
            found=f"{numbers}",
            next_step="run airloop.training.fold for each of those that airloop.training.folds lists",
        )
    spec = learning.with_parameters(spec, tuned)
    params = {**params_of_run(spec, training_set, tuned), CODE_COMMIT: commit}
    digest = hashlib.sha256(json.dumps([training_set.snapshot_id, sorted(params.items())]).encode())
    by_figure = {
        figure.name: [fold.figures.get(figure.name) for fold in ordered]
        for figure in spec.label.target.figures
    }
    spreads = {name: _spread(values) for name, values in by_figure.items()}
    metrics = {f"fold_{name}": values for name, values in by_figure.items()}
    known = {
        name: [value for value in values if value is not None]
        for name, values in metrics.items()
        if None not in values
    }
    for name, spread in spreads.items():
        if spread is not None:
            known |= {f"folds_{name}_mean": [spread.mean], f"folds_{name}_deviation": [spread.deviation]}
    runs = TrainingRuns(settings, spec)
    with work_folder(settings, "cross-validated") as scratch:
        document = {
            "training_set": training_set.model_dump(mode="json"),
            "study": tuned.study if tuned else None,
            "parameters": dict(spec.training.parameters),
            "folds": [fold.model_dump(mode="json", exclude={"summary"}) for fold in ordered],
            **{name: spread.model_dump() if spread else None for name, spread in spreads.items()},
        }
        write_whole(scratch / DOCUMENT, json.dumps(document, indent=2))
        run_id = runs.report(
            "cross_validation",
            f"{spec.name}-{training_set.tag}-folds-{digest.hexdigest()[:12]}",
            params=params,
            metrics=known,
            artifacts=scratch,
        )
    for name, spread in spreads.items():
        log.info("%s: %s", name, f"{spread.mean:.4f} ± {spread.deviation:.4f}" if spread else "not defined")
    return CrossValidated(
        run_id=run_id, document_uri=runs.artifact_uri(run_id, DOCUMENT), folds=len(ordered), figures=spreads
    )


def _spread(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return Spread(mean=statistics.fmean(known), deviation=statistics.stdev(known))


def _parse(text: str) -> tuple[FoldMeasured, ...]:
    try:
        return _FOLDS.validate_json(text)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise SpecError(
            expected="--measured to be a JSON list of FoldMeasured references",
            found=found,
            next_step="pass what airloop.training.fold wrote to its result files, as a list",
        ) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Collect the folds of a cross-validation.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--training-set", required=True, help="TrainingSet reference, JSON")
    parser.add_argument("--measured", required=True, help="FoldMeasured references, a JSON list")
    parser.add_argument("--parameters", help="Tuned reference, JSON; without it the spec's parameters")
    parser.add_argument("--code-commit", help="commit to record; by default the repository's")

    def work(arguments: argparse.Namespace, settings: Settings) -> CrossValidated:
        return collect(
            settings,
            use_case(arguments.use_case),
            parse_reference(TrainingSet, arguments.training_set, "--training-set"),
            _parse(arguments.measured),
            arguments.code_commit or code_commit(settings.repository),
            tuned=parse_reference(Tuned, arguments.parameters, "--parameters")
            if arguments.parameters
            else None,
        )

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
