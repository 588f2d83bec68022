"""Traffic with everything that a live stream brings: duplicates, late and out-of-order records, poison.

Belongs here: which messages are sent, and what the raw tables must hold for them. Does not belong here: the
brokers, or the process that reads them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

FEEDS = ("flights", "movements", "weather")
BEGIN = datetime(2013, 3, 4, tzinfo=UTC)
POISON = (
    b"\xff\xfe not UTF-8",
    b"",
    b"not JSON",
    b'{"origin": "JFK"',
    b'{"origin": "JFK"} and more',
    b"[1, 2]",
    b"null",
    b"{}",
    b'{"flight_id": 7, "origin": ["JFK"], "reported_at": "yesterday", "occurred_at": "yesterday"}',
)


class Sent(NamedTuple):
    """One message."""

    feed: str
    key: str
    value: bytes
    good: bool


def traffic(seed: int) -> Iterator[Sent]:
    """Messages without end, the same for the same `seed`."""
    random_ = random.Random(seed)
    last: dict[str, Sent] = {}
    moment = BEGIN
    number = 0
    while True:
        feed = random_.choice(FEEDS)
        chance = random_.random()
        if chance < 0.08:
            yield Sent(feed, f"poison {number}", random_.choice(POISON), good=False)
        elif chance < 0.18 and feed in last:
            yield last[feed]
        else:
            moment += timedelta(seconds=random_.randint(0, 90))
            at = moment
            if chance > 0.9:
                at -= timedelta(days=random_.randint(20, 90))  # late, into months before
            elif chance > 0.75:
                at -= timedelta(minutes=random_.randint(1, 300))  # out of order
            last[feed] = good_message(feed, number, at)
            yield last[feed]
        number += 1


def good_message(feed: str, number: int, at: datetime) -> Sent:
    """A record of `feed` whose event time is `at`."""
    text = at.isoformat().replace("+00:00", "Z")
    flight = {"flight_id": f"F{number}", "carrier": "UA", "flight_number": number, "origin": "JFK"}
    fields: dict[str, object] = {**flight, "dest": "LAX", "tail_number": f"N{number % 50}"}
    if feed == "weather":
        fields = {"origin": "JFK", "reported_at": text, "temperature_f": 30.5, "sensor": "not declared"}
    elif feed == "movements":
        fields |= {"kind": "landing", "occurred_at": text, "delay_minutes": number % 90}
    else:
        local = at.replace(tzinfo=None).isoformat()
        fields |= {"published_at": text, "scheduled_departure": text, "scheduled_arrival": text}
        fields |= {"scheduled_departure_local": local, "scheduled_arrival_local": local}
        fields |= {"distance_miles": 2475.0}
    return Sent(feed, str(fields.get("flight_id", "JFK")), json.dumps(fields).encode(), good=True)
