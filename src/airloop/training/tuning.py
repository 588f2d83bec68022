"""A study: Optuna's search for better parameters, shared by jobs that know nothing of one another.

Belongs here: the study's name, storage, sampler and pruner, and what a slot is. Does not belong here:
training (`trial`), TensorFlow, or how a study is shown (`study_page`).

A study has as many slots as trials. A slot is done when it has a complete or a pruned trial; a trial that
died is given up, and its slot tries the same parameters again. The first slot has the spec's own parameters:
what the others must beat.

The sampler is the tree-structured Parzen estimator (Bergstra et al., Algorithms for Hyper-Parameter
Optimization, NIPS 2011), seeded by slot. What it proposes follows from the seed and the trials that finished
before: slots that run one after another propose the same parameters in every study of the same name. Slots
that run at once do not, for they see each other in another order.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.pool import NullPool

from airloop.errors import SpecError, TuningError
from airloop.references import TrainingSet
from airloop.settings import Settings
from airloop.training.provenance import is_reproducible
from airloop.use_cases.spec import UseCase
from airloop.use_cases.training_policy import Choices, Range, Tuning

log = logging.getLogger(__name__)

OWN_SLOT: Final = 0
"""The slot that tries the spec's own parameters."""
STARTUP_TRIALS: Final = 10
"""Trials before the sampler has seen enough and stops to draw at random: Optuna's default, but at most half
of the study's."""
_SLOT: Final = "slot"
_TRAINING_SET: Final = "training_set"
_ENDS_AT: Final = "ends_at"
_SQLITE_TIMEOUT_SECONDS: Final = 60


def tuning_of(spec: UseCase) -> Tuning:
    """How `spec` is tuned; raises `SpecError` when it does not say."""
    if spec.training.tuning is None:
        raise SpecError(
            expected=f"training.tuning in the spec of {spec.name}",
            found="none, so there is nothing to search",
            next_step="give it a search space and a budget, or train without tuning",
        )
    return spec.training.tuning


def study_name(spec: UseCase, training_set: TrainingSet, commit: str) -> str:
    """One for all trials that can be compared: the same rows, code, space and parameters beside it."""
    policy, tuning = spec.training, tuning_of(spec)
    made_from = [
        training_set.snapshot_id,
        commit,
        policy.model_dump(mode="json", include={"model_builder", "parameters", "seed"}),
        tuning.model_dump(mode="json", exclude={"trials", "minutes"}),
    ]
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12]
    return f"{spec.name}-{training_set.tag}-{digest}"


def open_study(
    settings: Settings,
    spec: UseCase,
    training_set: TrainingSet,
    commit: str,
    *,
    minutes: int,
    opened: datetime,
) -> str:
    """Create the study, or open it again with the trials that it has; no trial starts `minutes` after that.

    With code that is not pinned by its commit a study is begun anew: nobody could say what its trials ran.
    Returns its name.
    """
    name = study_name(spec, training_set, commit)
    storage = _storage(settings)
    if not is_reproducible(commit) and name in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=name, storage=storage)
    study = optuna.create_study(study_name=name, storage=storage, direction="minimize", load_if_exists=True)
    with _without_warnings():
        study.set_metric_names(["validation log loss"])
    study.set_user_attr(_TRAINING_SET, training_set.model_dump(mode="json"))
    study.set_user_attr(_ENDS_AT, (opened + timedelta(minutes=minutes)).timestamp())
    return name


