"""A job that does nothing of use: how it ends, and what it writes, its flags say."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from pathlib import Path

from airloop.connections import find_connection
from airloop.errors import AuditError
from airloop.jobs import run_job
from airloop.references import Reference
from airloop.settings import Settings


class Said(Reference):
    """What the job found."""

    data_docs_uri: str
    environment: dict[str, str]
    secret: str
    """Its SHA-256."""
    prices: str
    catalog: str
    argument: str | None
    tf_config: str
    skipped: str = ""


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser()
    for flag in ("--use-case", "--mode", "--argument"):
        parser.add_argument(flag)

    def work(arguments: argparse.Namespace, settings: Settings) -> Said:
        page = settings.reports_dir / "any" / "page.html"
        page.parent.mkdir(parents=True)
        page.write_text("all well")
        (settings.state_dir / "private.txt").write_text("not for others")
        checkpoint = settings.checkpoints_dir / "any" / "checkpoint.npz"
        if arguments.mode == "interrupted" and not checkpoint.exists():
            checkpoint.parent.mkdir(parents=True)
            checkpoint.write_text("half of it")
            checkpoint.with_name(".checkpoint.npz.1").write_text("not whole")
            raise RuntimeError("the machine is taken away")
        if arguments.mode == "permanent":
            raise AuditError(expected="a file", found="none", next_step="bring it", report_uri=page.as_uri())
        if arguments.mode == "temporary":
            raise RuntimeError("no luck")
        connection = find_connection("departures")
        return Said(
            data_docs_uri=page.as_uri(),
            environment={name: value for name, value in os.environ.items() if name.startswith("AIRFLOW_CTX")},
            secret=hashlib.sha256(connection.secret.encode()).hexdigest() if connection else "",
            prices=Path(settings.prices).read_text() if settings.prices else "",
            catalog=settings.catalog_url,
            argument=checkpoint.read_text() if checkpoint.exists() else arguments.argument,
            tf_config=os.environ.get("TF_CONFIG", ""),
            skipped="nothing to do" if arguments.mode == "nothing" else "",
        )

    return run_job(parser, work)


if __name__ == "__main__":
    sys.exit(main())
