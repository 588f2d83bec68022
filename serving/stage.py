"""One look at one stage of a rollout: give the candidate what the stage gives, look, decide, and act on it.

Belongs here: the order of those, and who owns a use case's rollout. Does not belong here: the rules
(`serving.analysis`, `serving.decision`), or waiting until the next look (the DAG's task).

Stages: `shadow` (copies of all traffic, no client sees an answer), `canary_<percent>` (that share of the
clients, copies of the others' requests), `watch` (the candidate is the champion, and the one before gets the
copies). Each look can be repeated, and killed anywhere: the routing says which stage since when, and the rest
follows from the prediction log.

A candidate that is given up has lost its traffic before anything else is done about it.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from airloop import registry
from airloop.airflow_run import run_id
from airloop.errors import RolloutError
from airloop.jobs import run_job
from airloop.references import RolloutCheck, StageDecision
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from serving.abandon import unload
from serving.analysis import checks_of
from serving.decision import Decided, decide
from serving.decision_record import put_on_record
from serving.model_config import read_models, served_model
from serving.model_server_client import ModelServer
from serving.observations import NOT_KNOWN, Observed, observe
from serving.promote import promote
from serving.rollout import rollout_parser
from serving.routing import SHADOW, WATCH, Routing, Split, Stage, changing_routing, withdraw, write_routing

log = logging.getLogger(__name__)

DECISION: Final = "rollout decision"
"""Kind of an audit record: what a stage decided."""
_CANARY: Final = re.compile(r"canary_(\d{1,2})")
_FORGOTTEN: Final = timedelta(minutes=10)
"""A run that has not looked for so long, and ten times its own interval, has no claim any more."""


class _Ended(Exception):
    """The rollout is not this run's any more."""

    def __init__(self, decision: str, reason: str, *, same_version: bool = False) -> None:
        super().__init__(reason)
        self.decision = decision
        self.reason = reason
        self.same_version = same_version


def look(
    settings: Settings,
    spec: UseCase,
    version: int,
    stage: str,
    *,
    now: datetime,
    bake: timedelta | None = None,
    first: bool = True,
) -> StageDecision:
    """Look at `stage` of the rollout of `version`, in the Airflow run of this process.

    `bake` is how long the stage lasts at least, by default the spec's; `first` is false for a stage that was
    held before. Raises `RolloutError` for a stage that does not exist or a version that was not checked.
    """
    _require_stage(spec, stage)
    wait = bake if bake is not None else spec.rollout.watch if stage == WATCH else spec.rollout.bake
    model = served_model(settings, read_models(settings), spec.model_name)
    beside = model.previous if stage == WATCH else model.champion
    if nothing := _nothing_to_do(stage, version, model.champion, beside):
        return _decided(settings, spec, version, stage, now, nothing, champion=beside)
    assert beside is not None
    if version not in model.versions:
        raise RolloutError(
            expected=f"version {version} of model {model.name} loaded, after its infra check",
            found=f"versions {sorted(model.versions)}",
            next_step="run the rollout again from its infra check: a version that was given up is unloaded",
        )
    try:
        state = _enter(settings, spec, version, stage, beside, now, first=first)
    except _Ended as ended:
        if not ended.same_version:
            _give_up(settings, spec, version, stage, ended.reason, tag=False)
        return _decided(
            settings, spec, version, stage, now, Decided(ended.decision, ended.reason), champion=beside
        )
    if state is None:
        held = Decided("hold", "an experiment has the traffic; the canary begins when it is over")
        return _decided(
            settings, spec, version, stage, now, held, champion=beside, again=now + spec.rollout.look_every
        )
    observed = observe(settings, spec, state.rollout_since, now)
    checks, answers, disagreement = _judged(spec, observed, state, beside)
    with ModelServer.of(settings) as server:
        loaded = server.states(spec.model_name).get(version)
    decided = decide(
        spec.rollout,
        checks,
        answers=answers,
        elapsed=now - state.since,
        bake=wait,
        state=loaded.state if loaded is not None else "not loaded",
    )
    seconds = None
    if decided.decision == "roll_back":
        seconds = _give_up(settings, spec, version, stage, decided.reason)
    elif decided.decision == "go_on" and stage == WATCH:
        withdraw(settings, spec.model_name, version, run=run_id())
    return _decided(
        settings,
        spec,
        version,
        stage,
        now,
        decided,
        champion=beside,
        since=state.since,
        requests=observed.since(state.since).requests,
        checks=checks,
        disagreement=disagreement,
        seconds_to_roll_back=seconds,
        again=_next_look(spec, state, wait, now) if decided.decision == "hold" else None,
    )


def _nothing_to_do(stage: str, version: int, champion: int | None, beside: int | None) -> Decided | None:
    """What is decided without a look, where there is nothing to look at."""
    if stage == WATCH and version != champion:
        return Decided("superseded", f"version {champion} is the champion now")
    if stage != WATCH and version == champion:
        return Decided("go_on", "it is the champion already")
    if beside is None:
        return Decided("go_on", "there is nothing to compare it with")
    return None


def _require_stage(spec: UseCase, stage: str) -> None:
    stages = [SHADOW, *(f"canary_{percent}" for percent in spec.rollout.canary_percent), WATCH]
    if stage not in stages:
        raise RolloutError(
            expected=f"a stage of {spec.name}'s rollout: {', '.join(stages)}",
            found=stage,
            next_step="name one of them, or add the canary step to the spec",
        )


