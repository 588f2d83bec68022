"""Connections: addresses and secrets of the outside, as Airflow hands them to a job.

Belongs here: reading one connection. Does not belong here: what is done with it, or deployment facts
(`airloop.settings`).

Airflow resolves a connection from its own store or secrets backend and gives it to the job's process in the
environment, in the form that Airflow itself reads: `AIRFLOW_CONN_<ID>` with a JSON document. A person who
runs a job by hand sets the same variable.
"""

from __future__ import annotations

import json
import os
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from airloop.errors import SettingsError

VARIABLE_PREFIX = "AIRFLOW_CONN_"
PSEUDONYM_KEY = "airloop_pseudonym_key"
"""The connection with the key that personal columns are hashed with (see `airloop.pseudonyms`)."""

PREDICTION_LOG = "airloop_prediction_log"
"""The connection to the Kafka that gateways send their logs to; without it logs land from the spool."""


class Connection(BaseModel):
    """One connection; its secret never shows in a text form of it."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    id: str
    conn_type: str
    host: str | None = None
    port: int | None = None
    login: str | None = None
    password: SecretStr | None = None
    schema_: str | None = Field(None, alias="schema")
    """A database's name, as Airflow calls it."""
    extra: dict[str, Any] = Field(default={}, repr=False)
    """Whatever else the service needs; may hold secrets too."""

    @field_validator("extra", mode="before")
    @classmethod
    def _parsed(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) and value else value or {}

    @property
    def secret(self) -> str:
        """The password in the clear, empty where there is none."""
        return self.password.get_secret_value() if self.password is not None else ""


def variable_of(connection_id: str) -> str:
    """The environment variable that carries the connection."""
    return VARIABLE_PREFIX + connection_id.upper()


def find_connection(connection_id: str) -> Connection | None:
    """The connection given to this process, or None.

    Raises `SettingsError`, without repeating the text, when it is there but cannot be read.
    """
    text = os.environ.get(variable_of(connection_id))
    if not text:
        return None
    try:
        return Connection.model_validate({**json.loads(text), "id": connection_id})
    except (ValueError, TypeError, ValidationError):
        raise SettingsError(
            expected=f"{variable_of(connection_id)} to be a connection in Airflow's JSON form",
            found="something else (not shown, it may hold a secret)",
            next_step="write a JSON object with conn_type, host, port, login, password, schema and extra",
        ) from None


def require_connection(connection_id: str) -> Connection:
    """The connection given to this process; raises `SettingsError` when there is none."""
    connection = find_connection(connection_id)
    if connection is None:
        raise SettingsError(
            expected=f"the connection {connection_id}",
            found="none",
            next_step=f"add it to Airflow (Admin, Connections); for a job run by hand, set "
            f"{variable_of(connection_id)}",
        )
    return connection
