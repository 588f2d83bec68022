"""Job: measure a candidate on the test window, and write its verdict and its model card.

    python -m airloop.training.evaluate --use-case NAME --training-set JSON --candidate JSON [--result FILE]

Belongs here: measuring candidate, baseline and champion on the same rows. Does not belong here: the rules
(`airloop.verdict`). A rejected candidate is a success of this job: the gate decides by `accepted`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from airloop import baseline
from airloop.errors import HistoryError, RegistryError
from airloop.jobs import run_job
from airloop.monitoring.profile import ARTIFACT as PROFILE
from airloop.monitoring.profile import profile_of
from airloop.references import Candidate, Evaluated, TrainingSet
from airloop.registry import CHAMPION, EXPLANATION_BACKGROUND, SAVED_MODEL, download_artifacts, version_behind
from airloop.row_losses import row_losses
from airloop.serving_history import recorded_champion
from airloop.settings import Settings
from airloop.signed_models import download_verified
from airloop.training import probes
from airloop.training.arguments import parse_reference, training_parser, training_set_of
from airloop.training.bootstrap import RESAMPLES, gain_range, ranges
from airloop.training.examples import Examples, event_days, read_examples
from airloop.training.explain import background_document
from airloop.training.importance import FEWEST_ROWS, importance_of
from airloop.training.measures import measure, reliability
from airloop.training.model_card import CardFacts, lineage_tags, windows
from airloop.training.publication import publish
from airloop.training.served_model import ServedModel
from airloop.training.serving_cost import serving_cost
from airloop.training.slices import Slice, slices_of
from airloop.training.tracking import TRAINING_SET, TrainingRuns
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.verdict import Champion, Resampling, SliceMeasures, judge
from airloop.work_folders import work_folder

log = logging.getLogger(__name__)


def evaluate(settings: Settings, spec: UseCase, training_set: TrainingSet, candidate: Candidate) -> Evaluated:
    """Judge `candidate` on the test split of `training_set`; verdict and card go to its run and to a report.

    Raises `RegistryError` when the run is not complete or was trained on another training set, and
    `HistoryError` when the training set is not what its reference says.
    """
    target = spec.label.target
    runs = TrainingRuns(settings, spec)
    run = runs.complete_run(candidate.run_id)
    if run.data.tags.get(TRAINING_SET) != training_set.tag:
        raise RegistryError(
            expected=f"run {candidate.run_id} to be trained on {training_set.tag}",
            found=f"{run.data.tags.get(TRAINING_SET)}",
            next_step="pass the reference that training was given",
        )
    with work_folder(settings, "evaluate") as scratch:
        test = read_examples(settings, spec, training_set, "test")
        folder = scratch / "candidate"
        model = load_model(settings, spec, candidate.run_id, folder)
        found = {"candidate": model.predict(test.columns)}
        train = _train_rows(settings, spec, training_set)
        rates = None
        if train is not None:
            usual = baseline.fit(target, spec.gates.baseline, train.columns, train.labels)
            rates = usual.predict(test.columns)
        if rates is not None:
            found["baseline"] = rates
        champion, theirs = _champion(settings, spec, test, scratch / "champion")
        if theirs is not None:
            found["champion"] = theirs
        days = event_days(spec, test)
        verdict = judge(
            use_case=spec.name,
            target=target,
            gates=spec.gates,
            run_id=candidate.run_id,
            training_set=training_set,
            candidate=measure(target, test.labels, found["candidate"]),
            baseline=None if rates is None else measure(target, test.labels, rates),
            champion=champion,
            ranges=ranges(target, found, test.labels, days, spec.training.seed),
            resampling=Resampling(blocks=len(np.unique(days)), resamples=RESAMPLES),
            slices=tuple(
                _on_slice(spec, part, test.labels, found["candidate"], rates, days)
                for part in slices_of(spec, test.columns)
            ),
            reliability=reliability(target, test.labels, found["candidate"]),
            serving_cost=serving_cost(model, folder / SAVED_MODEL, test.columns),
            behaviours=tuple(probes.behaviours(spec, model, test)),
            leaks=tuple(probes.single_inputs(spec, test)),
        )
        finite = np.isfinite(found["candidate"]).all()
        if train is not None and finite:
            profile = profile_of(
                *(spec, candidate.run_id),
                train=train.columns,
                train_days=event_days(spec, train),
                predictions=found["candidate"],
                labels=test.labels,
                test_days=days,
            )
            runs.log_text(candidate.run_id, PROFILE, profile.model_dump_json())
        explained = None
        if len(test) >= FEWEST_ROWS and finite:
            explained, background = importance_of(spec, model, test)
            runs.log_text(candidate.run_id, EXPLANATION_BACKGROUND, background_document(background))
    facts = CardFacts(
        windows=tuple(windows(settings, spec, training_set)),
        importance=explained,
        tags=lineage_tags(run.data.tags),
        params=dict(sorted(run.data.params.items())),
    )
    return publish(settings, spec, runs, verdict, facts)


def _on_slice(
    spec: UseCase,
    part: Slice,
    labels: np.ndarray,
    ours: np.ndarray,
    rates: np.ndarray | None,
    days: np.ndarray,
) -> SliceMeasures:
    rows, target = part.rows, spec.label.target
    candidate = measure(target, labels[rows], ours[rows])
    if rates is None:
        return SliceMeasures(name=part.name, candidate=candidate, baseline=None)
    gains = row_losses(target, labels[rows], rates[rows]) - row_losses(target, labels[rows], ours[rows])
    return SliceMeasures(
        name=part.name,
        candidate=candidate,
        baseline=measure(target, labels[rows], rates[rows]),
        gain=gain_range(gains, days[rows], spec.training.seed),
    )


def load_model(settings: Settings, spec: UseCase, run_id: str, folder: Path) -> ServedModel:
    """The run's SavedModel; raises `RegistryError` when it cannot be asked."""
    return _asked(
        spec, download_artifacts(settings, run_id, SAVED_MODEL, folder), f"the model of run {run_id}"
    )


