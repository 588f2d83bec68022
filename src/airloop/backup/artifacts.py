"""Artifacts of the models that are registered: found in MLflow's database, copied from its store and back.

Belongs here: which folders of the store a registered model needs, and moving them. Does not belong here:
MLflow's database (`databases`).

Artifacts are written before a version is registered, so those of a database that was copied earlier are
there. Artifacts of runs that were never registered are left out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from airloop.backup.place import encryption
from airloop.lakehouse.files import files_under, s3_client
from airloop.settings import Settings

_PROXIED = "mlflow-artifacts:"


def registered_folders(settings: Settings, database_url: str) -> dict[str, str]:
    """Folders of the artifact store that versions which are registered need, and a version that needs each.

    What lies outside the deployment's artifact store is not among them.
    """
    url = make_url(database_url)
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg2")
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        if not inspect(connection).has_table("model_versions"):
            return {}
        rows = connection.execute(
            text(
                "SELECT v.name, v.version, v.source, v.storage_location, r.artifact_uri "
                "FROM model_versions v LEFT JOIN runs r ON r.run_uuid = v.run_id "
                "WHERE v.current_stage <> 'Deleted_Internal'"
            )
        ).all()
    found: dict[str, str] = {}
    for name, version, *uris in rows:
        for uri in uris:
            folder = _within(settings, uri)
            if folder is not None:
                found.setdefault(folder, f"{name} {version}")
    # A run's folder has that of its model.
    return {
        folder: version
        for folder, version in found.items()
        if not any(folder.startswith(f"{other}/") for other in found)
    }


def files_of(settings: Settings, folder: str) -> Iterator[str]:
    """The files of a folder of the artifact store, by their paths in the store."""
    store = urlsplit(settings.mlflow_artifacts_uri)
    if store.scheme == "file":
        root = Path(unquote(store.path))
        yield from (path.relative_to(root).as_posix() for path in files_under(root / folder))
        return
    prefix = f"{store.path.strip('/')}/"
    pages = s3_client(settings).get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=store.netloc, Prefix=f"{prefix}{folder}/"):
        for item in page.get("Contents", ()):
            yield item["Key"].removeprefix(prefix)


def open_file(settings: Settings, path: str) -> IO[bytes]:
    """Read a file of the store; raises `FileNotFoundError`."""
    store = urlsplit(settings.mlflow_artifacts_uri)
    if store.scheme == "file":
        return (Path(unquote(store.path)) / path).open("rb")
    client = s3_client(settings)
    try:
        body: IO[bytes] = client.get_object(Bucket=store.netloc, Key=f"{store.path.strip('/')}/{path}")[
            "Body"
        ]
    except client.exceptions.NoSuchKey:
        raise FileNotFoundError(path) from None
    return body


def write_file(settings: Settings, path: str, source: Path) -> None:
    """Put the file `source` at `path` of the store, over what is there."""
    store = urlsplit(settings.mlflow_artifacts_uri)
    if store.scheme == "file":
        target = Path(unquote(store.path)) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.restored")
        shutil.copyfile(source, aside)
        aside.replace(target)
        return
    key = f"{store.path.strip('/')}/{path}"
    s3_client(settings).upload_file(str(source), store.netloc, key, ExtraArgs=encryption(settings))


def _within(settings: Settings, uri: str | None) -> str | None:
    """The path in the artifact store that `uri` stands for, if it is in there."""
    if not uri:
        return None
    if uri.startswith(_PROXIED):
        path = uri.removeprefix(_PROXIED)
        # With or without the server's name.
        return (path.removeprefix("//").partition("/")[2] if path.startswith("//") else path).strip("/")
    root = settings.mlflow_artifacts_uri.rstrip("/")
    for prefix in (root, root.removeprefix("file://")):
        if uri.startswith(f"{prefix}/"):
            return uri.removeprefix(prefix).strip("/")
    return None
