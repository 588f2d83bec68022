"""Airflow's entry to the plugin: the use cases' page, links to the rest of the stack, and the jobs' reports.

Belongs here: what Airflow must discover by itself. Does not belong here: operators and callbacks, which DAGs
import from `airloop_airflow`; Airflow runs every module of this folder, so this is the only one.
"""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from airloop.settings import load_settings
from airloop_airflow.addresses import ui_path
from airloop_airflow.reports import URL_PREFIX, ReportsApp
from airloop_airflow.use_case_page.app import URL_PREFIX as PAGE_PREFIX
from airloop_airflow.use_case_page.app import UseCasePageApp


def _links() -> list[dict[str, Any]]:
    settings = load_settings()
    addresses = {
        "MLflow": settings.mlflow_public_url or settings.tracking_uri,
        "Gateway": f"{settings.gateway_public_url or settings.gateway_url}/docs",
    }
    page = {
        "name": "Airloop",
        "href": f"{ui_path()}{PAGE_PREFIX}/",
        "destination": "nav",
        "url_route": "airloop",
        "icon": f"{ui_path()}{PAGE_PREFIX}/static/icon.svg",
        "nav_top_level": True,
    }
    return [page] + [
        {"name": name, "href": address, "destination": "nav", "category": "browse"}
        for name, address in addresses.items()
    ]


class AirloopPlugin(AirflowPlugin):
    """Adds the use cases' page to the UI's navigation, MLflow and the gateway's API page to its Browse menu,
    and serves the jobs' reports."""

    name = "airloop"
    fastapi_apps: ClassVar[list[Any]] = [
        {"app": ReportsApp(), "url_prefix": URL_PREFIX, "name": "Airloop reports"},
        {"app": UseCasePageApp(), "url_prefix": PAGE_PREFIX, "name": "Airloop"},
    ]
    external_views: ClassVar[list[Any]] = _links()
