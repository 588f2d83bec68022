"""Whether everything that the settings name answers, and what to do about what does not.

    python -m airloop.doctor [--json] [--timeout SECONDS]

Belongs here: the command line and its table. Does not belong here: any check.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from airloop.doctor.checks import checks_of
from airloop.doctor.examination import TIMEOUT_SECONDS, Finding, examine, masked
from airloop.errors import SettingsError
from airloop.settings import load_settings
from airloop.use_cases.catalogue import all_use_cases

_STYLES = {"ok": "green", "failed": "bold red", "skipped": "dim"}


_SLOW_TO_IMPORT = ("pyiceberg.catalog.sql", "sqlalchemy", "grpc", "redis", "boto3", "cryptography.fernet")


def _import_first() -> None:
    """What takes seconds to import, before any check's time runs. What is not there, its checks say."""
    for name in _SLOW_TO_IMPORT:
        with suppress(ImportError):
            import_module(name)


def findings(timeout_seconds: float) -> list[Finding]:
    """What came of every check; of the settings alone, where they are unusable."""
    try:
        settings = load_settings()
        checks = list(checks_of(settings, all_use_cases()))
    except SettingsError as error:
        said = masked(f"expected {error.expected}; found {error.found}")
        return [Finding(name="settings", outcome="failed", said=said, next_step=error.next_step, seconds=0.0)]
    _import_first()
    valid = Finding(name="settings", outcome="ok", said="valid", seconds=0.0)
    return [valid, *examine(settings, checks, timeout_seconds)]


def _table(found: Sequence[Finding]) -> Table:
    table = Table("check", "outcome", "found", "seconds")
    for finding in found:
        text = escape(finding.said) + (
            f"\n[bold]Next:[/bold] {escape(finding.next_step)}" if finding.next_step else ""
        )
        style = _STYLES[finding.outcome]
        table.add_row(finding.name, f"[{style}]{finding.outcome}[/]", text, f"{finding.seconds:.2f}")
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 1 when a check failed."""
    parser = argparse.ArgumentParser(description="Ask everything that the settings name whether it answers.")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_SECONDS, help="seconds, for all together")
    arguments = parser.parse_args(argv)
    found = findings(arguments.timeout)
    failed = [finding.name for finding in found if finding.outcome == "failed"]
    if arguments.json:
        print(json.dumps({"failed": failed, "checks": [finding.model_dump() for finding in found]}))
    else:
        console = Console()
        console.print(_table(found))
        console.print(f"{len(failed)} failed: {', '.join(failed)}" if failed else "everything answers")
    return 1 if failed else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # A check that hangs, such as in looking up a name, holds nothing up.
    os._exit(status)
