"""The page of a use case: its files, and the answers behind it.

Belongs here: what is asked and who may ask. Does not belong here: what the answers say (`airloop.overview`,
and `airflow_state`), or how they look (`static/`).

Its buttons start DAG runs through Airflow's own API, as the person who presses them: Airflow says who may.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from airloop.approval import may_approve
from airloop.overview.live import live_of
from airloop.settings import load_settings
from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow.addresses import ui_path
from airloop_airflow.late_app import LateApp
from airloop_airflow.reports import report_path

URL_PREFIX = "/airloop"
STATIC = Path(__file__).with_name("static")
ACTIONS = {
    "train": "training",
    "roll_out": "rollout",
    "roll_back": "rollout",
    "accept": "override",
    "silence": "silence",
}
"""What the page's buttons start, by kind of DAG."""
NEEDS_APPROVER = ("accept",)
"""Of these, what only an approver may start: the job refuses others, so the page offers it to nobody else."""
KINDS = (
    *("features", "push", "training", "rollout", "monitoring", "skew", "retraining", "scoring"),
    *("drill", "experiment", "override", "rollback", "silence", "overview"),
)
"""The DAGs of a use case whose last run is shown."""
ONLINE = ("push", "monitoring", "skew", "retraining", "experiment", "silence")
"""Of these, those of use cases alone that a gateway answers for."""
READ = "overview"
"""Who may read this DAG may read the page."""


class UseCasePageApp(LateApp):
    """The page over HTTP."""

    def __init__(self) -> None:
        super().__init__(_build)


def _build() -> Any:
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
    from airflow.api_fastapi.core_api.security import get_user
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from fastapi import Depends, FastAPI, HTTPException
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.responses import FileResponse, RedirectResponse, Response
    from starlette.staticfiles import StaticFiles

    from airloop_airflow.use_case_page import airflow_state

    app = FastAPI(title="Airloop", openapi_url=None)
    app.add_middleware(GZipMiddleware, minimum_size=4096)

    def is_allowed(user: Any, method: Any, dag_id: str, entity: Any = None) -> bool:
        details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
        return bool(
            get_auth_manager().is_authorized_dag(
                method=method, access_entity=entity, details=details, user=user
            )
        )

    def may_read(user: Any, spec: UseCase) -> bool:
        return is_allowed(user, "GET", f"{spec.name}_{READ}")

    def page() -> Any:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    def bare() -> Any:
        return RedirectResponse(f"{ui_path()}{URL_PREFIX}/")

    def use_cases(user: Any) -> Any:
        return [
            {"name": spec.name, "description": spec.description}
            for spec in all_use_cases()
            if may_read(user, spec)
        ]

    def overview(name: str, user: Any) -> Any:
        spec = {spec.name: spec for spec in all_use_cases()}.get(name)
        if spec is None or not may_read(user, spec):
            # One answer for both: whether there is one is not for everybody.
            raise HTTPException(404, f"expected a use case that you may read; found {name!r}")
        readable = [dag for kind in KINDS if is_allowed(user, "GET", dag := f"{name}_{kind}")]
        kinds = {action: kind for action, kind in ACTIONS.items() if spec.is_online or kind not in ONLINE}
        started = {action: f"{name}_{kind}" for action, kind in kinds.items()}
        with create_session() as session:
            runs = airflow_state.last_runs(session, readable)
            known = {
                "runs": runs,
                "incidents": airflow_state.open_incidents(session, name, runs, datetime.now(UTC)),
                "waiting": airflow_state.waiting_for_a_person(
                    session, {f"{name}_rollout"}.intersection(readable)
                ),
                "off": airflow_state.switched_off(session, started),
            }
        may = {act: is_allowed(user, "POST", dag, DagAccessEntity.RUN) for act, dag in started.items()}
        for act in NEEDS_APPROVER:
            may[act] = may[act] and may_approve(load_settings(), user.get_name())
        answer = {**answer_of(spec), **known, "may": may, "user": user.get_name()}
        return Response(
            json.dumps(answer), media_type="application/json", headers={"Cache-Control": "no-store"}
        )

    signed_in = Annotated[Any, Depends(get_user)]
    # Not as decorated functions: their annotations are names of this function, which FastAPI cannot look up.
    use_cases.__annotations__.update(user=signed_in)
    overview.__annotations__.update(name=str, user=signed_in)
    app.add_api_route("", bare, methods=["GET"], response_model=None)
    app.add_api_route("/", page, methods=["GET"], response_model=None)
    app.add_api_route("/use-cases", use_cases, methods=["GET"])
    app.add_api_route("/use-cases/{name}", overview, methods=["GET"], response_model=None)
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def answer_of(spec: UseCase) -> dict[str, Any]:
    """What the page shows of `spec`, but for what only Airflow knows."""
    settings = load_settings()
    path = settings.overview_file(spec.name)
    try:
        overview = json.loads(path.read_bytes())
    except FileNotFoundError:
        overview = None
    live = live_of(settings, spec).model_dump(mode="json")
    return {
        "name": spec.name,
        "description": spec.description,
        "owner": spec.owner,
        "is_online": spec.is_online,
        "label": spec.label.description,
        "mlflow": settings.mlflow_public_url or settings.tracking_uri,
        "runbooks": settings.runbooks_url,
        "least_distance": spec.monitoring.drift.least_distance,
        "overview": _with_report_paths(overview),
        "live": _with_report_paths(live),
    }


def _with_report_paths(value: Any) -> Any:
    """`value` with the way to each report in the place of its file."""
    if isinstance(value, Mapping):
        return {
            key: report_path(found) or None
            if key.endswith("_uri") and isinstance(found, str) and found.startswith("file:")
            else _with_report_paths(found)
            for key, found in value.items()
        }
    return [_with_report_paths(found) for found in value] if isinstance(value, list) else value
