"""Which run and which code write a snapshot.

Belongs here: what a writer signs its snapshots with. Does not belong here: the properties' names
(`properties`), or how a process knows its run (`airloop.airflow_run`).
"""

from __future__ import annotations

import functools

from airloop.airflow_run import run_id
from airloop.intervals import Interval
from airloop.lakehouse import properties
from airloop.settings import REPOSITORY
from airloop.training.provenance import code_commit


def signature(use_case: str, interval: Interval) -> dict[str, str]:
    """The properties that every snapshot of `use_case` over `interval` carries."""
    return {
        properties.USE_CASE: use_case,
        properties.INTERVAL: properties.interval_text(interval),
        properties.RUN_ID: run_id(),
        properties.COMMIT: _commit(),
    }


@functools.cache
def _commit() -> str:
    # The code that runs is the code beside this module, whatever folder the settings name.
    return code_commit(REPOSITORY)
