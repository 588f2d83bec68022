"""The warehouse's files as they are stored, whatever refers to them: in a folder, or on S3.

Belongs here: listing, fetching and removing stored files, every version of them where the store keeps some.
Does not belong here: which of them a table knows, or what is looked for in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from airloop.settings import Settings
from airloop.work_folders import work_folder


@dataclass(frozen=True)
class StoredFile:
    """One file; of a store with versions, one version of it."""

    location: str
    """A path, or `s3://bucket/key`, as `normalised` writes it."""
    modified: datetime
    version: str | None = None
    """S3's id of the version, where the bucket keeps versions."""
    current: bool = True
    """Whether it is what a reader of `location` gets; a version that was deleted or replaced is not."""


def normalised(location: str) -> str:
    """One way of writing each of a file's locations (`file:/x`, `file:///x`, `/x`; `s3a://b/k`, `s3://b/k`)."""
    parsed = urlparse(location)
    if parsed.scheme in ("s3", "s3a", "s3n"):
        return f"s3://{parsed.netloc}{parsed.path}"
    return str((Path(unquote(parsed.path)) if parsed.scheme else Path(location)).resolve())


def files_under(folder: Path) -> Iterator[Path]:
    """Every regular file under `folder`, links not followed, in order; none where there is no folder."""
    if folder.is_dir():
        yield from sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def warehouse_files(settings: Settings) -> Iterator[StoredFile]:
    """Every file of the warehouse, and every version that its store still keeps."""
    if not settings.warehouse_location.startswith("s3:"):
        for path in files_under(settings.warehouse.resolve()):
            try:
                modified = path.stat().st_mtime
            except FileNotFoundError:
                continue
            yield StoredFile(str(path), datetime.fromtimestamp(modified, UTC))
        return
    place = urlparse(settings.warehouse_location)
    bucket, prefix = place.netloc, f"{place.path.lstrip('/')}/"
    client = s3_client(settings)
    if client.get_bucket_versioning(Bucket=bucket).get("Status") is None:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                yield StoredFile(f"s3://{bucket}/{item['Key']}", item["LastModified"])
        return
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Versions", ()):
            yield StoredFile(
                f"s3://{bucket}/{item['Key']}", item["LastModified"], item["VersionId"], item["IsLatest"]
            )


@contextmanager
def fetched(settings: Settings, file: StoredFile) -> Iterator[Path]:
    """The file's content as a local file with its suffix, until the block ends.

    Raises `FileNotFoundError` when it is gone.
    """
    if not file.location.startswith("s3:"):
        yield Path(file.location)
        return
    place = urlparse(file.location)
    with work_folder(settings, "fetched") as folder:
        path = folder / Path(place.path).name
        client = s3_client(settings)
        version = {} if file.version is None else {"VersionId": file.version}
        try:
            client.download_file(place.netloc, place.path.lstrip("/"), str(path), ExtraArgs=version)
        except client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NoSuchVersion"):
                raise FileNotFoundError(file.location) from None
            raise
        yield path


def remove(settings: Settings, file: StoredFile) -> None:
    """Remove the file for good: of a store with versions that version itself; one that is gone is fine."""
    if not file.location.startswith("s3:"):
        Path(file.location).unlink(missing_ok=True)
        return
    place = urlparse(file.location)
    version = {} if file.version is None else {"VersionId": file.version}
    s3_client(settings).delete_object(Bucket=place.netloc, Key=place.path.lstrip("/"), **version)


def s3_client(settings: Settings) -> Any:
    """A client of the deployment's S3; who it is, AWS's own chain of credentials says."""
    # Only here: a warehouse in a folder needs no AWS client.
    import boto3
    from botocore.config import Config

    style = {"addressing_style": "path"} if settings.s3_endpoint else {}
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.aws_region,
        config=Config(s3=style, retries={"mode": "standard", "max_attempts": 5}),
    )
