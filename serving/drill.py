"""Job: a drill: the version that a rollback would go to loads and answers, shown before it is needed.

    python -m serving.drill --use-case NAME

Belongs here: which version that is, and the proof. Does not belong here: going back (`serving.roll_back`).

It is the version before the champion, if the model server holds it; else the last one on record that served,
was superseded and not revoked; else the champion itself, which at least could be started again. Its files
come from the registry, are verified, and are loaded by a model server of its own: what serves is not touched.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import time
from collections.abc import Sequence

from airloop import registry
from airloop.errors import RegistryError
from airloop.jobs import run_job
from airloop.references import Drilled
from airloop.serving_history import serving_history
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from serving.infra_check import parse_recorded, replayed
from serving.model_config import read_models, served_model
from serving.model_server_client import ModelServer
from serving.rollout import stage_model, version_folder
from serving.scratch_server import scratch_server
from serving.serve import bring_into_line

log = logging.getLogger(__name__)


def drill(settings: Settings, spec: UseCase) -> Drilled:
    """Load the version to go back to, and replay its recorded requests.

    Raises `RegistryError` where no version serves or its artifacts are not as they were signed, and
    `RolloutError` when it does not load, or answers differently.
    """
    begun = time.monotonic()
    name = spec.model_name
    bring_into_line(settings)
    model = served_model(settings, read_models(settings), name)
    version, why = _last_good(settings, spec, model.champion, model.previous)
    was_there = version_folder(settings, name, version).exists()
    try:
        columns, recorded = parse_recorded(spec, stage_model(settings, name, version))
        with scratch_server(settings, name, version, timeout=spec.rollout.load_timeout_seconds) as scratch:
            difference = replayed(spec, scratch.client, version, columns, recorded)
        seconds = round(time.monotonic() - begun, 1)
        loaded = version in model.versions
        if loaded:
            # It is one label away: then it must answer where it is, too.
            with ModelServer.of(settings) as server:
                difference = max(difference, replayed(spec, server, version, columns, recorded))
    finally:
        if not was_there:
            shutil.rmtree(version_folder(settings, name, version), ignore_errors=True)
    log.info("version %d of model %s (%s) loads and answers, in %.1f s", version, name, why, seconds)
    return Drilled(
        name=name,
        version=version,
        why=why,
        loaded=loaded,
        requests_replayed=len(recorded),
        largest_difference=difference,
        seconds=seconds,
    )


def _last_good(
    settings: Settings, spec: UseCase, champion: int | None, previous: int | None
) -> tuple[int, str]:
    if champion is None:
        raise RegistryError(
            expected=f"a champion of {spec.name}",
            found="none: nothing serves yet, so there is nothing to go back to",
            next_step=f"run {spec.name}_training and {spec.name}_rollout first",
        )
    if previous is not None:
        return previous, "the version before the champion"
    for period in reversed(serving_history(settings, spec.name).periods):
        good = period.stopped == "superseded" and period.revoked is None
        if good and period.version != champion and _is_registered(settings, spec, period.version):
            return period.version, "the last version on record that served well"
    return champion, "the champion, for no version before it is on record"


def _is_registered(settings: Settings, spec: UseCase, version: int) -> bool:
    try:
        return registry.ROLLED_BACK not in registry.tags_of(settings, spec.model_name, version)
    except RegistryError:
        return False


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> Drilled:
        return drill(settings, use_case(arguments.use_case))

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--use-case", required=True, help="name of the use case")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