def _asked(spec: UseCase, folder: Path, what: str) -> ServedModel:
    model = ServedModel(folder)
    if differences := model.differences(spec):
        raise RegistryError(
            expected=f"{what} to take the inputs of {spec.name}",
            found="; ".join(differences),
            next_step="train a model with the present spec; where the champion cannot be compared, a person "
            "may let a candidate through (docs/runbooks/candidate_rejected.md)",
        )
    return model


def _train_rows(settings: Settings, spec: UseCase, training_set: TrainingSet) -> Examples | None:
    """None where they are not what the reference says: the verdict then has no baseline, and rejects."""
    try:
        return read_examples(settings, spec, training_set, "train")
    except HistoryError as error:
        log.error("no baseline: %s", error)
        return None


def _champion(
    settings: Settings, spec: UseCase, rows: Examples, folder: Path
) -> tuple[Champion | None, np.ndarray | None]:
    """The champion on `rows`, and its predictions; none only when nothing ever served.

    An alias that was taken away (an erasure does, of a model that goes on serving) leaves the version that
    was promoted last. One that cannot be read or asked, or is not as it was signed, is a fact for the
    verdict, not a failure of this job; a registry that does not answer is, so that a retry can find it.
    """
    version = version_behind(settings, spec.model_name, CHAMPION)
    if version is None:
        version = recorded_champion(settings, spec.name)
    if version is None:
        return None, None
    try:
        verified = download_verified(settings, spec.model_name, version, folder)
        model = _asked(spec, verified / SAVED_MODEL, f"version {version} of model {spec.model_name}")
        found = model.predict(rows.columns)
    except RegistryError as error:
        return Champion(version=version, measures=None, problem=str(error)), None
    return Champion(version=version, measures=measure(spec.label.target, rows.labels, found)), found


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = training_parser("Measure a candidate and write its verdict.")
    parser.add_argument("--candidate", required=True, help="Candidate reference, JSON")

    def work(arguments: argparse.Namespace, settings: Settings) -> Evaluated:
        return evaluate(
            settings,
            use_case(arguments.use_case),
            training_set_of(arguments),
            parse_reference(Candidate, arguments.candidate, "--candidate"),
        )

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
