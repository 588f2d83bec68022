"""One look at one stage of a rollout: give the candidate what the stage gives, look, decide, and act on it.

Belongs here: the order of those, and who owns a use case's rollout. Does not belong here: the rules
(`serving.analysis`, `serving.decision`), or waiting until the next look (the DAG's task).

Stages: `shadow` (copies of all traffic, no client sees an answer), `canary_<percent>` (that share of the
clients, copies of the others' requests), `watch` (the candidate is the champion, and the one before gets the
copies). Each look can be repeated, and killed anywhere: the routing says which stage since when, and what the
run gave up, and the rest follows from the prediction log.

A candidate that is given up has lost its traffic before anything else is done about it.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from airloop import registry
from airloop.airflow_run import run_id
from airloop.errors import RolloutError
from airloop.jobs import run_job
from airloop.references import RolloutCheck, StageDecision
from airloop.routing_document import GivenUp, Routing, Split, Stage
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from serving.abandon import unload
from serving.analysis import checks_of
from serving.decision import Decided, decide
from serving.decision_record import put_on_record
from serving.model_config import ServedModel, read_models, served_model
from serving.model_server_client import ModelServer
from serving.observations import NOT_KNOWN, Observed, observe
from serving.promote import promote
from serving.rollout import rollout_parser
from serving.routing import SHADOW, WATCH, changing_routing, read_routing, withdraw, write_routing
from serving.serve import answer_as_champion, bring_into_line

log = logging.getLogger(__name__)

DECISION: Final = "rollout decision"
"""Kind of an audit record: what a stage decided."""
_CANARY: Final = re.compile(r"canary_(\d{1,2})")
_FORGOTTEN: Final = timedelta(minutes=10)
"""A run that has not looked for so long, and ten times its own interval, has no claim any more."""


class _NotYet(Exception):
    """Another has what this stage needs, for now; says why."""


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
    known = read_routing(settings, spec.model_name).gave_up(run_id())
    if known is not None and version in (known.candidate, known.champion):
        return _roll_back(settings, spec, version, stage, now, known)
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
        state = _enter(settings, spec, version, stage, model, now, first=first)
    except _Ended as ended:
        decision = ended.decision
        if stage == WATCH:
            # Nothing was found against the champion, so it stays what it is.
            decision = "superseded"
        elif not ended.same_version:
            withdraw(settings, spec.model_name, version, run=run_id())
            unload(settings, spec, version)
        return _decided(settings, spec, version, stage, now, Decided(decision, ended.reason), champion=beside)
    except _NotYet as reason:
        held = Decided("hold", str(reason))
        return _decided(
            settings, spec, version, stage, now, held, champion=beside, again=now + spec.rollout.look_every
        )
    observed = observe(settings, spec, state.rollout_since, now)
    checks, answers, disagreement = _judged(spec, observed, state, beside)
    bring_into_line(settings)
    with ModelServer.of(settings) as server:
        loaded = server.states(spec.model_name).get(version)
    decided = decide(
        spec.rollout,
        checks,
        answers=answers,
        clients=observed.since(state.since).requests,
        elapsed=now - state.since,
        bake=wait,
        state=loaded.state if loaded is not None else "not loaded",
    )
    found = {
        "since": state.since,
        "requests": observed.since(state.since).requests,
        "checks": checks,
        "disagreement": disagreement,
    }
    if decided.decision == "roll_back":
        giving_up = (
            GivenUp(champion=version, target=beside, reason=decided.reason)
            if stage == WATCH
            else GivenUp(candidate=version, target=beside, reason=decided.reason)
        )
        return _roll_back(settings, spec, version, stage, now, giving_up, found=found)
    if decided.decision == "go_on" and stage == WATCH:
        withdraw(settings, spec.model_name, version, run=run_id())
    return _decided(
        settings,
        spec,
        version,
        stage,
        now,
        decided,
        champion=beside,
        found=found,
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
    model: ServedModel,
    now: datetime,
    *,
    first: bool,
) -> Stage:
    """Claim the rollout for this run and route what `stage` gives.

    Raises `_Ended` where the rollout is another run's, or was ended, and `_NotYet` where it has to wait.
    """
    run = run_id()
    with changing_routing(settings, spec.model_name) as routing:
        state = routing.rollout
        if state is not None and state.run != run:
            _require_claim(spec, state, version, model.champion, now)
            state = None
        elif state is None and not first:
            raise _Ended("roll_back", f"the rollout was ended by {routing.changed_by or 'somebody'}")
        canary = _CANARY.fullmatch(stage)
        if canary and routing.split is not None and routing.split.experiment is not None:
            raise _NotYet("an experiment has the traffic; the canary begins when it is over")
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
                shadow=model.previous if stage == WATCH else version,
                split=split,
                rollout=entered,
                experiment=routing.experiment,
                changed_by=run,
                given_up=routing.given_up,
            ),
        )
    return entered


def _require_claim(spec: UseCase, state: Stage, version: int, champion: int | None, now: datetime) -> None:
    """Raises `_Ended` or `_NotYet` unless the rollout may be taken from the run that has it."""
    if now - state.looked_at > max(_FORGOTTEN, 10 * spec.rollout.look_every):
        return
    if state.version == champion and version != champion:
        raise _NotYet(f"version {champion} is a new champion, and {state.run} still watches it")
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
    checks = checks_of(spec, champion, candidate, observed.labelled(beside, version))
    return checks, candidate.answered, stage.pairs(beside, version).disagreement


def _roll_back(
    settings: Settings,
    spec: UseCase,
    version: int,
    stage: str,
    now: datetime,
    giving_up: GivenUp,
    *,
    found: Mapping[str, Any] | None = None,
) -> StageDecision:
    """Take the traffic from `version` and put that on record; then the registry, then the model server.

    In the watch stage the version before serves again. Only the traffic is urgent, and it needs no registry.
    """
    begun = time.monotonic()
    name = spec.model_name
    withdraw(settings, name, version, run=run_id(), giving_up=giving_up)
    if giving_up.champion is not None:
        answer_as_champion(settings, spec, giving_up.target)
    seconds = round(time.monotonic() - begun, 3)
    log.info("version %d of model %s has no traffic any more: %s", version, name, giving_up.reason)
    decision = _decided(
        settings,
        spec,
        version,
        stage,
        now,
        Decided("roll_back", giving_up.reason),
        champion=giving_up.target,
        found=found,
        seconds_to_roll_back=seconds,
    )
    if giving_up.champion is not None:
        promote(
            settings,
            spec,
            giving_up.target,
            reason=giving_up.reason,
            who=run_id(),
            giving_up=giving_up.champion,
        )
    registry.tag_version(settings, name, version, registry.ROLLED_BACK, giving_up.reason[:5000])
    unload(settings, spec, version)
    return decision


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
    found: Mapping[str, Any] | None = None,
    seconds_to_roll_back: float | None = None,
    again: datetime | None = None,
) -> StageDecision:
    """The decision, put on record with what was `found`."""
    decision = StageDecision(
        name=spec.model_name,
        version=version,
        stage=stage,
        decision=decided.decision,
        reason=decided.reason,
        champion=champion,
        until=now,
        look_again_at=again,
        seconds_to_roll_back=seconds_to_roll_back,
        **{"since": None, "requests": 0, **(found or {})},
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
