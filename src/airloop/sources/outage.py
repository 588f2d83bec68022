"""A source that is not to be had just now, as opposed to one that is wrong.

Belongs here: the one error that a retry may cure. Does not belong here: anything that a person must act on
(`airloop.errors.SourceError`).
"""

from __future__ import annotations


class SourceUnavailable(Exception):
    """A source cannot be reached, or it changes while it is read; the same read may succeed later.

    It is no `AirloopError`, so that the task that runs the job tries again.
    """