def _enter(
    settings: Settings,
    spec: UseCase,
    version: int,
    stage: str,
    beside: int,
    now: datetime,
    *,
    first: bool,
) -> Stage | None:
    """Claim the rollout for this run and route what `stage` gives; None while an experiment has the split.

    Raises `_Ended` where the rollout is another run's, or was ended.
    """
    run = run_id()
    with changing_routing(settings, spec.model_name) as routing:
        state = routing.rollout
        if state is not None and state.run != run:
            _require_claim(spec, state, version, now)
            state = None
        elif state is None and not first:
            raise _Ended("roll_back", f"the rollout was ended by {routing.changed_by or 'somebody'}")
        canary = _CANARY.fullmatch(stage)
        if canary and routing.split is not None and routing.split.experiment is not None:
            return None
        entered = Stage(
            run=run,
            version=version,
            name=stage,
            since=state.since if state is not None and state.name == stage else now,
            rollout_since=state.rollout_since if state is not None else now,
            looked_at=now,
        )
        experiments = routing.split if routing.split and routing.split.experiment else None
        split = (
            # One salt for all steps: whoever was answered by the candidate goes on being.
            Split(version=version, share=int(canary[1]) / 100, salt=f"{spec.name} rollout of {version}")
            if canary
            else experiments
        )
        write_routing(
            settings,
            spec.model_name,
            Routing(
                shadow=beside if stage == WATCH else version,
                split=split,
                rollout=entered,
                experiment=routing.experiment,
                changed_by=run,
            ),
        )
    return entered


def _require_claim(spec: UseCase, state: Stage, version: int, now: datetime) -> None:
    """Raises `_Ended` unless the rollout may be taken from the run that has it."""
    if now - state.looked_at > max(_FORGOTTEN, 10 * spec.rollout.look_every):
        return
    if state.version > version:
        raise _Ended("superseded", f"version {state.version} is newer and is being rolled out by {state.run}")
    if state.version == version:
        raise _Ended("superseded", f"{state.run} is rolling it out already", same_version=True)


def _judged(
    spec: UseCase, observed: Observed, state: Stage, beside: int
) -> tuple[tuple[RolloutCheck, ...], int, float | None]:
    """The checks, the candidate's answers in this stage, and how far the two differ on the same requests."""
    version, watched = state.version, state.name == WATCH
    stage = observed.since(state.since)
    # An attempt at the champion that failed does not say which version that was.
    candidate = stage.arm(version, NOT_KNOWN) if watched else stage.arm(version)
    champion = stage.arm(beside) if watched else stage.arm(beside, NOT_KNOWN)
    checks = checks_of(spec.rollout.guardrails, champion, candidate, observed.labelled(beside, version))
    before, after, _ = stage.pairs(beside, version)
    return checks, candidate.answers, float(np.abs(after - before).mean()) if len(before) else None


def _give_up(
    settings: Settings, spec: UseCase, version: int, stage: str, reason: str, *, tag: bool = True
) -> float:
    """Take the traffic from `version`, then unload it; in the watch stage the one before serves again.

    Returns the seconds until it had no traffic.
    """
    begun = time.monotonic()
    withdraw(settings, spec.model_name, version, run=run_id())
    model = served_model(settings, read_models(settings), spec.model_name)
    if stage == WATCH and version == model.champion and model.previous is not None:
        promote(settings, spec, model.previous, reason=reason, who=run_id(), giving_up=True)
    seconds = round(time.monotonic() - begun, 3)
    log.info("version %d of model %s has no traffic any more: %s", version, spec.model_name, reason)
    if tag:
        registry.tag_version(settings, spec.model_name, version, registry.ROLLED_BACK, reason[:5000])
    unload(settings, spec, version)
    return seconds


def _next_look(spec: UseCase, state: Stage, bake: timedelta, now: datetime) -> datetime:
    """After the interval, or as soon as the stage may end."""
    again, end = now + spec.rollout.look_every, state.since + bake
    return min(again, end) if now < end else again


def _decided(
    settings: Settings,
    spec: UseCase,
    version: int,
    stage: str,
    now: datetime,
    decided: Decided,
    *,
    champion: int | None,
    since: datetime | None = None,
    requests: int = 0,
    checks: tuple[RolloutCheck, ...] = (),
    disagreement: float | None = None,
    seconds_to_roll_back: float | None = None,
    again: datetime | None = None,
) -> StageDecision:
    """The decision, put on record."""
    decision = StageDecision(
        name=spec.model_name,
        version=version,
        stage=stage,
        decision=decided.decision,
        reason=decided.reason,
        champion=champion,
        since=since,
        until=now,
        look_again_at=again,
        requests=requests,
        checks=checks,
        disagreement=disagreement,
        seconds_to_roll_back=seconds_to_roll_back,
    )
    return put_on_record(settings, spec, decision, DECISION)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> StageDecision:
        return look(
            settings,
            use_case(arguments.use_case),
            arguments.version,
            arguments.stage,
            # The clock is read here: what was written until now is what the look is about.
            now=datetime.now(UTC),
            bake=timedelta(seconds=arguments.bake_seconds) if arguments.bake_seconds is not None else None,
            first=arguments.first == "true",
        )

    parser = rollout_parser(__doc__, version_required=True)
    parser.add_argument("--stage", required=True, help="shadow, canary_<percent> or watch")
    parser.add_argument("--bake-seconds", type=float, help="how long at least; by default the spec's")
    parser.add_argument("--first", choices=("true", "false"), default="true", help="false after a hold")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
