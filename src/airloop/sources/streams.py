"""Which stream a command means, and which feed each of its topics carries.

Belongs here: looking streams up in a spec. Does not belong here: brokers.
"""

from __future__ import annotations

from airloop.errors import SpecError
from airloop.use_cases.spec import Feed, Stream, UseCase


def stream_of(spec: UseCase, name: str) -> Stream:
    """The stream called `name`; raises `SpecError` listing those there are."""
    for stream in spec.streams:
        if stream.name == name:
            return stream
    raise SpecError(
        expected=f"one of the streams {', '.join(stream.name for stream in spec.streams) or '(none)'}",
        found=repr(name),
        next_step=f"correct --stream, or add it to the spec of {spec.name}",
    )


def feeds_by_topic(spec: UseCase, stream: Stream) -> dict[str, Feed]:
    """The feed of each topic; raises `SpecError` when two feeds share one: nothing tells them apart."""
    if len(set(stream.topics.values())) < len(stream.topics):
        raise SpecError(
            expected=f"a topic of its own for each feed of stream {stream.name!r}",
            found=", ".join(f"{feed} on {topic}" for feed, topic in stream.topics.items()),
            next_step="give each feed its topic in the use case's spec",
        )
    return {topic: spec.feed(name) for name, topic in stream.topics.items()}
