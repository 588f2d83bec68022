"""This machine: its folder, disk, Java and jars, keys and clock.

Belongs here: what is looked at without a service. Does not belong here: stores and services, which have
modules of their own.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import httpx

from airloop.doctor.examination import Failure, NotHere
from airloop.settings import Settings
from airloop.whole_files import write_whole

LEAST_FREE_GIB: Final = 5.0
LEAST_FREE_SHARE: Final = 0.05
OLDEST_JAVA: Final = 17
MOST_SKEW_SECONDS: Final = 30.0
"""S3 refuses a request that is a quarter of an hour off; tokens and leases suffer before."""
_SIGNS: Final = "doctor"
_VERSION: Final = re.compile(r'version "(\d+)')


def state_folder(settings: Settings) -> str:
    """It can be written to, and other machines' signs in it can be read: they mount the same folder."""
    folder = settings.state_dir / _SIGNS
    own = folder / f"{re.sub(r'[^A-Za-z0-9.-]', '_', socket.gethostname())}.txt"
    text = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {secrets.token_hex(4)}"
    try:
        write_whole(own, text)
        if own.read_text("utf-8") != text:
            raise Failure(f"{own} has not what was written to it")
        others = sorted(path.stem for path in folder.glob("*.txt") if path != own)
    except OSError as error:
        raise Failure(f"{settings.state_dir}: {error.strerror or error}") from None
    seen = f"; also seen from {', '.join(others)}" if others else "; no other machine has looked yet"
    return f"{settings.state_dir} is writable{seen}"


def free_disk(settings: Settings) -> str:
    """There is room for a day's work."""
    folder = settings.state_dir
    while not folder.exists():
        folder = folder.parent
    use = shutil.disk_usage(folder)
    free_gib, share = use.free / 2**30, use.free / use.total
    said = f"{free_gib:.1f} GiB free ({share:.0%}) at {folder}"
    if (free_gib < LEAST_FREE_GIB and share < LEAST_FREE_SHARE) or free_gib < 1:
        raise Failure(said)
    return said


def java(settings: Settings) -> str:
    """New enough for Spark."""
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if program is None or not Path(program).exists():
        raise Failure(f"none{f' in JAVA_HOME={home}' if home else ' on the PATH'}")
    told = subprocess.run(  # noqa: S603  # the Java that Spark would run, without a shell
        [program, "-version"], capture_output=True, text=True, check=False, timeout=15
    ).stderr
    version = _VERSION.search(told)
    if version is None or int(version.group(1)) < OLDEST_JAVA:
        raise Failure(told.splitlines()[0] if told else f"{program} says nothing")
    return f"Java {version.group(1)} ({program})"


def jars(settings: Settings) -> str:
    """The jars that set-up fetched are there."""
    listed = settings.repository / "requirements" / "jars.sha256"
    if not listed.exists():
        raise NotHere("this installation names no jars")
    names = [Path(line.split()[-1]).name for line in listed.read_text("utf-8").splitlines() if line.strip()]
    missing = [name for name in names if not (settings.jars_dir / name).is_file()]
    if missing:
        raise Failure(f"{settings.jars_dir} has no {', '.join(missing)}")
    return f"{len(names)} in {settings.jars_dir}"


def spark_master(settings: Settings) -> str:
    """A cluster's master takes connections."""
    host, _, port = settings.spark_master.removeprefix("spark://").partition(",")[0].rpartition(":")
    socket.create_connection((host, int(port)), 5).close()
    return settings.spark_master


def signing_keys(settings: Settings) -> str:
    """What is signed with the one key is verified with the other."""
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_private_key,
        load_pem_public_key,
    )

    from airloop.backup.state_files import PRIVATE_KEY, PUBLIC_KEY

    private, public = settings.signing_key, settings.verification_key
    if private is None and public is None:
        private, public = settings.state_dir / PRIVATE_KEY, settings.state_dir / PUBLIC_KEY
        if not private.exists():
            return "none yet: a pair is made when the first model is registered"
    if private is None:
        assert public is not None
        load_pem_public_key(public.read_bytes())
        return f"{public}; this machine only verifies"
    if public is None:
        raise Failure("AIRLOOP_SIGNING_KEY without AIRLOOP_VERIFICATION_KEY")
    form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    own = load_pem_private_key(private.read_bytes(), password=None).public_key().public_bytes(*form)
    if own != load_pem_public_key(public.read_bytes()).public_bytes(*form):
        raise Failure(f"{public} is not the public key of {private}")
    return f"{public} is that of {private}"


def clock(settings: Settings) -> str:
    """This machine's clock beside that of a service it talks to."""
    addresses = [settings.s3_endpoint] if settings.s3_endpoint else []
    if settings.warehouse_location.startswith("s3:") and not addresses:
        addresses.append("https://s3.amazonaws.com")
    if settings.tracking_uri.startswith("http"):
        addresses.append(f"{settings.tracking_uri}/health")
    addresses.append(f"{settings.airflow_url}/api/v2/monitor/health")
    for address in addresses:
        try:
            asked = time.time()
            date = httpx.head(address, timeout=5).headers.get("date")
            answered = time.time()
        except httpx.HTTPError:
            continue
        if date:
            # Dates have no fractions: half a second on average.
            skew = (asked + answered) / 2 - parsedate_to_datetime(date).timestamp() - 0.5
            if abs(skew) > MOST_SKEW_SECONDS:
                raise Failure(f"{skew:+.0f} s beside {address}")
            return f"{skew:+.1f} s beside {address}"
    raise NotHere("no service that tells the time answers")
