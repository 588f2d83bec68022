"""Prints what a deployment costs in a month, as the table of docs/how-to/run-on-aws.md: `python
monthly_cost.py`.

Belongs here: multiplying a stated load (`load.toml`) with list prices (`prices.toml`). Does not belong
here: what a run did cost; Airloop's own record says that (docs/how-to/know-what-it-costs.md), and AWS's bill.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    part: str
    amount: str
    usd: float


def lines(load: Mapping[str, Any], prices: Mapping[str, float]) -> Iterator[Line]:
    """Each part of the bill; raises `KeyError` where the load or the prices lack something."""
    hours, always, month = load["hours"], load["always"], load["month"]
    vcpus, gib = always["fargate_vcpus"], always["fargate_gib"]
    yield Line(
        "services (Fargate)",
        f"{vcpus:g} vCPUs, {gib:g} GiB, day and night",
        hours * (vcpus * prices["fargate_vcpu_hour"] + gib * prices["fargate_gib_hour"]),
    )
    yield Line(
        "load balancers",
        f"{always['balancers']}, {always['balancer_units']:g} capacity units",
        hours
        * (
            always["balancers"] * prices["balancer_hour"]
            + always["balancer_units"] * prices["balancer_unit_hour"]
        ),
    )
    yield Line(
        "NAT gateway, addresses, traffic between zones",
        f"{always['nat_gateways']} gateway, {month['nat_gib']} GiB through it, "
        f"{always['public_addresses']} addresses, {month['zone_transfer_gib']} GiB between zones",
        hours
        * (
            always["nat_gateways"] * prices["nat_gateway_hour"]
            + always["public_addresses"] * prices["public_address_hour"]
        )
        + month["nat_gib"] * prices["nat_gateway_gib"]
        # Both ends pay.
        + 2 * month["zone_transfer_gib"] * prices["zone_transfer_gib"],
    )
    yield Line(
        "PostgreSQL (RDS)",
        f"db.t4g.medium in one zone, {always['database_gib']} GiB",
        hours * prices["database_hour"] + always["database_gib"] * prices["database_gib_month"],
    )
    yield Line(
        "online features (ElastiCache)",
        f"{always['cache_nodes']} of cache.t4g.small",
        hours * always["cache_nodes"] * prices["cache_node_hour"],
    )
    yield Line(
        "state folder (EFS)",
        f"{month['files_gib']} GiB, {month['files_transferred_gib']} GiB read",
        month["files_gib"] * prices["files_gib_month"]
        + month["files_transferred_gib"] * prices["files_transferred_gib"],
    )
    objects = month["warehouse_gib"] + month["artifacts_gib"]
    yield Line(
        "tables and artifacts (S3)",
        f"{objects} GiB, {month['put_requests'] / 1e6:g} million writes, "
        f"{month['get_requests'] / 1e6:g} million reads",
        objects * prices["s3_gib_month"]
        + month["put_requests"] / 1000 * prices["s3_thousand_puts"]
        + month["get_requests"] / 1000 * prices["s3_thousand_gets"],
    )
    spark_hours = month["spark_runs"] * month["spark_minutes"] / 60
    yield Line(
        "Spark (EMR Serverless)",
        f"{month['spark_runs']} runs of {month['spark_minutes']:g} minutes with "
        f"{month['spark_vcpus']} vCPUs, {month['spark_gib']} GiB",
        spark_hours
        * (month["spark_vcpus"] * prices["spark_vcpu_hour"] + month["spark_gib"] * prices["spark_gib_hour"]),
    )
    yield Line(
        "training (SageMaker)",
        f"{month['trainings']} of {month['training_hours']:g} hours on one ml.m7i.xlarge",
        month["trainings"] * month["training_hours"] * prices["training_hour"],
    )
    yield Line(
        "training on GPUs (Batch)",
        f"{month['gpu_host_hours']:g} hours of a g6.xlarge" if month["gpu_host_hours"] else "none",
        month["gpu_host_hours"] * prices["gpu_host_hour"],
    )
    yield Line(
        "stream (Kinesis)",
        f"{always['stream_shards']} shard, kept three days, {month['stream_puts'] / 1e6:g} million records",
        hours * always["stream_shards"] * (prices["stream_shard_hour"] + prices["stream_shard_hour_longer"])
        + month["stream_puts"] / 1e6 * prices["stream_million_puts"],
    )
    yield Line(
        "logs, metrics, alarms (CloudWatch)",
        f"{month['logs_gib']} GiB, {always['metrics']} metrics, {always['alarms']} alarms",
        month["logs_gib"] * prices["logs_gib"]
        + always["metrics"] * prices["metric_month"]
        + always["alarms"] * prices["alarm_month"],
    )
    yield Line(
        "key, secrets, images, names",
        f"1 key, {always['secrets']} secrets, {always['repositories_gib']} GiB of images, 1 zone",
        prices["key_month"]
        + month["key_requests"] / 10_000 * prices["key_ten_thousand_requests"]
        + always["secrets"] * prices["secret_month"]
        + always["repositories_gib"] * prices["registry_gib_month"]
        + prices["zone_month"],
    )


def table(load: Mapping[str, Any], prices: Mapping[str, float]) -> str:
    """The lines and their sum in Markdown; dollars, rounded to whole ones, the sum before rounding."""
    found = list(lines(load, prices))
    rows = [f"| {line.part} | {line.amount} | {line.usd:,.0f} |" for line in found]
    total = sum(line.usd for line in found)
    return "\n".join(
        ["| part | a month's use | USD |", "|---|---|--:|", *rows, f"| **all** | | **{total:,.0f}** |"]
    )


def read(load_file: Path, prices_file: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """The load, and each price by its name."""
    prices = tomllib.loads(prices_file.read_text("utf-8"))["prices"]
    return tomllib.loads(load_file.read_text("utf-8")), {name: item["usd"] for name, item in prices.items()}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--load", type=Path, default=HERE / "load.toml", help="TOML file; by default the stated load"
    )
    parser.add_argument(
        "--prices", type=Path, default=HERE / "prices.toml", help="TOML file with list prices"
    )
    flags = parser.parse_args()
    print(table(*read(flags.load, flags.prices)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
