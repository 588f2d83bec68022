"""The flags that the judging jobs share.

Belongs here: flags and their meaning. Does not belong here: what a job does with them.
"""

from __future__ import annotations

import argparse
from datetime import datetime

from airloop.intervals import Interval, make_interval, parse_instant


def watching_parser(description: str) -> argparse.ArgumentParser:
    """A parser for a job over a span of one version's traffic."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--start", required=True, help="start of the span, ISO 8601, UTC")
    parser.add_argument("--end", required=True, help="end of the span, ISO 8601, UTC")
    parser.add_argument("--version", type=int, required=True, help="the version that is watched")
    parser.add_argument("--run-id", required=True, help="the MLflow run that made it")
    parser.add_argument("--at", help="the present moment, ISO 8601, UTC; by default the end")
    return parser


def span_of(arguments: argparse.Namespace) -> Interval:
    """The interval of `--start` and `--end`; raises `IntervalError` where it is empty."""
    return make_interval(parse_instant(arguments.start), parse_instant(arguments.end))


def moment_of(arguments: argparse.Namespace) -> datetime | None:
    """The moment of `--at`, if it was given; raises `IntervalError` for what is none."""
    return parse_instant(arguments.at) if arguments.at else None
