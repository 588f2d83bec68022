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
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from serving.model_config import exclusive, read_models, served_model
from serving.model_server_client import AVAILABLE, ModelServer
from serving.routing import WATCH, read_routing, withdraw
from serving.serve import RELOAD_TIMEOUT_SECONDS, serve

log = logging.getLogger(__name__)


def roll_back(
    settings: Settings, spec: UseCase, *, version: int | None, reason: str, who: str = "", run: str = ""
) -> WentBack:
    """Go back, to `version` or to what was before; raises `RolloutError` where there is nothing of the kind.

    Repeating it goes back no further: a version that was given up leaves nothing behind it.
    """
    begun = time.monotonic()
    name = spec.model_name
    withdrawn = _withdraw_candidate(settings, spec, run)
    model = served_model(settings, read_models(settings), name)
    target = version
    if target is None:
        target = model.champion if withdrawn is not None else model.previous
    if target is None:
        raise RolloutError(
            expected=f"a version of model {name} to go back to",
            found=f"version {model.champion} serving, with no version before it loaded",
            next_step='name one: {"action": "rollback", "version": <number>, "reason": "..."}; '
            "`python -m airloop.serving_history` lists what served",
        )
    if target != model.champion and _relabel(settings, spec, target):
        log.info("version %d of model %s has the traffic", target, name)
    seconds = time.monotonic() - begun
    # Only now: importing these takes longer than going back.
    from serving.abandon import unload
    from serving.infra_check import infra_check
    from serving.promote import promote

    given_up = withdrawn
    if target != model.champion:
        if target not in model.versions:
            infra_check(settings, spec, target)
        promote(settings, spec, target, reason=reason, who=who, giving_up=True)
        seconds = seconds if target in model.versions else time.monotonic() - begun
        given_up = model.champion
    if given_up is not None:
        _put_on_record(settings, spec, given_up, target, reason, who, run)
        unload(settings, spec, given_up)
    if withdrawn not in (None, given_up):
        unload(settings, spec, withdrawn)
    return WentBack(
        name=name,
        version=target,
        given_up=given_up,
        was_candidate=withdrawn is not None,
        seconds=round(seconds, 3),
        reason=reason,
    )


def _withdraw_candidate(settings: Settings, spec: UseCase, run: str) -> int | None:
    """End the experiment or else the rollout that is under way; its version, unless that is the champion."""
    routing = read_routing(settings, spec.model_name)
    under_way = routing.experiment or routing.rollout
    if under_way is None:
        return None
    withdraw(settings, spec.model_name, under_way.version, run=run)
    watched = routing.experiment is None and routing.rollout is not None and routing.rollout.name == WATCH
    return None if watched else under_way.version


def _relabel(settings: Settings, spec: UseCase, target: int) -> bool:
    """Have `target` answer as champion at once, if it is loaded; writing it down is left to `promote`."""
    with exclusive(settings), ModelServer.of(settings) as server:
        found = server.states(spec.model_name).get(target)
        if found is None or found.state != AVAILABLE:
            return False
        models = read_models(settings)
        back = served_model(settings, models, spec.model_name).back_to(target)
        serve(server, {**models, spec.model_name: back}, timeout=RELOAD_TIMEOUT_SECONDS)
    return True


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
