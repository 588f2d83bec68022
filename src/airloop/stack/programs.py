"""The programs of the local stack: their commands, their environment, and how each says that it is well.

Belongs here: facts about each program. Does not belong here: starting or stopping them (`supervision`).
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from airloop.settings import PREFIX, Settings, environment_of
from airloop.whole_files import write_whole

LOGIN = "admin"
PLATFORM_OWNER = "ml-platform"
"""Whose the DAGs are that are no use case's."""
PARALLELISM = 4
"""Tasks that Airflow runs at once."""
HOURLY_POOL = "hourly"
"""As `airloop_airflow.policy` calls it."""
AUTH_MANAGER = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
LINEAGE_POLICY = [
    # The code is in git, under the commit that each snapshot names.
    {"scope": {}, "controls": {"include_source_code": False}},
    # Events carry the run's configuration, which names the subject that is to be forgotten.
    {"scope": {"dag_id": "erasure"}, "controls": {"emit": False}, "locked": True},
]
"""Which lineage events Airflow's provider leaves out, in its own terms."""

METRICS = {
    "METRICS__STATSD_ON": "True",
    # Tags become labels; without them DAG and task are parts of names.
    "METRICS__STATSD_INFLUXDB_ENABLED": "True",
    "METRICS__LEGACY_NAMES_ON": "False",
}
"""How Airflow sends metrics, wherever to; the rules and dashboards are written for it."""


class Program(NamedTuple):
    """One process that supervisord keeps running."""

    name: str
    command: tuple[str, ...]
    port_setting: str | None = None
    """The setting with the port that it listens on."""
    health_url: str | None = None
    """Answers with a status below 500 when the program is well."""
    needs_airflow_database: bool = False


def programs(settings: Settings) -> tuple[Program, ...]:
    """Every program, in the order in which they are started."""
    python, airflow = sys.executable, airflow_command()
    host = settings.host
    mlflow_dir = settings.state_dir / "mlflow"
    serving = settings.repository / "serving"
    # What clients wait for comes before parsing and before the jobs, which the scheduler's processes start.
    background = ("nice", "-n", str(settings.job_niceness))
    return (
        Program(
            "mlflow",
            (
                *(python, "-m", "mlflow", "server", "--host", host, "--port", str(settings.mlflow_port)),
                *("--workers", "1", "--backend-store-uri", f"sqlite:///{mlflow_dir / 'mlflow.db'}"),
                *("--artifacts-destination", str(mlflow_dir / "artifacts")),
            ),
            "mlflow_port",
            f"{settings.tracking_uri}/health",
        ),
        Program(
            "model-server",
            (
                *(python, "-m", "serving.model_server", "--bind_address", host),
                *("--port", str(settings.model_server_grpc_port)),
                *("--rest_api_port", str(settings.model_server_rest_port)),
                *("--model_config_file", str(settings.model_config_file)),
                # At start no version has loaded yet; a label must not keep the server from coming up.
                "--allow_version_labels_for_unavailable_models=true",
                *("--enable_batching=true", f"--batching_parameters_file={serving / 'batching.config'}"),
                f"--monitoring_config_file={serving / 'monitoring.config'}",
                # A thread waits for each request of a batch.
                "--grpc_max_threads=64",
                # As where several serve: a client then asks for the name again, and finds one that was added.
                "--grpc_channel_arguments=grpc.max_connection_age_ms=30000",
                # A small model runs on the thread that has its batch; handing over would cost more than it.
                *("--tensorflow_intra_op_parallelism=1", "--tensorflow_inter_op_parallelism=1"),
            ),
            "model_server_rest_port",
            f"http://{host}:{settings.model_server_rest_port}/v1/models/none",
        ),
        Program(
            "gateway",
            (python, "-m", "serving.gateway"),
            "gateway_port",
            f"{settings.gateway_url}/healthz",
        ),
        Program(
            "airflow-api-server",
            (airflow, "api-server", "--host", host, "--port", str(settings.airflow_port), "--workers", "1"),
            "airflow_port",
            f"{settings.airflow_url}/api/v2/monitor/health",
            needs_airflow_database=True,
        ),
        Program(
            "airflow-scheduler",
            (*background, airflow, "scheduler", "--skip-serve-logs"),
            needs_airflow_database=True,
        ),
        Program(
            "airflow-dag-processor", (*background, airflow, "dag-processor"), needs_airflow_database=True
        ),
        Program(
            "airflow-triggerer", (airflow, "triggerer", "--skip-serve-logs"), needs_airflow_database=True
        ),
    )


def ports(settings: Settings) -> dict[str, int]:
    """Every port that the stack listens on, by the name of its setting."""
    names = (
        "airflow_port",
        "mlflow_port",
        "gateway_port",
        "model_server_grpc_port",
        "model_server_rest_port",
    )
    return {name: getattr(settings, name) for name in names}


