"""Promotion: a checked version becomes the champion, with no moment in which no version is.

Belongs here: the order of the steps. Does not belong here: any check of the candidate (`infra_check`).

Each step leaves a state that serves, and repeating the job finishes what an earlier run began: the label on
the model server, then the record of what serves, then the config file, then the end of the canary's share,
then the registry's aliases, then the versions that are superseded.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence

from airloop import registry
from airloop.airflow_run import run_id
from airloop.approval import require_approver
from airloop.errors import RolloutError
from airloop.jobs import run_job
from airloop.references import LiveModel
from airloop.serving_history import record_promotion, recorded_champion
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from serving.model_config import ServedModel, exclusive, read_models, served_model, write_models
from serving.model_server_client import AVAILABLE, ModelServer
from serving.rollout import rollout_parser
from serving.routing import changing_routing, read_routing, write_routing
from serving.serve import RELOAD_TIMEOUT_SECONDS, require_champion_answers, serve

log = logging.getLogger(__name__)


def promote(
    settings: Settings,
    spec: UseCase,
    version: int,
    *,
    reason: str = "",
    who: str = "",
    approved_by: str = "",
    giving_up: int | None = None,
) -> LiveModel:
    """Make `version` the champion; the champion before it stays loaded, older versions leave.

    Nothing leads back to the version that it is `giving_up`, if any. `reason`, `who` and `approved_by` go on
    record (`airloop.serving_history`). Raises `ApprovalError` when the spec asks for a person's approval to
    replace a champion and there is none, `RegistryError` when the registry has no such version,
    `RolloutError` when it has not passed its infra check, another rollout has the traffic, it is not
    available, or does not answer as champion, `AuditLogError` when the record was tampered with; what served
    before then still does.
    """
    name = spec.model_name
    facts = _facts(settings, name, version)
    with exclusive(settings), ModelServer.of(settings) as server:
        models = read_models(settings)
        model = served_model(settings, models, name)
        _require_checked(server, model, version)
        if giving_up is None and version != model.champion:
            _require_own_rollout(settings, name, version)
            # Going back needs nobody's approval, nor does a first version, which nothing was compared with.
            if spec.rollout.approval and model.champion is not None:
                require_approver(settings, approved_by, f"version {version} of model {name}")
        recorded_champion(settings, spec.name)  # A change that cannot be put on record is not made.
        with_champion = model.back_to(version) if giving_up is not None else model.with_champion(version)
        promoted = {**models, name: with_champion}
        serve(server, promoted, timeout=RELOAD_TIMEOUT_SECONDS)
        require_champion_answers(server, spec, version, otherwise=models)
        record_promotion(
            settings,
            use_case=spec.name,
            version=version,
            # The one that is given up may have lost the label before.
            replaces=giving_up if giving_up is not None else model.champion,
            facts=facts,
            reason=reason,
            who=who,
            approved_by=approved_by,
        )
        write_models(settings, promoted)
        _end_canary(settings, name)
        _set_aliases(settings, name, version)
        kept = promoted[name].without_superseded()
        if kept != promoted[name]:
            promoted[name] = kept
            write_models(settings, promoted)
            serve(server, promoted, timeout=RELOAD_TIMEOUT_SECONDS)
        _remove_superseded_folders(kept, version)
    log.info("version %d of model %s is the champion", version, name)
    return LiveModel(name=name, version=version, previous_version=kept.previous)


def _end_canary(settings: Settings, name: str) -> None:
    """No copies and no share any more: whoever has the rollout says what the new champion is watched by."""
    with changing_routing(settings, name) as routing:
        canary = routing.split is not None and routing.split.experiment is None
        if canary or routing.shadow is not None:
            ended = {"shadow": None, "changed_by": run_id(), **({"split": None} if canary else {})}
            write_routing(settings, name, routing.model_copy(update=ended))


def _facts(settings: Settings, name: str, version: int) -> dict[str, str]:
    """What the record says of the version: enough to tell which bytes served, without the registry."""
    tags = registry.tags_of(settings, name, version)
    kept = ("training_set", "code_commit", registry.SIGNATURE_DIGEST)
    return {
        "mlflow_run": registry.run_of(settings, name, version),
        **{key.removeprefix("airloop."): tags[key] for key in kept if key in tags},
    }


def _require_own_rollout(settings: Settings, name: str, version: int) -> None:
    other = read_routing(settings, name).rollout
    if other is not None and other.version != version and other.run != run_id():
        raise RolloutError(
            expected=f"the rollout of version {version} of model {name}, or none",
            found=f"that of version {other.version}, by {other.run}, which has taken its place",
            next_step=f"nothing: version {other.version} is newer, and its rollout goes on",
        )


def _require_checked(server: ModelServer, model: ServedModel, version: int) -> None:
    states = server.states(model.name)
    state = states[version].state if version in states else "not loaded"
    if version not in model.versions:
        state += ", and without a passed infra check"
    elif state == AVAILABLE:
        return
    raise RolloutError(
        expected=f"version {version} of model {model.name} AVAILABLE, after its infra check",
        found=state,
        next_step=f"run serving.infra_check --version {version} first",
    )


def _set_aliases(settings: Settings, name: str, version: int) -> None:
    if registry.version_behind(settings, name, registry.CHAMPION) != version:
        registry.tag_version(settings, name, version, registry.PROMOTED_BY, run_id())
        registry.set_alias(settings, name, registry.CHAMPION, version)
    if registry.version_behind(settings, name, registry.CHALLENGER) == version:
        registry.drop_alias(settings, name, registry.CHALLENGER)


def _remove_superseded_folders(model: ServedModel, champion: int) -> None:
    """Remove the folders of older versions that are not served; the registry keeps the models."""
    for folder in model.base_path.iterdir():
        if folder.name.isdecimal() and int(folder.name) < champion and int(folder.name) not in model.versions:
            shutil.rmtree(folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> LiveModel:
        return promote(
            settings,
            use_case(arguments.use_case),
            arguments.version,
            reason=arguments.reason,
            who=arguments.who,
            approved_by=arguments.approved_by,
        )

    parser = rollout_parser(__doc__, version_required=True)
    parser.add_argument("--reason", default="", help="why; above all when going back to an earlier version")
    parser.add_argument("--who", default="", help="who asked for it; by default the Airflow run, or by-hand")
    parser.add_argument("--approved-by", default="", help="who approved it, where the spec asks for that")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
