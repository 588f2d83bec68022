"""The folder on S3 by which Airflow and a job that runs elsewhere tell one another what to do and what came
of it.

    <jobs_uri>/<job's name>/
        request.json    what to run, written before the job starts
        inputs/<name>   small files that it needs
        started.json    the service's id of the job
        hosts/...       where the hosts of a job that several share listen
        files/...       what the job wrote that belongs into the shared folder
        result.json     its exit status and document; written last
        taken.json      Airflow has taken the result

Belongs here: what lies there, reading and writing it. Does not belong here: running the job (`remote_job`),
or starting it (`airloop_airflow.compute`).

No secret is ever in it: connections and secret settings are named, and read where they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from airloop.errors import SettingsError
from airloop.settings import PREFIX, Settings

REQUEST: Final = "request.json"
STARTED: Final = "started.json"
RESULT: Final = "result.json"
TAKEN: Final = "taken.json"
INPUTS: Final = "inputs"
FILES: Final = "files"
HOSTS: Final = "hosts"
_ABSENT: Final = ("NoSuchKey", "404")


class Home(NamedTuple):
    """A folder below the shared one, and why what a job wrote there is brought to it."""

    folder: str
    reason: str
    is_renamed: bool = False
    """Whether other jobs write files of the same names."""


BROUGHT_HOME: Final = (
    Home("reports", "the Report button opens them, and the overview links to them"),
    Home("lineage/spark", "Spark's own lineage events, a file for each job"),
    Home("logs/jobs", "lines as JSON that a search engine collects; a file a day", is_renamed=True),
)
"""All that comes home. The rest of a job's own folder is scratch, or stands on S3, in MLflow or in a
database."""


class Request(BaseModel):
    """What is to be run, and what it is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    module: str
    flags: tuple[str, ...]
    environment: Mapping[str, str]
    inputs: Mapping[str, str] = {}
    """Fields of the settings that name a file, and the file's name in `inputs`."""
    connections: tuple[str, ...] = ()
    optional_connections: tuple[str, ...] = ()
    """Those that were defined when the job was asked for."""
    secret_settings: tuple[str, ...] = ()
    secrets_prefix: str | None = None
    needs_database_passwords: bool = False
    several_hosts: bool = False
    checkpoints_uri: str | None = None
    """Where the job copies its checkpoints to; None where it need not."""

    def is_for_the_same(self, other: Request) -> bool:
        """Whether both ask for the same work."""
        return (self.module, self.flags) == (other.module, other.flags)


class Started(BaseModel):
    """A job as its service knows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str
    started: str
    """When, ISO 8601, UTC."""


class Result(BaseModel):
    """What came of a job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: int
    """Its exit status."""
    document: dict[str, Any] | None = None
    """Its result document, where it wrote one."""
    state_dir: str
    """The folder that it took for the shared one: what the document says of it is true at home of ours."""


class JobFolder:
    """The folder of one job; `client` is boto3's of S3."""

    def __init__(self, uri: str, client: Any, kms_key: str | None) -> None:
        """`uri` is `s3://bucket/prefix`; what is put there is encrypted with `kms_key`, where there is
        one."""
        parts = urlsplit(uri)
        self.uri = uri.rstrip("/")
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        self._client, self._kms_key = client, kms_key
        self._encryption = encryption(kms_key)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def put(self, name: str, content: str | bytes) -> None:
        """Write the object `name`."""
        body = content.encode() if isinstance(content, str) else content
        self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=body, **self._encryption)

    def get(self, name: str) -> bytes | None:
        """The object `name`, None where there is none."""
        try:
            found: bytes = self._client.get_object(Bucket=self._bucket, Key=self._key(name))["Body"].read()
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return None
            raise
        return found

    def upload(self, path: Path, name: str) -> None:
        """Write the file `path` to the object `name`, in parts where it is large."""
        self._client.upload_file(str(path), self._bucket, self._key(name), ExtraArgs=self._encryption)

    def download(self, name: str, path: Path) -> None:
        """Write the object `name` to the file `path`."""
        self._client.download_file(self._bucket, self._key(name), str(path))

    def names(self, below: str = "") -> Iterator[str]:
        """The objects in the folder `below`, as `get` takes them."""
        prefix = self._key(f"{below}/" if below else "")
        for page in self._pages(Prefix=prefix):
            for item in page.get("Contents", ()):
                yield item["Key"].removeprefix(f"{self._prefix}/")

    def siblings(self, beginning: str) -> Iterator[JobFolder]:
        """The folders of jobs beside this one whose names begin so."""
        above, _, _ = self._prefix.rpartition("/")
        for page in self._pages(Prefix=f"{above}/{beginning}", Delimiter="/"):
            for item in page.get("CommonPrefixes", ()):
                yield self.sibling(item["Prefix"].rstrip("/").rpartition("/")[2])

    def sibling(self, name: str) -> JobFolder:
        """The folder of the job `name` beside this one."""
        return self.at(f"{self.uri.rpartition('/')[0]}/{name}")

    def at(self, uri: str) -> JobFolder:
        """The folder at `uri`, by the same client."""
        return JobFolder(uri, self._client, self._kms_key)

    @property
    def name(self) -> str:
        """The job's."""
        return self._prefix.rpartition("/")[2]

    def clear(self) -> None:
        """Remove all that lies there."""
        for name in list(self.names()):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(name))

    def _pages(self, **which: str) -> Iterator[Mapping[str, Any]]:
        yield from self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, **which)


def encryption(kms_key: str | None) -> dict[str, str]:
    """The arguments of S3's operations that have what they write encrypted with `kms_key`."""
    return {} if kms_key is None else {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key}


def require_reachable(settings: Settings, module: str, needs: tuple[str, ...]) -> None:
    """Raises `SettingsError` naming each of the fields `needs` that names nothing, or a file of this
    machine."""
    found = {name: getattr(settings, name) for name in needs}
    local = [
        name for name, value in found.items() if value is None or str(value).startswith(("sqlite:", "file:"))
    ]
    if local:
        raise SettingsError(
            expected=f"what {module} reaches from another machine in "
            + ", ".join(f"{PREFIX}{name.upper()}" for name in local),
            found="nothing, or a file of this one",
            next_step="set them, or have the group's jobs run as processes (AIRLOOP_COMPUTE)",
        )
