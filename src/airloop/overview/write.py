"""Job: the document behind a use case's page.

    python -m airloop.overview.write --use-case NAME --at 2026-11-20T12:30

Belongs here: putting its parts together. Does not belong here: the parts.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from pydantic import ValidationError

from airloop.cost.prices import load_prices
from airloop.cost.serving_use import gateway_use, idle
from airloop.cost.used_so_far import used_so_far
from airloop.intervals import Interval, parse_instant
from airloop.jobs import run_job
from airloop.lakehouse.catalog import open_catalog
from airloop.overview.document import Overview, write_overview
from airloop.overview.published import audits_of, tables_of
from airloop.overview.spending import costs_of, prices_of_runs
from airloop.overview.trainings import candidates_of, decisions_of, silenced_of
from airloop.overview.watched import alarms_of, drift_of, quality_of, skewed_of, traffic_of
from airloop.references import Reference
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase

log = logging.getLogger(__name__)

SHOWN: Final = timedelta(days=365)


class WrittenOverview(Reference):
    """The overview as it was written."""

    file_uri: str | None = None
    alarms: tuple[str, ...] = ()
    skipped: str | None = None
    """Why none was written."""


def overview_of(settings: Settings, spec: UseCase, at: datetime) -> Overview:
    """What is known of `spec` at `at`, a year back at most."""
    catalog, prices = open_catalog(settings), load_prices(settings)
    span = Interval(at - SHOWN, at)
    used = used_so_far(settings, catalog, prices, spec.name, span)
    traffic = traffic_of(catalog, spec, span)
    # Without prices there is nothing to save, and no need to ask.
    serving_idle = idle(gateway_use(settings, at), spec.name, prices) if prices is not None else None
    return Overview(
        use_case=spec.name,
        written=at,
        alarms=alarms_of(catalog, spec, span),
        drift=drift_of(catalog, spec, span),
        traffic=traffic,
        quality=quality_of(catalog, spec, span),
        skewed=skewed_of(catalog, spec, at),
        ranked_by=spec.label.target.figures[0].words,
        candidates=candidates_of(settings, spec, at, prices_of_runs(used)),
        decisions=decisions_of(catalog, spec),
        silences=silenced_of(catalog, spec, at),
        tables=tables_of(catalog, spec),
        audits=audits_of(settings, spec),
        costs=costs_of(spec, used, traffic, prices, at, serving_idle),
    )


def _written(settings: Settings, spec: UseCase) -> datetime | None:
    """Of when the overview is that is there; None for none, and for one of another version of this code."""
    try:
        text = settings.overview_file(spec.name).read_text("utf-8")
        return Overview.model_validate_json(text).written
    except (FileNotFoundError, ValidationError):
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> WrittenOverview:
        spec, at = use_case(arguments.use_case), parse_instant(arguments.at)
        newer = _written(settings, spec)
        if newer is not None and newer > at:
            return WrittenOverview(skipped=f"there is one of {newer:%Y-%m-%d %H:%M} UTC, which is newer")
        found = overview_of(settings, spec, at)
        path = write_overview(settings, found)
        log.info("%s, %.0f KiB", path, path.stat().st_size / 1024)
        return WrittenOverview(file_uri=path.as_uri(), alarms=found.alarms)

    parser = argparse.ArgumentParser(description="Write the document behind a use case's page.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--at", required=True, help="the present moment, ISO 8601, UTC")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
