"""Fetches the pinned jars once, through Spark's own dependency resolver, into `<state>/jars`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from pyspark.sql import SparkSession

PACKAGES = (
    "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0",
    "org.xerial:sqlite-jdbc:3.50.3.0",
)


def main(state: Path) -> None:
    """Resolve `PACKAGES` aside and move them to `state/jars`; their sums are checked by the caller."""
    aside = state / "ivy"
    shutil.rmtree(aside, ignore_errors=True)
    # Spark asks for the machine's own address, which fails where the host name does not resolve.
    os.environ.setdefault("SPARK_LOCAL_HOSTNAME", "localhost")
    session = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.jars.ivy", str(aside))
        .config("spark.jars.packages", ",".join(PACKAGES))
        .getOrCreate()
    )
    session.stop()
    shutil.rmtree(state / "jars", ignore_errors=True)
    (aside / "jars").rename(state / "jars")
    shutil.rmtree(aside)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
