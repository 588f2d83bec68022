"""What holds at this moment: what serves and why, who else gets traffic, and how its rollout stands.

Belongs here: reading what is quick to read. Does not belong here: what takes tables or the registry (the
document). Importing this module imports no library of data or models: Airflow's API server does.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from airloop.audit_log import AuditLogError
from airloop.overview.part import Part
from airloop.references import StageDecision
from airloop.rollout_decisions import decisions, report_folder
from airloop.routing_document import Routing, routing_file
from airloop.serving_history import ServedPeriod, serving_history
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase

PAGE: Final = "index.html"


class Live(Part):
    """What holds now."""

    periods: tuple[ServedPeriod, ...]
    """What served when, earliest first; the last serves, if its `end` is None."""
    routing: Routing
    rollout: tuple[StageDecision, ...]
    """What was decided of the stages of the rollout, or the experiment, that is under way, or of the last."""
    rollout_uri: str | None
    """Its page."""
    problems: tuple[str, ...]
    """What could not be read, and so is missing here."""


def live_of(settings: Settings, spec: UseCase) -> Live:
    """What holds now of `spec`; never raises for what cannot be read, but says so."""
    problems = []
    periods: tuple[ServedPeriod, ...] = ()
    try:
        periods = serving_history(settings, spec.name).periods
    except AuditLogError as error:
        problems.append(str(error))
    routing = Routing()
    path = routing_file(settings.models_dir, spec.model_name)
    try:
        routing = Routing.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        pass
    except (ValidationError, OSError) as error:
        problems.append(f"{path}: {error}")
    under_way = routing.rollout or routing.experiment
    found, page = _last_rollout(settings, spec, under_way.run if under_way else None)
    return Live(
        periods=periods,
        routing=routing,
        rollout=tuple(found),
        rollout_uri=page,
        problems=tuple(problems),
    )


def _last_rollout(
    settings: Settings, spec: UseCase, run: str | None
) -> tuple[list[StageDecision], str | None]:
    """The decisions of the rollout by `run`, or of the last one."""
    if run is not None:
        folders: list[Any] = [report_folder(settings, spec, run)]
    else:
        folders = sorted(
            report_folder(settings, spec, "-").parent.glob("*/" + PAGE), key=lambda page: page.stat().st_mtime
        )
        folders = [page.parent for page in folders[-1:]]
    for folder in folders:
        page = folder / PAGE
        return decisions(folder), page.as_uri() if page.exists() else None
    return [], None
