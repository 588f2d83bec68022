"""Airflow's entry to the plugin: links from the UI to the rest of the stack, and the reports behind them.

Belongs here: what Airflow must discover by itself. Does not belong here: operators and callbacks, which DAGs
import from `airloop_airflow`; Airflow runs every module of this folder, so this is the only one.
"""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from airloop.settings import load_settings
from airloop_airflow.reports import URL_PREFIX, ReportsApp


def _links() -> list[dict[str, Any]]:
    settings = load_settings()
    addresses = {"MLflow": settings.tracking_uri, "Gateway": f"{settings.gateway_url}/docs"}
    return [
        {"name": name, "href": address, "destination": "nav", "category": "browse"}
        for name, address in addresses.items()
    ]


class AirloopPlugin(AirflowPlugin):
    """Adds MLflow and the gateway's API page to the UI's Browse menu, and serves the jobs' reports."""

    name = "airloop"
    fastapi_apps: ClassVar[list[Any]] = [
        {"app": ReportsApp(), "url_prefix": URL_PREFIX, "name": "Airloop reports"}
    ]
    external_views: ClassVar[list[Any]] = _links()
