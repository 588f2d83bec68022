"""Fetches the pinned jars once, through Spark's own dependency resolver, into `<state>/jars`.

The Kafka connector is the newest patch release of Spark 4.1 whose token provider is published too; it uses
only interfaces that are the same in every 4.1.x. What PySpark ships already is left out: a second copy of a
class on the driver's path is a fault that shows late.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from pyspark.sql import SparkSession

PACKAGES = (
    "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0",
    "org.apache.iceberg:iceberg-aws-bundle:1.11.0",
    "org.postgresql:postgresql:42.7.8",
    "org.xerial:sqlite-jdbc:3.50.3.0",
    "org.apache.spark:spark-sql-kafka-0-10_2.13:4.1.1",
    "io.openlineage:openlineage-spark_2.13:1.53.0",
)
IN_PYSPARK = (
    "com.google.code.findbugs:jsr305",
    "org.apache.hadoop:hadoop-client-api",
    "org.apache.hadoop:hadoop-client-runtime",
    "org.lz4:lz4-java",
    "org.scala-lang.modules:scala-parallel-collections_2.13",
    "org.slf4j:slf4j-api",
    "org.xerial.snappy:snappy-java",
)


def fetch(packages: Sequence[str], excluded: Sequence[str], target: Path) -> None:
    """Resolve `packages`, without `excluded`, aside, and make `target` hold their jars and no others.

    Each jar appears whole, and one that is there already is replaced, never absent: others may be reading.
    The caller checks the sums.
    """
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    # Spark asks for the machine's own address, which fails where the host name does not resolve.
    os.environ.setdefault("SPARK_LOCAL_HOSTNAME", "localhost")
    session = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.jars.ivy", str(aside))
        .config("spark.jars.packages", ",".join(packages))
        .config("spark.jars.excludes", ",".join(excluded))
        .getOrCreate()
    )
    session.stop()
    target.mkdir(parents=True, exist_ok=True)
    fetched = sorted((aside / "jars").glob("*.jar"))
    for jar in fetched:
        jar.replace(target / jar.name)
    for stale in {jar.name for jar in target.glob("*.jar")} - {jar.name for jar in fetched}:
        (target / stale).unlink()
    shutil.rmtree(aside)


if __name__ == "__main__":
    fetch(PACKAGES, IN_PYSPARK, Path(sys.argv[1]).resolve() / "jars")
