"""Publishes a use case's batch source as a live stream: its records in the order of their event times.

Belongs here: merging the feeds, and the pace. Does not belong here: message formats (`messages`) or brokers
(`publishers`).

With the replay of 2013 this is an airport: `python -m airloop.sources.publish_replay --use-case flight_delay
--stream airport_kafka --start 2013-03-04 --end 2013-03-05 --speed 60` publishes an hour a minute. Publishing
an interval twice does no harm: the records have the same keys, and cleaning keeps one of each.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from airloop.connections import require_connection
from airloop.errors import SpecError
from airloop.intervals import Interval, make_interval, parse_instant
from airloop.jobs import run_job
from airloop.references import StreamPublished
from airloop.settings import Settings
from airloop.sources.catalogue import adapter_class
from airloop.sources.messages import Message, messages_of
from airloop.sources.publishers import Publisher, open_publisher
from airloop.sources.streams import stream_of
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import Feed, Source, Stream, UseCase

PIECE = timedelta(hours=6)
"""Span that is read and merged at once, so that memory does not grow with the interval."""
FLUSH_EVERY_SECONDS = 1.0


def merged(spec: UseCase, feeds: Sequence[Feed], interval: Interval, settings: Settings) -> Iterator[Message]:
    """The messages of `feeds` in `interval`, by event time; equal times in the order of `feeds`."""
    adapters = {}
    for feed in feeds:
        source = _source_of(spec, feed)
        connection = require_connection(source.connection) if source.connection else None
        adapters[feed.name] = adapter_class(source.adapter)(settings, source.options, connection)
    start = interval.start
    while start < interval.end:
        piece = Interval(start, min(start + PIECE, interval.end))
        parts = []
        for feed in feeds:
            found = [m for d in adapters[feed.name].read(feed, piece) for m in messages_of(feed, d.records)]
            parts.append(sorted(found, key=_event_time))
        yield from heapq.merge(*parts, key=_event_time)
        start = piece.end


def publish(
    messages: Iterable[Message],
    publisher: Publisher,
    speed: float,
    *,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, int]:
    """Send `messages`, event time passing `speed` times as fast as the clock (0: as fast as can be).

    Returns how many were sent, by feed. The broker has them all when it returns.
    """
    sent: dict[str, int] = {}
    began = flushed = monotonic()
    first: datetime | None = None
    for message in messages:
        first = first or message.event_time
        if speed:
            due = began + (message.event_time - first).total_seconds() / speed
            if due > monotonic():
                publisher.flush()
                flushed = monotonic()
                sleep(max(0.0, due - flushed))
        publisher.send(message)
        sent[message.feed] = sent.get(message.feed, 0) + 1
        if monotonic() - flushed > FLUSH_EVERY_SECONDS:
            publisher.flush()
            flushed = monotonic()
    publisher.flush()
    return sent


def feeds_to_publish(spec: UseCase, stream: Stream, names: Sequence[str]) -> list[Feed]:
    """The feeds of `stream`, or those of `names`; raises `SpecError` for one that it does not have."""
    unknown = [name for name in names if name not in stream.topics]
    if unknown:
        raise SpecError(
            expected=f"feeds of stream {stream.name}: {', '.join(stream.topics)}",
            found=", ".join(unknown),
            next_step="correct --feeds",
        )
    return [spec.feed(name) for name in stream.topics if not names or name in names]


def _source_of(spec: UseCase, feed: Feed) -> Source:
    return next(source for source in spec.sources if feed in source.feeds)


def _event_time(message: Message) -> datetime:
    return message.event_time


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--stream", required=True, help="name of the stream in its spec")
    parser.add_argument("--start", required=True, help="first instant, ISO 8601, UTC")
    parser.add_argument("--end", required=True, help="instant after the last, ISO 8601, UTC")
    parser.add_argument("--speed", type=float, default=1.0, help="times real time; 0: as fast as possible")
    parser.add_argument("--feeds", nargs="*", default=[], help="only these feeds of the stream")

    def work(arguments: argparse.Namespace, settings: Settings) -> StreamPublished:
        spec = use_case(arguments.use_case)
        stream = stream_of(spec, arguments.stream)
        feeds = feeds_to_publish(spec, stream, arguments.feeds)
        interval = make_interval(parse_instant(arguments.start), parse_instant(arguments.end))
        publisher = open_publisher(stream, require_connection(stream.connection))
        sent = publish(merged(spec, feeds, interval, settings), publisher, arguments.speed)
        return StreamPublished(stream=stream.name, messages=sent)

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