def environment(settings: Settings) -> dict[str, str]:
    """The environment of every program; everything that they write goes under the state folder.

    `HOME` and `TMPDIR` lie there too, because some libraries write caches without asking.
    """
    state = settings.state_dir
    kept = {key: value for key, value in os.environ.items() if not key.startswith((PREFIX, "AIRFLOW_"))}
    secret = _secrets(settings)
    home = airflow_home(settings)
    airflow = {
        "CORE__AUTH_MANAGER": AUTH_MANAGER,
        "CORE__DAGS_FOLDER": str(settings.repository / "dags"),
        "CORE__PLUGINS_FOLDER": str(settings.repository / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "OPERATORS__DEFAULT_OWNER": PLATFORM_OWNER,
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": str(PARALLELISM),
        "CORE__FERNET_KEY": secret["fernet_key"],
        "CORE__EXECUTION_API_SERVER_URL": f"{settings.airflow_url}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{LOGIN}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(_passwords_file(settings)),
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "API__BASE_URL": settings.airflow_url,
        "API__SECRET_KEY": secret["secret_key"],
        "API_AUTH__JWT_SECRET": secret["jwt_secret"],
        "DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
        # Of the programs; task logs are JSON in any case.
        "LOGGING__JSON_LOGS": str(settings.log_format == "json"),
        "TRACES__OTEL_ON": str(bool(settings.otlp_endpoint)),
        "OPENLINEAGE__NAMESPACE": "airloop",
        "OPENLINEAGE__TRANSPORT": json.dumps(lineage_transport(settings)),
        "OPENLINEAGE__EMISSION_POLICY": json.dumps(LINEAGE_POLICY),
    }
    return {
        **kept,
        **environment_of(settings),
        **{f"AIRFLOW__{name}": value for name, value in (airflow | metrics(settings)).items()},
        **_airflow_traces(settings),
        "AIRFLOW_HOME": str(home),
        "HOME": str(state / "home"),
        "TMPDIR": str(state / "tmp"),
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "TF_CPP_MIN_LOG_LEVEL": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _airflow_traces(settings: Settings) -> dict[str, str]:
    """Where Airflow sends its own spans: it reads OpenTelemetry's variables."""
    if not settings.otlp_endpoint:
        return {}
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": settings.otlp_endpoint,
        # By the exporter's name, which says the protocol; without it Airflow would speak gRPC.
        "OTEL_TRACES_EXPORTER": "otlp_proto_http",
        # Our own programs say their names themselves.
        "OTEL_SERVICE_NAME": "airflow",
    }


def metrics(settings: Settings) -> dict[str, str]:
    """Airflow's options for sending metrics; none where they are sent nowhere.

    Nobody needs to listen: a datagram that is not taken is lost, and holds nothing up.
    """
    if settings.statsd_address is None:
        return {}
    host, _, port = settings.statsd_address.rpartition(":")
    return {"METRICS__STATSD_HOST": host, "METRICS__STATSD_PORT": port, **METRICS}


def lineage_transport(settings: Settings) -> dict[str, object]:
    """Where OpenLineage's client takes events: always a file, and an endpoint if one is set.

    An endpoint that is down costs an event, never a task.
    """
    settings.lineage_events.parent.mkdir(parents=True, exist_ok=True)
    file = {"type": "file", "log_file_path": str(settings.lineage_events), "append": True}
    if settings.openlineage_url is None:
        return file
    address = urlsplit(settings.openlineage_url)
    endpoint = {
        "type": "http",
        "url": f"{address.scheme}://{address.netloc}",
        "endpoint": address.path.strip("/") or "api/v1/lineage",
        "timeout": 3,
        "retry": {"total": 1},
    }
    return {"type": "composite", "transports": [file, endpoint], "continue_on_failure": True}


def airflow_command() -> str:
    """Path of Airflow's command line in this environment."""
    return str(Path(sys.executable).with_name("airflow"))


def airflow_home(settings: Settings) -> Path:
    """Folder of Airflow's database, logs and generated secrets."""
    return settings.state_dir / "airflow"


def password(settings: Settings) -> str:
    """The generated password of the Airflow login `LOGIN`."""
    file = _passwords_file(settings)
    if not file.exists():
        _write_private(file, json.dumps({LOGIN: secrets.token_urlsafe(12)}))
    found: str = json.loads(file.read_text("utf-8"))[LOGIN]
    return found


def _passwords_file(settings: Settings) -> Path:
    return airflow_home(settings) / "passwords.json"


def _secrets(settings: Settings) -> dict[str, str]:
    """Airflow's keys, made once: a restart must not end sessions or lose encrypted connections."""
    file = airflow_home(settings) / "secrets.json"
    if not file.exists():
        # A Fernet key is 32 random bytes in URL-safe base64 with its padding.
        made = {name: secrets.token_urlsafe(32) for name in ("secret_key", "jwt_secret")}
        _write_private(file, json.dumps({**made, "fernet_key": secrets.token_urlsafe(32) + "="}))
    found: dict[str, str] = json.loads(file.read_text("utf-8"))
    return found


def _write_private(file: Path, text: str) -> None:
    write_whole(file, "")
    file.chmod(0o600)
    file.write_text(text, encoding="utf-8")
