"""A paged JSON API as a source.

Belongs here: what the adapter makes of an API's records. Does not belong here: requests (`http_client`),
pages (`http_paging`), types (`parsing`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field as OptionField

from airloop.connections import Connection
from airloop.intervals import Interval
from airloop.settings import Settings
from airloop.sources.column_types import type_column
from airloop.sources.contract import Delivery
from airloop.sources.file_paths import INSTANTS, expand
from airloop.sources.http_client import Patience, absolute, open_api
from airloop.sources.http_paging import PagedOptions, records_of
from airloop.sources.options import options_for
from airloop.sources.parsing import (
    PIECE_ROWS,
    Problems,
    columns_of_documents,
    content_hashes,
    deliver,
    event_times,
    text_hash,
    texts_of_documents,
    type_rows,
)
from airloop.use_cases.spec import Feed


class HttpOptions(PagedOptions):
    """Options of the `http` adapter."""

    url: str
    """Where the first page is; `{start}` and `{end}` are the interval's bounds in ISO 8601."""
    updated_at: str | None = None
    """Dotted path of the time of a record's last change: its source time, and the start of its offset."""
    timeout_seconds: float = OptionField(30, gt=0)
    attempts: int = OptionField(5, ge=1)
    longest_wait_seconds: float = OptionField(60, ge=0)


class HttpSource:
    """Reads an API's records. A record's offset is its time of change, if known, and a hash of its content.

    Neither says on which page it was, nor when it was asked for: the same records are the same again.
    """

    def __init__(
        self, settings: Settings, options: Mapping[str, str], connection: Connection | None = None
    ) -> None:
        self._options, self._connection = options, connection

    def read(self, feed: Feed, interval: Interval) -> Iterator[Delivery]:
        """See `SourceAdapter.read`."""
        options = options_for(HttpOptions, feed, self._options)
        patience = Patience(options.timeout_seconds, options.attempts, options.longest_wait_seconds)
        urls = expand(options.url, feed.name, interval, INSTANTS, lambda text: quote(text, safe=""))
        with open_api(self._connection, patience) as api:
            for url in urls:
                records = records_of(api, absolute(url, self._connection), options)
                while documents := list(islice(records, PIECE_ROWS)):
                    yield _delivery(feed, interval, options, documents)


def _delivery(feed: Feed, interval: Interval, options: HttpOptions, documents: list[Any]) -> Delivery:
    columns, found = columns_of_documents(feed, options, documents)
    problems: Problems = defaultdict(list, found)
    updated = None
    if options.updated_at is not None:
        texts = texts_of_documents(documents, options.updated_at, "updated_at", "timestamp", problems)
        updated, refused = type_column(texts, "timestamp", options)
        for row in refused:
            problems[row].append(f"updated_at: {texts[row].as_py()!r} is no instant")
    rows = type_rows(feed, columns, options, problems)

    def payload(row: int) -> str:
        return json.dumps(documents[row])

    hashes = content_hashes(feed, rows).to_pylist()
    for row in rows.problems:  # what could not be typed is in no hash of typed values
        hashes[row] = text_hash(json.dumps(documents[row], sort_keys=True))
    offsets, times = pa.array(hashes, pa.string()), event_times(feed, rows)
    if updated is not None:
        stated = pc.fill_null(pc.cast(updated, pa.string()), "")
        offsets = pc.binary_join_element_wise(stated, offsets, "|")
        times = pc.coalesce(updated, times)
    return deliver(feed, interval, rows, offsets=offsets, times=times, payload=payload)
