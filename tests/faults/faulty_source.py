"""A source that breaks: the nycflights replay, with one named fault in what it delivers.

Belongs here: delivering damaged records the way a broken source would. Does not belong here: the faults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from airloop.connections import Connection
from airloop.intervals import Interval
from airloop.settings import Settings
from airloop.sources.contract import Delivery
from airloop.sources.nycflights import NycFlightsReplay
from airloop.use_cases.spec import Feed
from tests.faults.catalogue import FAULTS


class FaultySource:
    """Delivers what the replay does, damaged as the fault called `options["fault"]` says."""

    def __init__(self, settings: Settings, options: Mapping[str, str], connection: Connection | None) -> None:
        self._replay = NycFlightsReplay(settings, {}, connection)
        self._name = options["fault"]
        self._fault = FAULTS.get(self._name)

    def read(self, feed: Feed, interval: Interval) -> Iterator[Delivery]:
        """See `SourceAdapter.read`; the whole interval is one piece."""
        pieces = [delivery.records for delivery in self._replay.read(feed, interval)]
        whole = pa.concat_tables(pieces)
        if self._fault is None:
            yield Delivery(whole)
            return
        damaged = self._fault.damage(whole.to_pandas())
        # What a source delivers again with other content stands at another offset: that is its contract.
        damaged = damaged.assign(_source_offset=damaged["_source_offset"] + f"-{self._name}")
        schema = pa.schema([field for field in whole.schema if field.name in damaged])
        added = [name for name in damaged if name not in schema.names]
        for name in added:
            schema = schema.append(pa.field(name, pa.Array.from_pandas(damaged[name]).type))
        if self._fault.retyped:
            schema = pa.schema(
                [pa.field(f.name, pa.string()) if f.name in self._fault.retyped else f for f in schema]
            )
        yield Delivery(pa.Table.from_pandas(damaged, schema=schema, preserve_index=False))
