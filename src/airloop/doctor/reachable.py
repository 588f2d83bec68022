"""Whether what the settings name can be reached at all: in milliseconds, by the standard library alone.

Belongs here: the quick look that a run begins with. Does not belong here: whether a service does its work
(the other modules, for `make doctor`), or what a DAG needs (`airloop_airflow.dependencies`).
"""

from __future__ import annotations

import http.client
import os
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from airloop.settings import Settings

Need = Literal["catalog", "feast_registry", "mlflow", "online_store", "warehouse"]

TIMEOUT_SECONDS: Final = 3.0


class Unreachable(NamedTuple):
    """What does not answer, and what to do about it."""

    name: str
    found: str
    next_step: str


def unreachable(settings: Settings, needs: Collection[Need]) -> list[Unreachable]:
    """Those of `needs` that do not answer, all asked at once; in the order given."""
    found: dict[str, Unreachable] = {}

    def ask(need: Need) -> None:
        try:
            _PROBES[need](settings)
        except (OSError, http.client.HTTPException) as error:
            found[need] = Unreachable(need, f"{_address(settings, need)}: {_said(error)}", NEXT_STEPS[need])

    threads = [threading.Thread(target=ask, args=(need,), daemon=True) for need in needs]
    for thread in threads:
        thread.start()
    for thread in threads:
        # Looking a name up has no timeout of its own.
        thread.join(2 * TIMEOUT_SECONDS)
    for need, thread in zip(needs, threads, strict=True):
        if thread.is_alive():
            found[need] = Unreachable(need, f"{_address(settings, need)}: no answer", NEXT_STEPS[need])
    return [found[need] for need in needs if need in found]


def listens(host: str, port: int) -> None:
    """Raises `OSError` unless something takes connections there."""
    socket.create_connection((host, port), TIMEOUT_SECONDS).close()


def _warehouse(settings: Settings) -> None:
    if settings.warehouse_location.startswith("s3:"):
        listens(*_s3_address(settings))
        return
    folder = settings.warehouse
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} is not writable")


def _catalog(settings: Settings) -> None:
    if settings.catalog_url == "glue":
        listens(f"glue.{settings.aws_region}.amazonaws.com", 443)
    else:
        _database(settings.catalog_url)


def _database(url: str) -> None:
    if url.startswith("sqlite:"):
        return
    address = urlsplit(url)
    listens(address.hostname or "127.0.0.1", address.port or 5432)


def _mlflow(settings: Settings) -> None:
    address = urlsplit(settings.tracking_uri)
    if address.scheme not in ("http", "https"):
        return
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.hostname or "", address.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", f"{address.path.rstrip('/')}/health")
        status = connection.getresponse().status
    finally:
        connection.close()
    # One that asks who it is that asks is there.
    if status >= 500:
        raise ConnectionError(f"status {status}")


def _online_store(settings: Settings) -> None:
    if settings.redis_connection is None:
        return
    host, port = redis_address(settings.redis_connection)
    with socket.create_connection((host, port), TIMEOUT_SECONDS) as connection:
        if "ssl=true" in settings.redis_connection.lower():
            return
        connection.settimeout(TIMEOUT_SECONDS)
        connection.sendall(b"PING\r\n")
        answer = connection.recv(64)
    # Without a password it says NOAUTH, and that it is there.
    if not answer.startswith((b"+PONG", b"-NOAUTH")):
        raise ConnectionError(answer.decode("ascii", "replace").strip() or "it closed the connection")


def redis_address(connection: str) -> tuple[str, int]:
    """Host and port of the first of Feast's `host:port[,host:port...][,option=value...]`."""
    host, _, port = connection.partition(",")[0].rpartition(":")
    return host or "127.0.0.1", int(port)


def _s3_address(settings: Settings) -> tuple[str, int]:
    if settings.s3_endpoint is None:
        region = f".{settings.aws_region}" if settings.aws_region else ""
        return f"s3{region}.amazonaws.com", 443
    address = urlsplit(settings.s3_endpoint)
    return address.hostname or "", address.port or (443 if address.scheme == "https" else 80)


def _address(settings: Settings, need: Need) -> str:
    """Where it is, without a password."""
    given: Mapping[Need, str] = {
        "catalog": settings.catalog_url,
        "feast_registry": settings.feast_registry_url,
        "mlflow": settings.tracking_uri,
        "online_store": (settings.redis_connection or "").partition(",")[0],
        "warehouse": settings.s3_endpoint or settings.warehouse_location,
    }
    text = given[need]
    head, separator, rest = text.rpartition("@")
    return f"{head.partition('://')[0]}://{rest}" if separator else text


def _said(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return error.strerror or text if isinstance(error, OSError) and error.strerror else text


_PROBES: Final[Mapping[Need, Callable[[Settings], None]]] = {
    "catalog": _catalog,
    "feast_registry": lambda settings: _database(settings.feast_registry_url),
    "mlflow": _mlflow,
    "online_store": _online_store,
    "warehouse": _warehouse,
}
NEXT_STEPS: Final[Mapping[Need, str]] = {
    "catalog": "start the catalog's database, or correct AIRLOOP_CATALOG_URI",
    "feast_registry": "start the database of Feast's registry, or correct AIRLOOP_FEAST_REGISTRY",
    "mlflow": "start MLflow (locally: make up), or correct AIRLOOP_MLFLOW_URI",
    "online_store": "start Redis, or correct AIRLOOP_REDIS_CONNECTION",
    "warehouse": "start the store, or correct AIRLOOP_S3_ENDPOINT and AIRLOOP_WAREHOUSE_URI; of a folder, "
    "give the user that runs Airflow the right to write",
}
