"""Where backups are kept: a folder or a prefix on S3, with objects named by their contents.

    backups/<name>.json     what a backup consists of; it is one once this is there
    expired/<name>.json     the same of one that retention gave up; its objects stay a day longer
    objects/ab/<sha256>     contents, each once, however many backups have it
    erasures/<file>         the newest list of the erased, and the audit log

Belongs here: whole writes and reads by name. Does not belong here: what is kept (`manifest`), or for how long
(`retention`).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from airloop.backup import BackupError
from airloop.lakehouse.files import s3_client
from airloop.settings import Settings

PIECE_BYTES: Final = 1 << 20
IN_MEMORY_BYTES: Final = 32 << 20


class Kept(NamedTuple):
    """Contents in the place."""

    sha256: str
    size: int
    is_new: bool
    """Whether the place had to be written to."""


class Found(NamedTuple):
    """An entry of a listing."""

    size: int
    written: datetime


def object_name(sha256: str) -> str:
    """Where contents with that digest are."""
    return f"objects/{sha256[:2]}/{sha256}"


class Sink(Protocol):
    """What contents are written to."""

    def write(self, piece: bytes, /) -> object:
        """Take a piece."""


class Place(ABC):
    """Contents by name; threads may share one."""

    uri: str

    @abstractmethod
    def keep(self, source: IO[bytes]) -> Kept:
        """Keep the contents of `source` as an object, unless the place has them."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write `name` whole or not at all, over what was there."""

    @abstractmethod
    def read(self, name: str) -> IO[bytes]:
        """Open `name`; raises `FileNotFoundError`."""

    @abstractmethod
    def found(self, folder: str) -> dict[str, Found]:
        """What there is below `folder`, by name."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove `name`, if it is there."""

    def copy_object(self, sha256: str, target: Sink) -> None:
        """Write an object's contents to `target`; raises `BackupError` if they are not what was kept."""
        digest = hashlib.sha256()
        try:
            with self.read(object_name(sha256)) as source:
                while piece := source.read(PIECE_BYTES):
                    digest.update(piece)
                    target.write(piece)
        except FileNotFoundError:
            raise self.damaged(sha256, "it is not there") from None
        if digest.hexdigest() != sha256:
            raise self.damaged(sha256, f"contents with the digest {digest.hexdigest()}")

    def damaged(self, sha256: str, found: str) -> BackupError:
        """The error that names the object."""
        return BackupError(
            expected=f"{self.uri}/{object_name(sha256)} as it was written",
            found=found,
            next_step="remove that object, so that the next backup writes it anew, and restore another: "
            "`python -m airloop.backup verify` says which others have these contents",
        )


class FolderPlace(Place):
    """A folder, such as a mounted disk of another machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.uri = str(folder)

    def keep(self, source: IO[bytes]) -> Kept:
        """See the base class."""
        with self._aside() as (aside, file):
            digest, size = _copied(source, file)
            _synced(file)
            target = self._folder / object_name(digest)
            if target.exists() and target.stat().st_size == size:
                return Kept(digest, size, False)
            target.parent.mkdir(parents=True, exist_ok=True)
            aside.replace(target)
        return Kept(digest, size, True)

    def write(self, name: str, content: bytes) -> None:
        """See the base class."""
        with self._aside() as (aside, file):
            file.write(content)
            _synced(file)
            target = self._folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            aside.replace(target)
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, name: str) -> IO[bytes]:
        """See the base class."""
        return (self._folder / name).open("rb")

    def found(self, folder: str) -> dict[str, Found]:
        """See the base class."""
        there = {}
        for path in (self._folder / folder).rglob("*"):
            if path.is_file():
                seen = path.stat()
                name = path.relative_to(self._folder).as_posix()
                there[name] = Found(seen.st_size, datetime.fromtimestamp(seen.st_mtime, UTC))
        return there

    def remove(self, name: str) -> None:
        """See the base class."""
        (self._folder / name).unlink(missing_ok=True)

    @contextmanager
    def _aside(self) -> Iterator[tuple[Path, IO[bytes]]]:
        """A file beside the objects; what a killed process leaves of it is removed as an unused object."""
        path = self._folder / "objects" / "partial" / uuid.uuid4().hex
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)


class S3Place(Place):
    """A prefix of a bucket; every write asks for the deployment's key, where it has one."""

    def __init__(self, settings: Settings, uri: str) -> None:
        self.uri = uri
        address = urlsplit(uri)
        self._bucket, self._prefix = address.netloc, address.path.strip("/")
        self._settings = settings
        self._encryption = encryption(settings)

    @cached_property
    def _client(self) -> Any:
        return s3_client(self._settings)

    def keep(self, source: IO[bytes]) -> Kept:
        """See the base class."""
        # The name is known once all of it was read; S3 has no renaming.
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES, dir=str(_scratch(self._settings))) as file:
            digest, size = _copied(source, file)
            key = self._key(object_name(digest))
            if self._size_of(key) == size:
                return Kept(digest, size, False)
            file.seek(0)
            self._client.upload_fileobj(file, self._bucket, key, ExtraArgs=self._encryption)
        return Kept(digest, size, True)

    def write(self, name: str, content: bytes) -> None:
        """See the base class."""
        self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=content, **self._encryption)

    def read(self, name: str) -> IO[bytes]:
        """See the base class."""
        try:
            body: IO[bytes] = self._client.get_object(Bucket=self._bucket, Key=self._key(name))["Body"]
        except self._client.exceptions.NoSuchKey:
            raise FileNotFoundError(f"{self.uri}/{name}") from None
        return body

    def found(self, folder: str) -> dict[str, Found]:
        """See the base class."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._key(f"{folder}/")
        )
        return {
            item["Key"].removeprefix(f"{self._prefix}/" if self._prefix else ""): Found(
                item["Size"], item["LastModified"]
            )
            for page in pages
            for item in page.get("Contents", ())
        }

    def remove(self, name: str) -> None:
        """See the base class."""
        self._client.delete_object(Bucket=self._bucket, Key=self._key(name))

    def _size_of(self, key: str) -> int | None:
        from botocore.exceptions import ClientError

        try:
            size: int = self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
                return None
            raise
        return size

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name


def encryption(settings: Settings) -> dict[str, str]:
    """What a write to S3 says of encryption: the deployment's key, else what the bucket does by default."""
    key = settings.kms_key
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}


def open_place(settings: Settings, uri: str) -> Place:
    """The place at `uri`: `s3://bucket/prefix`, `file:///folder` or a folder; raises `BackupError`."""
    scheme, separator, path = uri.partition("://")
    if not separator:
        return FolderPlace(Path(uri).absolute())
    if scheme == "file" and path.startswith("/"):
        return FolderPlace(Path(path))
    if scheme == "s3" and path.strip("/"):
        return S3Place(settings, uri.rstrip("/"))
    raise BackupError(
        expected="a folder, or s3://<bucket>/<prefix>",
        found=uri,
        next_step="name one of these (AIRLOOP_BACKUP_URI, TO= or FROM=)",
    )


def _scratch(settings: Settings) -> Path:
    settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    return settings.scratch_dir


def _copied(source: IO[bytes], target: Any) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while piece := source.read(PIECE_BYTES):
        digest.update(piece)
        size += len(piece)
        target.write(piece)
    return digest.hexdigest(), size


def _synced(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
