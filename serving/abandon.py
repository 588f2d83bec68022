"""Abandoning a candidate: the model server lets it go; the champion is not touched.

Belongs here: the clean-up after a failed rollout. Does not belong here: the registry, where the version and
its aliases stay for the person who looks into the failure.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence

from airloop.jobs import run_job
from airloop.references import Abandoned
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from serving.model_config import exclusive, read_models, served_model, write_models
from serving.model_server_client import ModelServer
from serving.rollout import candidate_version, rollout_parser, serve, version_folder

log = logging.getLogger(__name__)

RELOAD_TIMEOUT_SECONDS = 60.0


def abandon(settings: Settings, spec: UseCase, version: int | None) -> Abandoned:
    """Unload `version` (by default the challenger, else the champion) unless it is the champion.

    Raises `RegistryError` when no version is given and the registry names none.
    """
    name = spec.model_name
    version = candidate_version(settings, spec, version)
    with exclusive(settings), ModelServer.of(settings) as server:
        models = read_models(settings)
        model = served_model(settings, models, name)
        if version != model.champion:
            models[name] = model.without(version)
            # The file first: a server that is down now then comes up without the candidate.
            write_models(settings, models)
            serve(server, models, timeout=RELOAD_TIMEOUT_SECONDS)
            shutil.rmtree(version_folder(settings, name, version), ignore_errors=True)
            log.info("version %d of model %s is no longer loaded", version, name)
    return Abandoned(name=name, version=version, live_version=model.champion)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> Abandoned:
        return abandon(settings, use_case(arguments.use_case), arguments.version)

    return run_job(rollout_parser(__doc__, version_required=False), work, argv)


if __name__ == "__main__":
    sys.exit(main())
