"""The flags that the Spark jobs share.

Belongs here: flags and their meaning. Does not belong here: what a job does with them.
"""

from __future__ import annotations

import argparse

from airloop.intervals import Interval, make_interval, parse_instant, require_whole_days


def job_parser(description: str | None, *, interval: bool = True) -> argparse.ArgumentParser:
    """A parser with `--use-case` and, for jobs that are keyed by an interval, `--start` and `--end`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--use-case", required=True, help="name of the use case")
    if interval:
        parser.add_argument("--start", required=True, help="first day of the interval, ISO 8601, UTC")
        parser.add_argument("--end", required=True, help="day after the last one, ISO 8601, UTC")
    return parser


def interval_of(arguments: argparse.Namespace, *, whole_days: bool = True) -> Interval:
    """The interval of `--start` and `--end`.

    Raises `IntervalError` where it is empty, or not of the `whole_days` that a job replaces at once.
    """
    interval = make_interval(parse_instant(arguments.start), parse_instant(arguments.end))
    return require_whole_days(interval) if whole_days else interval
