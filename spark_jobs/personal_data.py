"""Personal data in streams: the hashing, dropping and suppressing of batches, over Spark data frames.

Belongs here: carrying Arrow batches through `airloop.pseudonyms` and `airloop.erasure.suppression`, so that
both ways of landing agree value for value. Does not belong here: the hash, or the list of the erased.

The key travels inside the pickled function, which plans, logs and errors do not show; it is no literal in an
expression. Both functions read the key or the list when they are called: call them once per micro-batch, so
that a long-running stream learns of an erasure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.types import StringType, StructField, StructType

from airloop.erasure.suppression import read_list, without_suppressed
from airloop.pseudonyms import find_key
from airloop.pseudonyms import protect as protect_table
from airloop.settings import Settings
from airloop.use_cases.spec import Feed


def protect(frame: DataFrame, feed: Feed, settings: Settings) -> DataFrame:
    """`frame` with the personal columns of `feed` hashed or dropped, as `airloop.pseudonyms.protect` does it.

    A frame without personal columns is returned as it is. Raises `SettingsError` when the key is missing.
    """
    personal = {column.name: column.personal for column in feed.columns if column.personal}
    if not personal.keys() & set(frame.columns):
        return frame
    key = find_key([feed])
    schema = StructType(
        [
            StructField(field.name, StringType()) if personal.get(field.name) == "hash" else field
            for field in frame.schema
            if personal.get(field.name) != "drop"
        ]
    )
    return _mapped(frame, schema, lambda table: protect_table(table, feed, key))


def suppress(frame: DataFrame, feed: Feed, settings: Settings) -> DataFrame:
    """`frame` without the records of erased subjects; to be called before `protect`, on values in the clear.

    A frame that cannot have such records is returned as it is.
    """
    erased = read_list(settings)
    if not erased.columns_of(feed) & set(frame.columns):
        return frame
    return _mapped(frame, frame.schema, lambda table: without_suppressed(table, feed, erased))


def _mapped(frame: DataFrame, schema: StructType, change: Callable[[pa.Table], pa.Table]) -> DataFrame:
    def batches(received: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in received:
            yield from change(pa.Table.from_batches([batch])).to_batches()

    return frame.mapInArrow(batches, schema)
