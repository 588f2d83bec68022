"""Applies a use case's definitions to Feast, and writes an explicit interval to the online store.

Belongs here: `apply` and `materialise`, idempotent. Does not belong here: computing features
(`spark_jobs.features`), or "incremental" materialisation, whose start depends on what ran before.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta

from feast import FeatureStore

from airloop.dotted import load
from airloop.intervals import Interval
from airloop.jobs import run_job
from airloop.references import Materialised
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import FeatureTable, UseCase
from feature_repo.store import open_store
from spark_jobs.arguments import interval_of, job_parser
from spark_jobs.session import open_session

MOMENT = timedelta(microseconds=1)


def span_to_write(table: FeatureTable, interval: Interval) -> Interval:
    """What of `interval` the online store needs: values past their time to live at its end would not count.

    Nothing outside `interval` is read, so a day costs a day. An older value never replaces a newer one: the
    online stores see to that (`feature_repo.newest_wins_sqlite`, `feature_repo.newest_wins_redis`).
    """
    return Interval(max(interval.start, interval.end - table.time_to_live), interval.end)


def materialise(store: FeatureStore, spec: UseCase, interval: Interval, settings: Settings) -> Materialised:
    """Apply the definitions, if any, and write the latest values known at the interval's end.

    Of a use case that is scored in batches nothing is written: nobody would read it.
    """
    if spec.feature_definitions is not None:
        store.apply(load(spec.feature_definitions).definitions(spec, settings))
    tables = spec.own_feature_tables if spec.is_online else ()
    for table in tables:
        span = span_to_write(table, interval)
        store.materialize(span.start, span.end - MOMENT, feature_views=[table.name])
    return Materialised(
        feature_views=tuple(table.name for table in tables),
        start=interval.start.isoformat(),
        end=interval.end.isoformat(),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> Materialised:
        spec, interval = use_case(arguments.use_case), interval_of(arguments)
        open_session(settings, f"{spec.name} materialise {interval.key}")
        return materialise(open_store(settings), spec, interval, settings)

    return run_job(job_parser(__doc__), work, argv)


if __name__ == "__main__":
    sys.exit(main())
