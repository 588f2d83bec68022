"""A Kinesis client from an Airflow connection.

Belongs here: the one place that makes the client, with its patience. Does not belong here: reading or writing
records.

The connection is of Airflow's type `aws`: `login` and `password` are the access key (without them the
machine's own role counts), `extra` has `region_name` and, for a server that is not AWS, `endpoint_url`.
"""

from __future__ import annotations

from typing import Any

from airloop.connections import Connection
from airloop.errors import SettingsError

ATTEMPTS = 12
"""Tries of one call; the client backs off up to 20 s between them, also when it is throttled."""


def kinesis_client(connection: Connection) -> Any:
    """A client of the Kinesis API; raises `SettingsError` when the connection names no region."""
    import boto3
    from botocore.config import Config

    if "region_name" not in connection.extra:
        raise SettingsError(
            expected=f"region_name in the extra of connection {connection.id}",
            found=", ".join(sorted(connection.extra)) or "an empty extra",
            next_step="add it to the connection",
        )
    return boto3.client(
        "kinesis",
        region_name=connection.extra["region_name"],
        endpoint_url=connection.extra.get("endpoint_url"),
        aws_access_key_id=connection.login or None,
        aws_secret_access_key=connection.secret or None,
        aws_session_token=connection.extra.get("aws_session_token"),
        config=Config(retries={"mode": "standard", "max_attempts": ATTEMPTS}, read_timeout=30),
    )
