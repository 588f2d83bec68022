"""What a use case's tasks used until now: what is recorded, and what is not yet.

Belongs here: putting both together. Does not belong here: recording (`record`), which comes once an hour.
"""

from __future__ import annotations

from pyiceberg.catalog import Catalog

from airloop.cost.attempts import written_attempts
from airloop.cost.prices import PriceTable
from airloop.cost.usage_table import Used, priced, used_in
from airloop.intervals import Interval
from airloop.settings import Settings


def used_so_far(
    settings: Settings, catalog: Catalog, prices: PriceTable | None, use_case: str, span: Interval
) -> list[Used]:
    """The attempts of `use_case` that started in `span`, each once, earliest first; those that still run have
    what they used when they were last looked at."""
    # First what is written: what is recorded in between is then there twice, and not missing.
    written = [
        priced(attempt, prices)
        for _, attempt in written_attempts(settings)
        if attempt is not None and attempt.use_case == use_case and span.start <= attempt.started < span.end
    ]
    found = {used.attempt.key: used for used in written}
    found |= {used.attempt.key: used for used in used_in(catalog, span, use_case)}
    return sorted(found.values(), key=lambda used: used.attempt.started)
