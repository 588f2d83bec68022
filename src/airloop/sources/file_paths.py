"""Where an interval lies at a source: a path or URL with pieces of time in it becomes a list of names.

Belongs here: the meaning of templates and globs, as pure text. Does not belong here: any file system or API.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from string import Formatter
from typing import Final

from airloop.errors import SpecError
from airloop.intervals import ONE_DAY, Interval

DATES: Final = {"start": "%Y-%m-%d", "end": "%Y-%m-%d", "day": "%Y-%m-%d", "hour": "%H"}
"""How pieces of time are written in a path unless it says otherwise (`{day:%Y/%m/%d}`)."""

_INSTANT: Final = "%Y-%m-%dT%H:%M:%SZ"
INSTANTS: Final = {**DATES, "start": _INSTANT, "end": _INSTANT}
"""How pieces of time are written in a URL unless it says otherwise."""

_WILD: Final = re.compile(r"[*?\[]")


def expand(
    template: str,
    feed: str,
    interval: Interval,
    forms: Mapping[str, str] = DATES,
    escape: Callable[[str], str] = str,
) -> tuple[str, ...]:
    """The paths that `template` names for `interval`, each once, in order of time.

    `{feed}` is the feed's name, `{start}` and `{end}` the interval's bounds; with `{day}` there is a path for
    each UTC day of the interval, with `{hour}` (in which `{day}` may stand too) one for each hour. `escape`
    makes each piece fit for its place.
    Raises `SpecError` for any other piece.
    """
    pieces = _pieces(template)
    names = {name for _, name, _ in pieces if name}
    unknown = names - {"feed", *forms}
    if unknown:
        raise SpecError(
            expected="no other pieces than {feed}, {start}, {end}, {day} and {hour}",
            found=f"{', '.join(sorted(unknown))} in {template!r}",
            next_step="correct the source's path or url in the use case's spec",
        )
    step = timedelta(hours=1) if "hour" in names else ONE_DAY if "day" in names else None
    moments = _moments(interval, step) if step else iter([interval.start])
    paths = []
    for moment in moments:
        times = {"start": interval.start, "end": interval.end, "day": moment, "hour": moment}
        path = ""
        for literal, name, form in pieces:
            path += literal
            if name:
                path += escape(feed if name == "feed" else times[name].strftime(form or forms[name]))
        paths.append(path)
    return tuple(dict.fromkeys(paths))


def is_glob(path: str) -> bool:
    """Whether `path` has wild cards (`*`, `?`, `[…]`) and so may name several files."""
    return _WILD.search(path) is not None


def fixed_folder(glob: str) -> str:
    """The folder of `glob` above its first wild card."""
    before = glob[: match.start()] if (match := _WILD.search(glob)) else glob
    return before.rpartition("/")[0]


def matches(path: str, glob: str) -> bool:
    """Whether `path` is one that `glob` names; a wild card stays within its folder."""
    names, patterns = path.split("/"), glob.split("/")
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


def _pieces(template: str) -> list[tuple[str, str | None, str]]:
    """Literal text, then a piece's name and form, as often as they come."""
    try:
        return [(literal, name, form or "") for literal, name, form, _ in Formatter().parse(template)]
    except ValueError as error:
        raise SpecError(
            expected="braces that are closed",
            found=f"{template!r}: {error}",
            next_step="correct the source's path or url in the use case's spec",
        ) from None


def _moments(interval: Interval, step: timedelta) -> Iterator[datetime]:
    moment = interval.start.replace(minute=0, second=0, microsecond=0)
    if step == ONE_DAY:
        moment = moment.replace(hour=0)
    while moment < interval.end:
        yield moment
        moment += step
