"""Abandoning a candidate: it gets no traffic any more, and the model server lets it go.

Belongs here: taking a candidate's traffic away, and the clean-up after a failed rollout. Does not belong
here: the champion, which is not touched, or the registry, where the version and its aliases stay for the
person who looks into the failure.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence

from airloop.airflow_run import BY_HAND, run_id
from airloop.jobs import run_job
from airloop.references import Abandoned
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from serving.model_config import exclusive, read_models, served_model, write_models
from serving.model_server_client import ModelServer
from serving.rollout import candidate_version, rollout_parser, version_folder
from serving.routing import read_routing, withdraw
from serving.serve import RELOAD_TIMEOUT_SECONDS, serve
from serving.staged import explanation_file

log = logging.getLogger(__name__)


def unload(settings: Settings, spec: UseCase, version: int, *, way_back_too: bool = False) -> int | None:
    """Unload `version` unless it is the champion, or (but for `way_back_too`) the version before it.

    Returns the champion's.
    """
    name = spec.model_name
    with exclusive(settings), ModelServer.of(settings) as server:
        models = read_models(settings)
        model = served_model(settings, models, name)
        if version != model.champion and (way_back_too or version != model.previous):
            models[name] = model.without(version)
            # The file first: a server that is down now then comes up without the candidate.
            write_models(settings, models)
            serve(server, models, timeout=RELOAD_TIMEOUT_SECONDS)
            shutil.rmtree(version_folder(settings, name, version), ignore_errors=True)
            explanation_file(settings.models_dir, name, version).unlink(missing_ok=True)
            log.info("version %d of model %s is no longer loaded", version, name)
    return model.champion


def abandon(settings: Settings, spec: UseCase, version: int | None) -> Abandoned:
    """Take `version` (by default the challenger, else the champion) out of service unless it is the champion.

    One that another Airflow run is rolling out, or has an experiment with, is left to that run. Raises
    `RegistryError` when no version is given and the registry names none.
    """
    version = candidate_version(settings, spec, version)
    routing = read_routing(settings, spec.model_name)
    for other in (routing.rollout, routing.experiment):
        if other is not None and other.version == version and run_id() not in (other.run, BY_HAND):
            log.info("version %d of model %s is left to %s", version, spec.model_name, other.run)
            champion = served_model(settings, read_models(settings), spec.model_name).champion
            return Abandoned(name=spec.model_name, version=version, live_version=champion)
    withdraw(settings, spec.model_name, version, run=run_id())
    # A person who names the way back means it, such as for files that somebody changed.
    champion = unload(settings, spec, version, way_back_too=run_id() == BY_HAND)
    return Abandoned(name=spec.model_name, version=version, live_version=champion)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> Abandoned:
        return abandon(settings, use_case(arguments.use_case), arguments.version)

    return run_job(rollout_parser(__doc__, version_required=False), work, argv)


if __name__ == "__main__":
    sys.exit(main())
