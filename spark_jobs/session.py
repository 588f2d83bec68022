"""The one place that makes a Spark session: Iceberg catalog, time zone, sizes.

Belongs here: how a job reaches Spark. Does not belong here: what a job does with it. Jobs use only the
DataFrame API that Spark Connect has, so that this module alone decides which Spark they run on.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from pyspark.sql import SparkSession

from airloop.errors import SettingsError
from airloop.lineage.spark import JAVA_OPTIONS, listener_options
from airloop.settings import Settings
from airloop.traces import span
from airloop.work_folders import process_work_folder

SUBMITTED: Final = "submitted"
"""The setting `spark_master` of a job that spark-submit started: EMR Serverless says where and how large it
is."""
_OF_THE_SUBMISSION: Final = frozenset(
    {
        "spark.jars",
        "spark.driver.extraJavaOptions",
        "spark.driver.memory",
        "spark.executor.memory",
        "spark.driver.bindAddress",
        "spark.driver.host",
        "spark.local.dir",
        "spark.ui.enabled",
        # Of two local cores.
        "spark.sql.shuffle.partitions",
    }
)


def open_session(settings: Settings, name: str) -> SparkSession:
    """A session called `name` whose default catalog is the deployment's Iceberg catalog, in UTC.

    Raises `SettingsError` when set-up did not fetch the pinned jars.
    """
    jars = [jar for jar in sorted(settings.jars_dir.glob("*.jar")) if _is_needed(settings, jar.name)]
    if not jars:
        raise SettingsError(
            expected=f"Iceberg's jars in {settings.jars_dir}",
            found="none",
            next_step="run make setup",
        )
    if settings.warehouse_location.startswith("file:"):
        settings.warehouse.mkdir(parents=True, exist_ok=True)
    # What Spark itself leaves when it is killed: jars, shuffled rows.
    work = process_work_folder(settings, "spark")
    if settings.spark_master.startswith("local"):
        # Spark asks for the machine's own address, which fails where the host name does not resolve.
        os.environ.setdefault("SPARK_LOCAL_HOSTNAME", "localhost")
    # Executors run Python functions with this environment's interpreter, not the machine's python3.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    catalog = f"spark.sql.catalog.{settings.catalog_name}"
    listener = listener_options(settings, jars)
    java_options = f"-Djava.io.tmpdir={work} -XX:-UsePerfData"
    # Iceberg reads it in any case; OpenLineage's listener would take "uri" for a Hive metastore's.
    uri = f"{catalog}.URI" if listener else f"{catalog}.uri"
    # Two local cores need few partitions: each costs a task, and 200 of them cost more than the work.
    scheme = "local:" if settings.spark_jars_everywhere else ""
    options = {
        "spark.jars": ",".join(f"{scheme}{jar}" for jar in jars),
        "spark.driver.memory": f"{settings.spark_driver_memory_mib}m",
        # Native libraries are unpacked under the state folder, and no statistics file is left in /tmp.
        "spark.driver.extraJavaOptions": f"{java_options} {JAVA_OPTIONS}" if listener else java_options,
        "spark.executor.memory": f"{settings.spark_executor_memory_mib}m",
        "spark.driver.bindAddress": settings.spark_driver_host,
        "spark.driver.host": settings.spark_driver_host,
        "spark.local.dir": str(work),
        "spark.log.level": "WARN",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.autoBroadcastJoinThreshold": str(64 * 1024 * 1024),
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.defaultCatalog": settings.catalog_name,
        catalog: "org.apache.iceberg.spark.SparkCatalog",
        **_catalog_options(settings, catalog, uri),
        f"{catalog}.warehouse": settings.warehouse_location,
        f"{catalog}.cache-enabled": "false",
        **listener,
        **settings.spark_conf,
    }
    builder = SparkSession.builder.appName(name)
    if settings.spark_master == SUBMITTED:
        # A master, sizes and places of its own would take the job off the cluster that it was submitted to.
        options = {key: value for key, value in options.items() if key not in _OF_THE_SUBMISSION}
    else:
        builder = builder.master(settings.spark_master)
    for key, value in options.items():
        builder = builder.config(key, value)
    # By itself, for it is a share of a job's time that no work is done in.
    with span("spark session"):
        return builder.getOrCreate()


def _is_needed(settings: Settings, jar: str) -> bool:
    """Whether this deployment uses the jar: each costs every executor a copy."""
    if "iceberg-aws-bundle" in jar:
        return settings.warehouse_location.startswith("s3:") or settings.catalog_url == "glue"
    return "org.postgresql" not in jar or settings.catalog_url.startswith("postgresql:")


def _catalog_options(settings: Settings, catalog: str, uri: str) -> dict[str, str]:
    """The catalog's kind and address, and how its files are reached where they are on S3."""
    url = settings.catalog_url
    if url == "glue":
        options = {f"{catalog}.type": "glue"}
    else:
        options = {f"{catalog}.type": "jdbc", f"{catalog}.jdbc.schema-version": "V1"}
        if url.startswith("sqlite:"):
            options[uri] = f"jdbc:sqlite:{url.removeprefix('sqlite:///')}?busy_timeout=60000"
        else:
            login, _, place = url.removeprefix("postgresql://").partition("@")
            options[uri] = f"jdbc:postgresql://{place}"
            # The password comes from the file that PGPASSFILE names, as for every other client.
            options[f"{catalog}.jdbc.user"] = login
    if settings.warehouse_location.startswith("s3:"):
        options[f"{catalog}.io-impl"] = "org.apache.iceberg.aws.s3.S3FileIO"
        if settings.s3_endpoint is not None:
            options[f"{catalog}.s3.endpoint"] = settings.s3_endpoint
            options[f"{catalog}.s3.path-style-access"] = "true"
        if settings.aws_region is not None:
            options[f"{catalog}.client.region"] = settings.aws_region
        if settings.kms_key is not None:
            options[f"{catalog}.s3.sse.type"] = "kms"
            options[f"{catalog}.s3.sse.key"] = settings.kms_key
    return options
