"""Where files lie: the local disk or an S3 service, and what identifies a file's content there.

Belongs here: finding files, their versions, opening them unpacked, and what a failure means. Does not belong
here: what is in a file.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import pyarrow as pa
from pyarrow import fs

from airloop.connections import Connection
from airloop.errors import SourceError, SpecError
from airloop.sources.file_paths import fixed_folder, is_glob, matches
from airloop.sources.outage import SourceUnavailable

S3: Final = "s3://"
CONNECT_SECONDS: Final = 10
REQUEST_SECONDS: Final = 60

_PACKED: Final = {".gz": "gzip", ".zst": "zstd"}
_DAMAGED: Final = ("compressed stream", "inflate failed", "decompress failed", "zlib", "zstd")
_REFUSED: Final = ("HTTP status 400", "HTTP status 401", "HTTP status 403", "HTTP status 404")


class StoredFile(NamedTuple):
    """One file as it stands."""

    path: str
    """Within the store."""
    name: str
    """As people call it, with `s3://`."""
    version: str
    """Changes when the content does: S3's ETag, or the local time of change and size."""
    modified: datetime
    """When it was last written, in UTC."""


class FileStore:
    """The files of one file system."""

    def __init__(self, system: fs.FileSystem, prefix: str, root: Path | None = None) -> None:
        self._system, self._prefix, self._root = system, prefix, root

    def find(self, path: str) -> list[StoredFile]:
        """The files that `path`, which may be a glob, names; in order of name; none where there are none."""
        within = self._within(path)
        with understood(path):
            if not is_glob(within):
                paths = [within]
            else:
                selector = fs.FileSelector(fixed_folder(within), recursive=True, allow_not_found=True)
                try:
                    listed = self._system.get_file_info(selector)
                except FileNotFoundError:  # S3 knows no empty folders, and ignores allow_not_found
                    listed = []
                paths = sorted(item.path for item in listed if matches(item.path, within))
            return [file for item in paths if (file := self.stat(item)) is not None]

    def stat(self, path: str) -> StoredFile | None:
        """The file at `path` as it stands now, None where there is none."""
        info = self._system.get_file_info(path)
        if info.type is not fs.FileType.File:
            return None
        modified = datetime.fromtimestamp((info.mtime_ns or 0) / 1e9, UTC)
        version = f"{info.mtime_ns}-{info.size}"
        if self._prefix == S3:
            try:
                with self._system.open_input_stream(path) as stream:
                    tag = stream.metadata().get("ETag", b"").decode().strip('"')
            except FileNotFoundError:  # removed since it was listed
                return None
            version = tag or version
        return StoredFile(path, self._prefix + path, version, modified)

    def require_same(self, file: StoredFile) -> None:
        """Raises `SourceUnavailable` when `file` is not any more what it was."""
        with understood(file.name):
            now = self.stat(file.path)
        if now is None or now.version != file.version:
            raise SourceUnavailable(f"{file.name} changed while it was read")

    def open(self, file: StoredFile) -> Any:
        """`file` for reading anywhere in it, as Parquet needs."""
        return self._system.open_input_file(file.path)

    @contextmanager
    def unpacked(self, file: StoredFile) -> Iterator[IO[bytes]]:
        """The content of `file` from its start; unpacked when its name ends in .gz, .zst or .zip."""
        suffix = Path(file.path).suffix
        if suffix == ".zip":
            with self.open(file) as raw, zipfile.ZipFile(raw) as archive:
                member = _only_member(archive, file.name)
                try:
                    stream = archive.open(member)
                except (NotImplementedError, RuntimeError) as error:  # encrypted, or of an unknown method
                    raise _damaged(file.name, error) from None
                yield stream
        else:
            compression = _PACKED.get(suffix)
            with self._system.open_input_stream(file.path, compression=compression) as unpacked:
                yield unpacked

    def _within(self, path: str) -> str:
        if self._prefix:
            return path.removeprefix(self._prefix)
        return str(self._root / path) if self._root is not None else path


def open_store(path: str, connection: Connection | None, root: Path) -> FileStore:
    """The store that `path` lies in: an S3 service for `s3://`, else the local disk (relative to `root`).

    The connection, of Airflow's type `aws`, has the access key as login, its secret as password, and in extra
    `endpoint_url`, `region_name`, `aws_session_token`. Without one, S3 is read with the machine's own role.
    """
    if not path.startswith(S3):
        return FileStore(fs.LocalFileSystem(), "", root)
    if connection is None:
        own = fs.S3FileSystem(connect_timeout=CONNECT_SECONDS, request_timeout=REQUEST_SECONDS)
        return FileStore(own, S3)
    if connection.conn_type != "aws":
        raise SpecError(
            expected=f"connection {connection.id!r} to be of type aws, for {path}",
            found=f"type {connection.conn_type!r}",
            next_step="name another connection in the source, or correct this one's type",
        )
    extra = connection.extra
    endpoint = str(extra.get("endpoint_url") or "")
    system = fs.S3FileSystem(
        access_key=connection.login or None,
        secret_key=connection.secret or None,
        session_token=extra.get("aws_session_token"),
        region=extra.get("region_name") or ("us-east-1" if endpoint else None),
        scheme="http" if endpoint.startswith("http://") else "https",
        endpoint_override=endpoint.partition("://")[2].rstrip("/") or None,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=REQUEST_SECONDS,
    )
    return FileStore(system, S3)


@contextmanager
def understood(name: str) -> Iterator[None]:
    """Failures to read the file called `name`, as what they mean.

    `SourceError` for a file that is damaged, gone or forbidden; `SourceUnavailable` for a store that cannot
    be reached.
    """
    try:
        yield
    except FileNotFoundError:
        raise SourceUnavailable(f"{name} was removed while it was read") from None
    except PermissionError as error:
        raise _forbidden(name, error) from None
    except (pa.ArrowInvalid, zipfile.BadZipFile, zlib.error, EOFError, io.UnsupportedOperation) as error:
        raise _damaged(name, error) from None
    except OSError as error:
        text = str(error)
        if "AWS Error" in text and any(status in text for status in _REFUSED):
            raise _forbidden(name, error) from None
        if "AWS Error" in text or (error.errno is not None and not any(mark in text for mark in _DAMAGED)):
            raise SourceUnavailable(f"{name}: {_first_line(error)}") from None
        raise _damaged(name, error) from None


def _damaged(name: str, error: Exception) -> SourceError:
    return SourceError(
        expected=f"{name} to be whole",
        found=_first_line(error),
        next_step="have the source deliver the file again; nothing was ingested",
    )


def _forbidden(name: str, error: Exception) -> SourceError:
    return SourceError(
        expected=f"to be let read {name}",
        found=_first_line(error),
        next_step="correct the bucket's name or the connection's access key, or grant it the right to read "
        "and list",
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _only_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The archive's one file; macOS adds a folder of its own beside it."""
    members = [
        item for item in archive.infolist() if not item.is_dir() and not item.filename.startswith("__MACOSX/")
    ]
    if len(members) != 1:
        raise SourceError(
            expected=f"one file in the archive {name}",
            found=", ".join(item.filename for item in members) or "none",
            next_step="have the source pack one file in each archive",
        )
    return members[0]
