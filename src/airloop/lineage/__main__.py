"""Where a model's data came from, and what was made of published data: one command, both directions.

    python -m airloop.lineage --use-case flight_delay                          back from the live model
    python -m airloop.lineage --use-case flight_delay --model 3                back from version 3
    python -m airloop.lineage --use-case flight_delay --table clean.flights --day 2026-11-20      forward
    python -m airloop.lineage --use-case flight_delay --source nycflights --day 2026-11-20        forward

Belongs here: the command line and how a chain is printed. Does not belong here: finding it (`chain`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence

from airloop.errors import EXIT_PERMANENT, AirloopError
from airloop.intervals import day_interval, parse_instant
from airloop.lineage.chain import Lineage, Link
from airloop.settings import load_settings
from airloop.use_cases.catalogue import use_case

MOST_LINKS = 8
"""Links of one thing that are shown as text; `--json` has all."""


def lines_of(link: Link, depth: int = 0) -> Iterator[str]:
    """The chain as indented lines."""
    facts = ", ".join(f"{name} {value}" for name, value in link.facts.items())
    yield f"{'  ' * depth}{link.kind} {link.name}" + (f" ({facts})" if facts else "")
    for linked in link.links[:MOST_LINKS]:
        yield from lines_of(linked, depth + 1)
    if len(link.links) > MOST_LINKS:
        yield f"{'  ' * (depth + 1)}and {len(link.links) - MOST_LINKS} more (--json lists them)"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Back from a model to its sources (--model), or forward from data to models "
        "(--table, --snapshot, --day, --source)."
    )
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--model", type=int, help="registered version; without anything, the live one")
    parser.add_argument("--table", help="a clean table, such as clean.flights")
    parser.add_argument("--snapshot", type=int, help="one published snapshot of it")
    parser.add_argument("--day", help="publications about this day, ISO 8601, UTC")
    parser.add_argument("--source", help="publications with records of this source or stream")
    parser.add_argument("--json", action="store_true", help="all of it, as JSON")
    arguments = parser.parse_args(argv)
    forward = any((arguments.table, arguments.snapshot, arguments.day, arguments.source))
    if forward and arguments.model:
        parser.error("--model goes back, the other flags forward: give one or the other")
    try:
        lineage = Lineage(load_settings(), use_case(arguments.use_case))
        if forward:
            days = day_interval(parse_instant(arguments.day).date()) if arguments.day else None
            chains = lineage.of_data(
                arguments.table, snapshot_id=arguments.snapshot, days=days, source=arguments.source
            )
        else:
            chains = (lineage.of_model(arguments.model),)
    except AirloopError as error:
        print(error, file=sys.stderr)
        return EXIT_PERMANENT
    if arguments.json:
        print(json.dumps([chain.as_document() for chain in chains], indent=2))
    else:
        print("\n".join(line for chain in chains for line in lines_of(chain)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
