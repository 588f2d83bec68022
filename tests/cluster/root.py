"""The root folder that containers have in place of an image: this machine's programs, mounted read-only.

Belongs here: what our Dockerfile, and the images that are not ours, put where. Does not belong here: running.

A registry of images cannot be reached where this runs, and building ours takes half an hour; what is in them
is here: the locked environment, and PostgreSQL, Redis, nginx, Prometheus, Kafka and Java from packages. The
embedded server takes TensorFlow Serving's place. Versions may be older than those in docker-compose.yaml.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyspark

REPOSITORY = Path(__file__).resolve().parents[2]
WORK = "/airloop"
USER = "10001:10001"
_STAND_INS = Path(__file__).with_name("stand_ins")
_EMPTY = (
    *(
        "airloop",
        "alertmanager",
        "config",
        "data",
        "dev",
        "docker-entrypoint-initdb.d",
        "metadata",
        "opt/kafka/bin",
    ),
    *(
        "opt/kafka/libs",
        "proc",
        "prometheus",
        "root",
        "run/secrets",
        "state",
        "sys",
        "tmp",
        "usr",
        "var/lib/kafka",
    ),
    *(
        "var/lib/postgresql/data",
        "var/log/nginx",
        "var/lib/nginx",
        "venv",
        "etc/ssl",
        "etc/alternatives",
        "etc/java-17-openjdk",
    ),
)
_ENTRYPOINTS = {
    "prom/prometheus": ["prometheus"],
    "prom/alertmanager": ["prometheus-alertmanager"],
    "prom/statsd-exporter": [f"{WORK}/.airloop/bin/statsd_exporter"],
}
"""Of images that are not ours and that have one."""
_ENV = re.compile(r"^ENV ((?:[^\\\n]|\\\n)*)", re.MULTILINE)


def make(repository: Path) -> Path:
    """The folder, with what is not mounted: mount points, links, and a list of users."""
    root = repository / ".airloop" / "cluster" / "root"
    if (root / "etc" / "passwd").exists():
        return root
    for name in (*_EMPTY, str(Path(sys.base_prefix)).lstrip("/"), str(repository).lstrip("/")):
        (root / name).mkdir(parents=True, exist_ok=True)
    for link in ("bin", "lib", "lib64", "sbin"):
        (root / link).symlink_to(f"usr/{link}")
    (root / "tmp").chmod(0o1777)  # what is mounted there takes it
    (root / "var" / "run").symlink_to("/run")
    for name in ("ld.so.cache", "nsswitch.conf", "mime.types", "services", "protocols"):
        if Path("/etc", name).exists():
            shutil.copy(Path("/etc", name), root / "etc" / name)
    users = {"root": 0, "postgres": 999, "kafka": 1000, "nginx": 101, "airloop": 10001, "nobody": 65534}
    lines = [f"{name}:x:{number}:{number}:{name}:/tmp:/bin/sh\n" for name, number in users.items()]
    (root / "etc" / "group").write_text("".join(f"{n}:x:{i}:\n" for n, i in users.items()), encoding="utf-8")
    (root / "etc" / "passwd").write_text("".join(lines), encoding="utf-8")
    return root


def mounts() -> Iterator[tuple[Path, str]]:
    """What is mounted from this machine, and where."""
    yield Path("/usr"), "/usr"
    yield Path("/etc/ssl"), "/etc/ssl"
    yield Path("/etc/alternatives"), "/etc/alternatives"
    if Path("/etc/java-17-openjdk").exists():
        yield Path("/etc/java-17-openjdk"), "/etc/java-17-openjdk"
    if not sys.base_prefix.startswith("/usr"):
        yield Path(sys.base_prefix), sys.base_prefix
    # Under its own path too: the environment's scripts name it.
    yield REPOSITORY, str(REPOSITORY)
    yield REPOSITORY, WORK
    yield REPOSITORY / ".airloop" / "venv", "/venv"
    for file in _STAND_INS.glob("kafka-*.sh"):
        yield file, f"/opt/kafka/bin/{file.name}"
    (scala,) = (Path(pyspark.__file__).parent / "jars").glob("scala-library-2.13*.jar")
    for jar in (*(REPOSITORY / ".airloop" / "kafka").glob("*.jar"), scala):
        yield jar, f"/opt/kafka/libs/{jar.name}"


def entrypoint(service: Mapping[str, Any]) -> list[str]:
    """What the service's image would start its command with."""
    if "build" in service:
        return [f"{WORK}/serving/images/entrypoint.sh"]
    return _ENTRYPOINTS.get(service["image"].partition(":")[0], [])


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    """The variables that the service's image sets: those of our Dockerfile, or where programs are."""
    postgres = max(Path("/usr/lib/postgresql").glob("*/bin"))
    system = (
        f"{WORK}/tests/cluster/stand_ins:{WORK}/.airloop/bin:{postgres}:/usr/local/bin:/usr/sbin:/usr/bin"
    )
    if "build" not in service:
        return {"PATH": system, "PGDATA": "/var/lib/postgresql/data"}
    text = (REPOSITORY / "serving" / "images" / "Dockerfile").read_text("utf-8")
    found = _ENV.search(text)
    assert found is not None
    given = dict(pair.split("=", 1) for pair in found[1].replace("\\\n", " ").split())
    return {**given, "PATH": given["PATH"].replace("$PATH", system)}
