"""Fetches the jars of the EMR image into the folder that is named: those of `scripts/fetch_jars.py`, for EMR.

Spark 4.0 in place of 4.1; Iceberg's client of AWS, which the Glue catalog and S3 need; no SQLite; no Kafka,
for streams are landed by the worker.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fetch_jars import IN_PYSPARK, PACKAGES, fetch

FOR_EMR = (
    "org.apache.iceberg:iceberg-spark-runtime-4.0_2.13:1.11.0",
    "org.apache.iceberg:iceberg-aws-bundle:1.11.0",
    next(package for package in PACKAGES if package.startswith("io.openlineage:")),
)

if __name__ == "__main__":
    fetch(FOR_EMR, IN_PYSPARK, Path(sys.argv[1]))
