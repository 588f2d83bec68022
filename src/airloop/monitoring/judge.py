"""Job: the windows that end in a span, judged by what was counted, and kept.

    python -m airloop.monitoring.judge --use-case NAME --version 3 --run-id ... --start ... --end ...

Belongs here: from counts in their table to findings in theirs, and what a person is told of the last window.
Does not belong here: the verdict on a window (`windows`), or who is told.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from airloop.intervals import ONE_HOUR, Interval, whole_hours_past
from airloop.jobs import run_job
from airloop.lakehouse.catalog import open_catalog
from airloop.monitoring.arguments import moment_of, span_of, watching_parser
from airloop.monitoring.counts import hours_of
from airloop.monitoring.findings import replace_findings, window_before
from airloop.monitoring.profile import Profile, kept_profile
from airloop.monitoring.silences import LOST_TRAFFIC, Silence, silence_of, silences_of
from airloop.monitoring.windows import Window, comparable, judged, needed
from airloop.references import JudgedWindows
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase

log = logging.getLogger(__name__)

MOST_LINES: Final = 10
"""More features than a message in the middle of the night is read for."""


def judge_span(
    settings: Settings,
    spec: UseCase,
    profile: Profile,
    version: int,
    span: Interval,
    at: datetime | None = None,
) -> JudgedWindows:
    """Judge each window that ends at an hour of `span` after its start; what was found there is replaced.

    Silences count as of `at`, by default the end of the span.
    """
    catalog = open_catalog(settings)
    ends = [hour.end for hour in span.pieces(ONE_HOUR)]
    hours = hours_of(catalog, spec, profile, needed(spec.monitoring, span))
    found = list(judged(profile, hours, spec.monitoring, ends))
    replace_findings(catalog, spec, version, profile.run_id, span, found)
    every = {one.cells.feature for one in (*profile.features, profile.prediction)}
    not_compared = tuple(sorted(every - {one.cells.feature for one in comparable(profile)}))
    if not found:
        return JudgedWindows(version=version, windows=0, not_compared=not_compared)
    last = found[-1]
    earlier = found[-2::-1]
    # What this run writes, at this or an earlier try, lies after the start of its span.
    before = earlier[0] if earlier else window_before(catalog, spec, span.start)
    judged_before = next((one for one in earlier if one.features), None) or window_before(
        catalog, spec, span.start, judged=True
    )
    silences = silences_of(catalog, spec)
    # A silence counts as of when a window is judged, not as of when it ended.
    delay = min(max(at - last.end, timedelta(0)), ONE_HOUR) if at is not None else timedelta(0)
    now = silences.at(last.end + delay)
    # What was silenced before is news as soon as it no longer is.
    had_lost = before is not None and before.lost_traffic
    knew_lost = had_lost and before is not None and LOST_TRAFFIC not in silences.at(before.end + delay)
    was = judged_before.alarmed if judged_before is not None else ()
    told = _heard(was, silences.at(judged_before.end + delay)) if judged_before is not None else ()
    heard = _heard(last.alarmed, now)
    lost = last.lost_traffic and LOST_TRAFFIC not in now
    # A window that is too quiet to be judged says nothing, and neither does it say that drift is over.
    over = set(was) - set(last.alarmed) if last.features else set()
    lines = tuple(lines_of(last))
    for line in lines:
        log.info("%s", line)
    return JudgedWindows(
        version=version,
        windows=len(found),
        last_end=last.end.isoformat(),
        requests=last.requests,
        failed=last.failed,
        requests_before=last.requests_before,
        alarmed=last.alarmed,
        heard=heard,
        began=tuple(name for name in heard if name not in told),
        cleared=tuple(sorted(over)),
        lost_traffic=last.lost_traffic,
        lost_traffic_began=lost and not knew_lost,
        lost_traffic_cleared=had_lost and not last.lost_traffic,
        silenced=tuple(f"{name}: {one.said}" for name, one in sorted(now.items())),
        not_compared=not_compared,
        lines=lines,
        distances={name: one.found.comparison.distance for name, one in last.features.items()},
    )


def _heard(alarmed: Sequence[str], silences: Mapping[str, Silence]) -> tuple[str, ...]:
    return tuple(name for name in alarmed if silence_of(silences, name) is None)


def lines_of(window: Window) -> Iterator[str]:
    """What `window` showed, in words: the traffic, then the features that drifted, the farthest first."""
    before = "not counted" if window.requests_before is None else f"{window.requests_before:,}"
    yield (
        f"until {window.end:%Y-%m-%d %H:%M} UTC: {window.requests:,} answers (a week before: {before}), "
        f"{window.failed:,} failed attempts"
    )
    if not window.features:
        yield "too few to be judged"
        return
    drifted = [
        (name, one) for name, one in window.features.items() if one.found.drifted or name in window.alarmed
    ]
    drifted.sort(key=lambda item: (item[0] not in window.alarmed, -item[1].found.comparison.distance))
    for name, one in drifted[:MOST_LINES]:
        text = f"{name}: distance {one.found.comparison.distance:.2f}, q {one.found.adjusted_p_value:.2g}"
        if one.before is not None:
            text += f", {'also' if one.before.drifted else 'not'} from a week before"
        if abs(one.missing_share - one.usual_missing_share) >= 0.01:
            text += f", missing {one.missing_share:.1%} (usually {one.usual_missing_share:.1%})"
        yield text + ("" if name in window.alarmed else ", in this window alone")
    if len(drifted) > MOST_LINES:
        yield f"and {len(drifted) - MOST_LINES} more"
    if not drifted:
        yield "nothing drifted"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> JudgedWindows:
        spec = use_case(arguments.use_case)
        span = whole_hours_past(span_of(arguments))
        profile = kept_profile(settings, spec.name, arguments.run_id)
        return judge_span(settings, spec, profile, arguments.version, span, moment_of(arguments))

    parser = watching_parser("Judge the windows that end in a span.")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
