"""Secrets that a job elsewhere reads from AWS Secrets Manager, by name.

    <prefix>/connections/<connection id>   a connection in Airflow's JSON form, as Airflow's own backend reads
    it <prefix>/settings/<field>              a setting that is a secret <prefix>/database-passwords
    lines as PostgreSQL's password file has them

Belongs here: those names, and reading them. Does not belong here: which of them a job needs (`job_folder`).
"""

from __future__ import annotations

from typing import Any, Final

from airloop.errors import SettingsError

CONNECTIONS: Final = "connections"
SETTINGS: Final = "settings"
DATABASE_PASSWORDS: Final = "database-passwords"
_ABSENT: Final = "ResourceNotFoundException"


class Secrets:
    """The secrets below `prefix`; `client` is boto3's of Secrets Manager."""

    def __init__(self, prefix: str, client: Any) -> None:
        self._prefix, self._client = prefix, client

    def connection(self, connection_id: str) -> str:
        """The connection's document; raises `SettingsError` where there is none."""
        return self._read(f"{CONNECTIONS}/{connection_id}")

    def setting(self, field: str) -> str:
        """The setting's value; raises `SettingsError` where there is none."""
        return self._read(f"{SETTINGS}/{field}").strip()

    def database_passwords(self) -> str:
        """What belongs into the file that PGPASSFILE names; raises `SettingsError` where there is none."""
        return self._read(DATABASE_PASSWORDS)

    def _read(self, name: str) -> str:
        secret_id = f"{self._prefix}/{name}"
        try:
            found: str = self._client.get_secret_value(SecretId=secret_id)["SecretString"]
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != _ABSENT:
                raise
            raise SettingsError(
                expected=f"the secret {secret_id} in Secrets Manager",
                found="none",
                next_step="create it there; a job that runs elsewhere has no other source of secrets",
            ) from None
        return found