def load_study(settings: Settings, spec: UseCase, name: str, slot: int = OWN_SLOT) -> optuna.Study:
    """The study `name`, with the sampler of `slot`; raises `TuningError` when there is none."""
    tuning = tuning_of(spec)
    sampler = optuna.samplers.TPESampler(
        seed=spec.training.seed + slot,
        n_startup_trials=min(STARTUP_TRIALS, max(1, tuning.trials // 2)),
        # Running trials are taken for bad ones, so that trials at once do not all look in one place. One that
        # died must not count where there is no such need.
        constant_liar=tuning.parallel_trials > 1,
    )
    pruner = optuna.pruners.MedianPruner(
        n_startup_trials=tuning.unpruned_trials, n_warmup_steps=tuning.warm_up_epochs
    )
    try:
        return optuna.load_study(study_name=name, storage=_storage(settings), sampler=sampler, pruner=pruner)
    except KeyError:
        raise TuningError(
            expected=f"a study {name}",
            found="none of that name in the studies' database",
            next_step="open it: airloop.training.study",
        ) from None


def training_set_of(study: optuna.Study) -> TrainingSet:
    """What the study's trials train on."""
    return TrainingSet.model_validate(study.user_attrs[_TRAINING_SET])


def is_over(study: optuna.Study, now: datetime) -> bool:
    """Whether the study's time is."""
    return now.timestamp() >= float(study.user_attrs[_ENDS_AT])


def trials_of(study: optuna.Study, slot: int) -> list[FrozenTrial]:
    """The slot's trials, oldest first."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get(_SLOT) == slot]


def finished(study: optuna.Study, slot: int) -> FrozenTrial | None:
    """The trial that the slot is done with, if it is."""
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    return next((trial for trial in trials_of(study, slot) if trial.state in done), None)


def ask(study: optuna.Study, spec: UseCase, slot: int) -> optuna.Trial:
    """A new trial for `slot`, after giving up those of it that died; it has the parameters that they had."""
    space = {name: _distribution(values) for name, values in tuning_of(spec).space.items()}
    known = spec.training.parameters
    fixed = {name: known[name] for name in space} if slot == OWN_SLOT else {}
    for dead in trials_of(study, slot):
        if dead.state == TrialState.RUNNING:
            log.warning("trial %d of slot %d died; its parameters are tried again", dead.number, slot)
            study.tell(dead.number, state=TrialState.FAIL, skip_if_finished=True)
        if dead.params.keys() == space.keys():
            fixed = dict(dead.params)
    with _without_warnings():
        # Not by queueing them: another slot could take them from the queue.
        study.sampler = optuna.samplers.PartialFixedSampler(fixed, study.sampler) if fixed else study.sampler
    trial = study.ask(space)
    trial.set_user_attr(_SLOT, slot)
    return trial


def best_parameters(study: optuna.Study, spec: UseCase) -> tuple[FrozenTrial, Mapping[str, int | float]]:
    """The best complete trial, and all parameters to train with.

    They are the spec's own unless a trial beat them. Without the spec's own trial nobody knows whether one
    did; if they diverged, any complete trial did. Raises `TuningError` when no trial is complete.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        counts = {state.name.lower(): len(study.get_trials(states=(state,))) for state in TrialState}
        raise TuningError(
            expected=f"a complete trial in study {study.study_name}",
            found=", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no trial",
            next_step="read the trials' logs; allow more minutes, or clear the trials to run them again",
        )
    best = min(complete, key=lambda trial: (float(trial.value or 0.0), trial.number))
    own = finished(study, OWN_SLOT)
    diverged = own is not None and own.state == TrialState.PRUNED
    beaten = own is not None and own.value is not None and best.value is not None and best.value < own.value
    if not (beaten or diverged):
        return best, spec.training.parameters
    return best, {**spec.training.parameters, **best.params}


def _distribution(values: Range | Choices) -> BaseDistribution:
    if isinstance(values, Choices):
        return CategoricalDistribution(values.values)
    if values.integer:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(float(values.low), float(values.high), log=values.log)


def _storage(settings: Settings) -> optuna.storages.RDBStorage:
    # Through this process' log like everything else.
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    url = settings.tuning_storage_url
    if settings.tuning_storage is None:
        (settings.state_dir / "tuning").mkdir(parents=True, exist_ok=True)
    patient = {"connect_args": {"timeout": _SQLITE_TIMEOUT_SECONDS}} if url.startswith("sqlite:") else {}
    # A trial trains for long between two words with the database: it holds no connection meanwhile.
    return optuna.storages.RDBStorage(url, engine_kwargs={**patient, "poolclass": NullPool})


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Optuna calls experimental what it has had since 2.4; its version is pinned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
