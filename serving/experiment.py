"""One look at an A/B test: begin it, see that it harms nobody, and end it at the time that was fixed before.

Belongs here: its course and its report. Does not belong here: the statistics (`serving.experiment_result`),
or waiting until the next look (the DAG's task).

Version A is the champion, version B any other that passed its infra check. What is looked at meanwhile is
harm alone (errors and latency); the difference is computed once, at the end. A breach ends it early, without
a result. Only one experiment runs at a time, and canaries wait for it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from airloop.airflow_run import run_id
from airloop.errors import RolloutError
from airloop.jobs import run_job
from airloop.references import ExperimentResult, StageDecision
from airloop.routing_document import Experiment, Split
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from serving.abandon import unload
from serving.analysis import Labelled, checks_of
from serving.decision import shown
from serving.decision_record import put_on_record
from serving.experiment_result import result_of
from serving.model_config import read_models, served_model
from serving.observations import NOT_KNOWN, Observed, observe
from serving.rollout import rollout_parser
from serving.rollout_page import EXPERIMENT
from serving.routing import changing_routing, withdraw, write_routing

log = logging.getLogger(__name__)

STAGE: Final = EXPERIMENT
HARM: Final = ("error_rate", "latency_p50_seconds", "latency_p99_seconds")
RECORD: Final = "experiment"
"""Kind of an audit record: an experiment ended."""


def look(
    settings: Settings,
    spec: UseCase,
    version: int,
    *,
    name: str,
    share: float,
    horizon: timedelta,
    now: datetime,
    first: bool = True,
) -> StageDecision:
    """Begin the experiment `name` of `version`, or look at it, or end it when `horizon` has passed.

    Raises `RolloutError` where it cannot begin: another one or a canary has the traffic, or `version` is the
    champion or was not checked.
    """
    running = _enter(settings, spec, version, name, share, now, horizon, first=first)
    if running is None:
        return _decided(settings, spec, version, now, "superseded", "it was ended by somebody", None)
    observed = observe(settings, spec, running.since, now)
    champion = observed.arm(running.champion, NOT_KNOWN)
    found = checks_of(spec, champion, observed.arm(version), Labelled.none())
    checks = tuple(check for check in found if check.name in HARM)
    breached = [check for check in checks if check.outcome == "breached"]
    common = {"since": running.since, "requests": observed.requests, "checks": checks}
    if not breached and now < running.until:
        again = min(now + spec.rollout.look_every, running.until)
        return _decided(
            settings,
            spec,
            version,
            now,
            "hold",
            f"it ends at {running.until:%Y-%m-%d %H:%M} UTC",
            running.champion,
            look_again_at=again,
            **common,
        )
    result = None if breached else _result(observed, running, share)
    withdraw(settings, spec.model_name, version, run=run_id())
    unload(settings, spec, version)
    if breached:
        reason = "ended early and without a result: " + "; ".join(map(shown, breached))
        return _decided(settings, spec, version, now, "roll_back", reason, running.champion, **common)
    assert result is not None
    return _decided(
        settings,
        spec,
        version,
        now,
        "go_on",
        in_words(result),
        running.champion,
        experiment=result,
        **common,
    )


def in_words(result: ExperimentResult) -> str:
    """The result in a sentence or two."""
    if result.sample_ratio_mismatch:
        return (
            f"no result: {result.control_units} and {result.treatment_units} units are not the split that "
            f"was drawn (p {result.sample_ratio_p_value:.2g}); find out what lost them"
        )
    loss = result.measures[0]
    if loss.effect is None or loss.low is None or loss.high is None:
        return f"too few labels for a result: {loss.control_units} and {loss.treatment_units} units"
    name = loss.name.replace("_", " ")
    if loss.high < 0:
        verdict = f"version {result.version} is better"
    elif loss.low > 0:
        verdict = f"version {result.champion} is better"
    else:
        verdict = "no difference is known"
    return (
        f"{verdict}: {name} {loss.effect:+.4f} (95% interval {loss.low:+.4f} to {loss.high:+.4f}) on "
        f"{loss.control_units} and {loss.treatment_units} units"
    )


def _enter(
    settings: Settings,
    spec: UseCase,
    version: int,
    name: str,
    share: float,
    now: datetime,
    horizon: timedelta,
    *,
    first: bool,
) -> Experiment | None:
    """The experiment of this run, begun if need be; None where it was ended."""
    model = served_model(settings, read_models(settings), spec.model_name)
    with changing_routing(settings, spec.model_name) as routing:
        running = routing.experiment
        if running is not None and running.run == run_id():
            return running
        if not first:
            return None
        problem = None
        if running is not None:
            problem = f"the experiment {running.name} by {running.run}, until {running.until:%Y-%m-%d %H:%M}"
        elif routing.split is not None:
            problem = f"a canary of version {routing.split.version}"
        elif model.champion is None or version == model.champion or version not in model.versions:
            problem = f"champion {model.champion} and versions {sorted(model.versions)} loaded"
        if problem:
            raise RolloutError(
                expected=f"version {version} of model {spec.model_name} loaded beside another champion, and "
                "traffic that nothing else splits",
                found=problem,
                next_step="wait for it to end, or end it: the rollout's action rollback",
            )
        assert model.champion is not None
        running = Experiment(
            name=name,
            run=run_id(),
            version=version,
            champion=model.champion,
            since=now,
            until=now + horizon,
        )
        split = Split(version=version, share=share, salt=f"{spec.name} {name} {run_id()}", experiment=name)
        update = {"split": split, "experiment": running, "changed_by": run_id()}
        write_routing(settings, spec.model_name, routing.model_copy(update=update))
    return running


def _result(observed: Observed, running: Experiment, share: float) -> ExperimentResult:
    return result_of(
        observed, name=running.name, version=running.version, champion=running.champion, share=share
    )


def _decided(
    settings: Settings,
    spec: UseCase,
    version: int,
    now: datetime,
    decision: str,
    reason: str,
    champion: int | None,
    **found: object,
) -> StageDecision:
    decided = StageDecision.model_validate(
        {
            "name": spec.model_name,
            "version": version,
            "stage": STAGE,
            "decision": decision,
            "reason": reason,
            "champion": champion,
            "since": None,
            "until": now,
            **found,
        }
    )
    return put_on_record(settings, spec, decided, RECORD)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> StageDecision:
        return look(
            settings,
            use_case(arguments.use_case),
            arguments.version,
            name=arguments.name,
            share=arguments.share,
            horizon=timedelta(hours=arguments.horizon_hours),
            now=datetime.now(UTC),
            first=arguments.first == "true",
        )

    parser = rollout_parser(__doc__, version_required=True)
    parser.add_argument("--name", required=True, help="of the experiment")
    parser.add_argument("--share", type=float, required=True, help="of the units that get version B")
    parser.add_argument("--horizon-hours", type=float, required=True, help="after which it ends")
    parser.add_argument("--first", choices=("true", "false"), default="true", help="false after a hold")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
