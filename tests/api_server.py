"""Airflow's API server on a port and a database of its own, for the time of some tests.

Belongs here: starting and ending it. Does not belong here: who its users are, or what is tried on it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from airloop.settings import REPOSITORY, Settings

AIRFLOW = Path(sys.executable).with_name("airflow")
STARTS_WITHIN_SECONDS = 240


class Server(NamedTuple):
    """A running API server."""

    url: str
    settings: Settings
    database: Path
    environment: Mapping[str, str]
    """Of its process: for others on the same database."""

    def token(self, user: str) -> dict[str, str]:
        """The header that says who asks; each user's password is the name."""
        answer = httpx.post(f"{self.url}/auth/token", json={"username": user, "password": user}, timeout=60)
        return {"Authorization": f"Bearer {answer.raise_for_status().json()['access_token']}"}


@contextmanager
def api_server(
    home: Path,
    settings: Settings,
    options: Mapping[str, str],
    *,
    airflow: Path = AIRFLOW,
    prepared_by: Sequence[Sequence[str]] = (),
    variables: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Serves the repository's DAGs and plugins from `home`, with Airflow's `options` (`SECTION__NAME`).

    `prepared_by` are commands of Airflow's that run between the database's migration and the start.
    """
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    given = {
        "CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "API__BASE_URL": url,
        "API_AUTH__JWT_SECRET": "a secret of the tests, long enough to sign with",
        **options,
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    environment = {
        **kept,
        **{f"AIRFLOW__{name}": value for name, value in given.items()},
        "AIRFLOW_HOME": str(home),
        "AIRLOOP_STATE_DIR": str(settings.state_dir),
        **(variables or {}),
    }
    for command in (("db", "migrate"), *prepared_by, ("dags", "reserialize")):
        done = subprocess.run(
            [str(airflow), *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=STARTS_WITHIN_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    port = url.rsplit(":", 1)[1]
    with (home / "api-server.log").open("wb") as log:
        process = subprocess.Popen(
            [str(airflow), "api-server", "--host", "127.0.0.1", "--port", port, "--workers", "1"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(f"{url}/api/v2/version", process)
        yield Server(url, settings, home / "airflow.db", environment)
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + STARTS_WITHIN_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, "the API server ended"
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"{url} does not answer")
