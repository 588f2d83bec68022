"""What was sent and where it stands at the broker, compared with what the tables hold.

Belongs here: the one comparison that all kill tests end with. Does not belong here: making either side.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from airloop.lakehouse.catalog import open_catalog
from airloop.settings import Settings
from tests.streams.traffic import FEEDS


@dataclass
class Ledger:
    """The offsets of good and malformed messages, by feed, as the broker gave them."""

    good: dict[str, list[str]] = field(default_factory=lambda: {feed: [] for feed in FEEDS})
    malformed: dict[str, list[str]] = field(default_factory=lambda: {feed: [] for feed in FEEDS})

    def add(self, feed: str, offset: str, *, good: bool) -> None:
        """Note a message that the broker has taken."""
        (self.good if good else self.malformed)[feed].append(offset)

    @property
    def messages(self) -> int:
        """All messages."""
        return sum(len(offsets) for side in (self.good, self.malformed) for offsets in side.values())

    def compare(self, settings: Settings, stream: str) -> dict[str, int]:
        """How many messages are `lost` and `duplicated`, and how many are `misplaced`: good ones in
        quarantine, malformed ones in a feed's table, or anything that was never sent."""
        catalog = open_catalog(settings)
        held = {feed: Counter(_offsets(catalog, f"raw.{feed}", stream, feed)) for feed in FEEDS}
        quarantined = {feed: Counter(_offsets(catalog, "raw.quarantine", stream, feed)) for feed in FEEDS}
        lost = duplicated = misplaced = 0
        for sent, tables in ((self.good, held), (self.malformed, quarantined)):
            for feed in FEEDS:
                there, expected = tables[feed], set(sent[feed])
                lost += len(expected - there.keys())
                misplaced += len(there.keys() - expected)
                duplicated += sum(count - 1 for count in there.values())
        return {"messages": self.messages, "lost": lost, "duplicated": duplicated, "misplaced": misplaced}


def _offsets(catalog: object, table: str, stream: str, feed: str) -> list[str]:
    columns = ("_source", "_source_offset", *(("feed",) if table == "raw.quarantine" else ()))
    rows = catalog.load_table(table).scan(selected_fields=columns).to_arrow().to_pylist()  # type: ignore[attr-defined]  # pyiceberg's Catalog
    return [r["_source_offset"] for r in rows if r["_source"] == stream and r.get("feed", feed) == feed]
