"""`make new-use-case NAME=churn`: the three files of a use case and its test, to begin with.

Belongs here: the command line. Does not belong here: what is written (`write`), what a CSV has (`columns`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airloop.errors import AirloopError
from airloop.scaffold.columns import read_table
from airloop.scaffold.write import require_free, write_sample, write_use_case
from airloop.settings import REPOSITORY


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit status 1, with what to do, where nothing was written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="of the use case, such as churn")
    parser.add_argument("--csv", type=Path, help="events, a row each; by default a sample is made up")
    parser.add_argument("--key", help="the column that says whom or what a row is about")
    parser.add_argument("--time", help="the column that says when it happened")
    parser.add_argument("--repository", type=Path, default=REPOSITORY, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    name, repository = arguments.name, arguments.repository
    sample = None
    try:
        require_free(name, repository)
        if arguments.csv is None:
            # Fresh, so that what is online is not older than its time to live.
            sample = write_sample(name, datetime.now(UTC).date() - timedelta(days=1), repository)
        table = read_table(sample or arguments.csv, key=arguments.key, time=arguments.time)
        written = write_use_case(name, table, repository)
    except AirloopError as error:
        if sample is not None:
            sample.unlink()
        print(f"new-use-case: {error}", file=sys.stderr)
        return 1
    if sample is not None:
        written.append(sample.relative_to(repository))
    as_of = table.last_day + timedelta(days=1)
    print(
        f"{table.rows:,} events of {table.first_day} to {table.last_day}: {table.time.found_as} says when, "
        f"{table.key.found_as} of whom. Written:"
    )
    for path in written:
        print(f"  {path}")
    print(
        "Next:\n"
        f"  make try-use-case NAME={name} AS_OF={as_of}   # what it makes of the events, in seconds\n"
        f"  make run USE_CASE={name} AS_OF={as_of}   # the whole loop, to a served model"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
