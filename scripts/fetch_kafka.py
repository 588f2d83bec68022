"""Fetches the Kafka broker that the stream tests run against into `<state>/kafka`; no deployment needs it.

The broker is its Maven artifacts and plain `java`: one process in KRaft mode, no ZooKeeper, no installer.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fetch_jars import fetch

PACKAGES = ("org.apache.kafka:kafka_2.13:4.1.1", "org.slf4j:slf4j-simple:1.7.36")

if __name__ == "__main__":
    fetch(PACKAGES, (), Path(sys.argv[1]) / "kafka")
