"""Going back by hand: what changed last in what clients are answered by is undone, within seconds.

Belongs here: what that was, and the order of undoing it. Does not belong here: giving a candidate up by the
rules (`stage`).

An experiment's version B, or else a candidate in its rollout, loses its traffic. Without either, the champion
gives way to the one before it, or to the version that is named. Traffic first: what needs the registry comes
after clients are answered by the good version again, and so does its slow import.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence

from airloop.airflow_run import run_id
from airloop.audit_log import append_record
from airloop.errors import RolloutError
from airloop.jobs import run_job
from airloop.references import WentBack
from airloop.routing_document import GivenUp
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from serving.model_config import ServedModel, read_models, served_model
from serving.routing import WATCH, changing_routing, without, write_routing
from serving.serve import answer_as_champion

log = logging.getLogger(__name__)


def roll_back(
    settings: Settings, spec: UseCase, *, version: int | None, reason: str, who: str = "", run: str = ""
) -> WentBack:
    """Go back, to `version` or to what was before; raises `RolloutError` where there is nothing of the kind.

    The same run, tried again, finishes what it began, and goes back no further.
    """
    begun = time.monotonic()
    name = spec.model_name
    plan = _begun(settings, spec, version, reason, run)
    # Tried again, it may have the label already, and not yet all the rest.
    moves = plan.champion is not None or plan.target != _served(settings, spec).champion
    answering = not moves or answer_as_champion(settings, spec, plan.target)
    if answering:
        log.info("version %d of model %s has the traffic", plan.target, name)
    seconds = time.monotonic() - begun
    # Only now: importing these takes longer than going back.
    from serving.abandon import unload
    from serving.infra_check import infra_check
    from serving.promote import promote

    if moves:
        if not answering:
            infra_check(settings, spec, plan.target)
        promote(settings, spec, plan.target, reason=reason, who=who, giving_up=plan.champion)
        seconds = seconds if answering else time.monotonic() - begun
    given_up = plan.champion if plan.champion is not None else plan.candidate
    if given_up is not None:
        _put_on_record(settings, spec, given_up, plan.target, reason, who, run)
    for gone in (plan.champion, plan.candidate):
        if gone is not None:
            unload(settings, spec, gone)
    return WentBack(
        name=name,
        version=plan.target,
        given_up=given_up,
        was_candidate=plan.candidate is not None,
        seconds=round(seconds, 3),
        reason=reason,
    )


def _begun(settings: Settings, spec: UseCase, version: int | None, reason: str, run: str) -> GivenUp:
    """What this run goes back from and to, with the experiment or the rollout that is under way ended."""
    with changing_routing(settings, spec.model_name) as routing:
        known = routing.gave_up(run)
        if known is not None:
            return known
        under_way = routing.experiment or routing.rollout
        watched = routing.experiment is None and routing.rollout is not None and routing.rollout.name == WATCH
        candidate = under_way.version if under_way is not None and not watched else None
        model = _served(settings, spec)
        target = version
        if target is None:
            target = model.champion if candidate is not None else model.previous
        if target is None:
            raise RolloutError(
                expected=f"a version of model {model.name} to go back to",
                found=f"version {model.champion} serving, with no version before it loaded",
                next_step='name one: {"action": "rollback", "version": <number>, "reason": "..."}; '
                "`python -m airloop.serving_history` lists what served",
            )
        champion = model.champion if target != model.champion else None
        plan = GivenUp(candidate=candidate, champion=champion, target=target, reason=reason)
        ended = under_way.version if under_way is not None else target
        write_routing(settings, model.name, without(routing, ended, run=run, giving_up=plan))
    return plan


def _served(settings: Settings, spec: UseCase) -> ServedModel:
    return served_model(settings, read_models(settings), spec.model_name)


def _put_on_record(
    settings: Settings, spec: UseCase, given_up: int, target: int, reason: str, who: str, run: str
) -> None:
    from airloop import registry

    append_record(
        settings,
        kind="rollback",
        key=f"{spec.name} {run} {given_up} to {target}",
        who=who or run,
        what={"use_case": spec.name, "given_up": given_up, "version": target, "reason": reason, "run": run},
    )
    # The version before may have been an experiment's B: it is as good as it was.
    if given_up != _served(settings, spec).previous:
        registry.tag_version(
            settings, spec.model_name, given_up, registry.ROLLED_BACK, f"by {who or run}: {reason}"[:5000]
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> WentBack:
        return roll_back(
            settings,
            use_case(arguments.use_case),
            version=arguments.version,
            reason=arguments.reason,
            who=arguments.who,
            run=run_id(),
        )

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--version", type=int, help="model version; by default what was before")
    parser.add_argument("--reason", default="", help="why, for the record")
    parser.add_argument("--who", default="", help="who asked for it; by default the Airflow run, or by-hand")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
