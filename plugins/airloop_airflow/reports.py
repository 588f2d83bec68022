"""Reports in the Airflow UI: linked from the task, served to whoever may read the task's log.

Belongs here: the way from a task to its report. Does not belong here: making reports (the jobs do that).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlparse

from airflow.sdk import BaseOperatorLink

from airloop.settings import load_settings
from airloop_airflow.addresses import ui_path
from airloop_airflow.late_app import LateApp

URL_PREFIX = "/airloop-reports"
ISOLATED = {
    "Content-Security-Policy": "sandbox allow-scripts allow-popups allow-downloads",
    "X-Content-Type-Options": "nosniff",
}
"""Reports show values as clients sent them, and libraries wrote the pages: a script that came along with a
value must not act as the person who reads it. In a sandbox a page has no origin, and so nobody's session."""


def report_path(uri: str) -> str:
    """Where the UI serves the report at `uri`, a `file:` URI below the reports folder; empty elsewhere."""
    path = Path(unquote(urlparse(uri).path))
    folder = load_settings().reports_dir
    if not path.is_relative_to(folder):
        return ""
    return f"{ui_path()}{URL_PREFIX}/{path.relative_to(folder).as_posix()}"


class ReportLink(BaseOperatorLink):
    """A button on the task that opens the report which its job wrote, whether the job succeeded or not."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The report's path on the API server, empty when the job wrote none."""
        uri = getattr(operator, "report_uri", None)
        return report_path(uri) if uri else ""


class ReportsApp(LateApp):
    """The reports folder over HTTP.

    The first part of a path is the use case; its reports show rows, so they are for those who may read the
    logs of the use case's features DAG.
    """

    def __init__(self) -> None:
        super().__init__(_build)


def _build() -> Any:
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi import Depends, FastAPI, HTTPException, Request
    from starlette.exceptions import HTTPException as StarletteHTTPException
    from starlette.staticfiles import StaticFiles

    folder = load_settings().reports_dir
    folder.mkdir(parents=True, exist_ok=True)
    files = StaticFiles(directory=folder, html=True)
    app = FastAPI(title="Airloop reports", openapi_url=None)

    async def report(request: Request, use_case: str, path: str, user: Any) -> Any:
        allowed = get_auth_manager().is_authorized_dag(
            method="GET",
            access_entity=DagAccessEntity.TASK_LOGS,
            details=DagDetails(id=f"{use_case}_features"),
            user=user,
        )
        if not allowed:
            raise HTTPException(403, f"expected a user who may read the logs of {use_case}_features")
        try:
            if ".." in Path(path).parts:
                # Another use case's, of which nobody asked whether the user may read it.
                raise StarletteHTTPException(404)
            answer = await files.get_response(f"{use_case}/{path}", request.scope)
            answer.headers.update(ISOLATED)
            return answer
        except StarletteHTTPException as error:
            raise HTTPException(error.status_code, f"no report {use_case}/{path}") from None

    # Not as a decorated function: its annotations are names of this function, which FastAPI cannot look up.
    report.__annotations__.update(
        request=Request, use_case=str, path=str, user=Annotated[Any, Depends(get_user)]
    )
    app.add_api_route("/{use_case}/{path:path}", report, methods=["GET"])
    return app
