"""Where data are kept: warehouse, catalog, registries, online store, backups.

Belongs here: asking each to do a little of its work. Does not belong here: the services that jobs and clients
talk to (`services`).
"""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import urlsplit

from airloop.doctor.examination import Failure
from airloop.settings import Settings


def warehouse(settings: Settings) -> str:
    """An object can be written, read back and removed, encrypted as the settings ask."""
    text = secrets.token_bytes(16)
    name = f".doctor-{secrets.token_hex(4)}"
    if not settings.warehouse_location.startswith("s3:"):
        file = settings.warehouse / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
            if file.read_bytes() != text:
                raise Failure(f"{file} has not what was written to it")
        except OSError as error:
            raise Failure(f"{settings.warehouse}: {error.strerror or error}") from None
        finally:
            if settings.warehouse.is_dir():
                file.unlink(missing_ok=True)
        return f"{settings.warehouse} is readable and writable"
    return _s3(settings, settings.warehouse_location, name, text)


def _s3(settings: Settings, location: str, name: str, text: bytes) -> str:
    from airloop.lakehouse.files import s3_client

    place = urlsplit(location)
    client = s3_client(settings)
    # Not as the writers of tables do, who leave it to the bucket: what the bucket does is what is asked.
    where: dict[str, Any] = {"Bucket": place.netloc, "Key": f"{place.path.strip('/')}/{name}".lstrip("/")}
    client.put_object(**where, Body=text)
    try:
        found = client.get_object(**where)
        if found["Body"].read() != text:
            raise Failure(f"{location}/{name} has not what was written to it")
    finally:
        client.delete_object(**where)
    kind, key = found.get("ServerSideEncryption"), found.get("SSEKMSKeyId")
    if settings.kms_key is not None and (kind, key) != ("aws:kms", settings.kms_key):
        raise Failure(
            f"{location} encrypts with {key or kind or 'nothing'}",
            f"make {settings.kms_key} the bucket's default (SSE-KMS): tables are written so",
        )
    return f"{location} is readable and writable; encryption: {key or kind or 'none'}"


def catalog(settings: Settings) -> str:
    """It lists its tables."""
    from airloop.lakehouse.catalog import open_catalog

    found = open_catalog(settings)
    tables = sum(len(found.list_tables(namespace)) for namespace in found.list_namespaces())
    return f"{tables} tables"


def feast_registry(settings: Settings) -> str:
    """Its database answers."""
    return _database(settings.feast_registry_url)


def tuning_storage(settings: Settings) -> str:
    """Its database answers."""
    return _database(settings.tuning_storage_url)


def online_store(settings: Settings) -> str:
    """Redis answers, to us."""
    import redis

    assert settings.redis_connection is not None
    from airloop.doctor.reachable import redis_address

    host, port = redis_address(settings.redis_connection)
    given = dict(part.split("=", 1) for part in settings.redis_connection.split(",") if "=" in part)
    client = redis.Redis(
        host=host,
        port=port,
        password=given.get("password"),
        username=given.get("username"),
        db=int(given.get("db", 0)),
        ssl=given.get("ssl", "").lower() == "true",
        socket_timeout=5,
        socket_connect_timeout=5,
    )
    try:
        client.ping()
        memory: Any = client.info("memory")
    finally:
        client.close()
    limit = memory.get("maxmemory_human", "?")
    return (
        f"{host}:{port}, {memory.get('used_memory_human', '?')} of {limit if limit != '0B' else 'no limit'}"
    )


def backups(settings: Settings) -> str:
    """The place lists its backups, and the key is one."""
    from airloop.backup.manifest import backup_names
    from airloop.backup.place import open_place
    from airloop.backup.state_files import cipher

    cipher(settings)
    place = open_place(settings, str(settings.backup_uri))
    names = backup_names(place)
    if not names:
        return f"none yet in {place.uri}"
    return f"{len(names)} in {place.uri}, the newest {names[-1]}"


def _database(url: str) -> str:
    from sqlalchemy import create_engine, text
    from sqlalchemy.engine import make_url
    from sqlalchemy.pool import NullPool

    address = make_url(url)
    shown = address.render_as_string(hide_password=True)
    if address.drivername.startswith("sqlite"):
        from pathlib import Path

        file = Path(str(address.database))
        return shown if file.exists() else f"{shown}: not made yet"
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg2")
    engine = create_engine(address, poolclass=NullPool, connect_args={"connect_timeout": 5})
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    return shown
