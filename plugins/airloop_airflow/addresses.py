"""Where people reach Airflow's UI: for the links in alerts, reports and pages.

Belongs here: the address and its path. Does not belong here: what is linked.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from airflow.configuration import conf

from airloop.settings import load_settings


def ui_url() -> str:
    """Airflow's own setting `[api] base_url`, which people behind a proxy set; else the local stack's."""
    return (conf.get("api", "base_url", fallback="") or load_settings().airflow_url).rstrip("/")


def ui_path() -> str:
    """The path that the UI is under, such as `/airflow`; empty where it has its host for itself."""
    return urlsplit(ui_url()).path
