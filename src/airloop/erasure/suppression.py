"""The list of the erased: what a source delivers again about an erased subject must not land again.

Belongs here: keeping the list and filtering Arrow tables and texts by it. Does not belong here: erasing what
is there, or Spark (`spark_jobs.personal_data`, which calls this).

The list holds keyed digests, so it tells nobody who was erased; who has the deployment's state folder, and
with it the key, can test a guess. It is applied to values in the clear, before personal columns are hashed,
and so survives a rotation of the pseudonyms' key.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from airloop.erasure.subject import digest_of, erasure_dir, erasure_key
from airloop.settings import Settings
from airloop.use_cases.spec import Erasure, Feed

SUPPRESSED_TEXT: Final = "(suppressed: it mentions an erased subject)"
"""What quarantine shows in place of a record that mentions an erased subject."""
_RAW: Final = "raw."
_IDENTIFIER: Final = re.compile(r"[^\W_](?:[\w@.+-]*[^\W_])?")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class SuppressionList:
    """The erased subjects of a deployment, as of when it was read."""

    key: bytes = field(repr=False)
    digests: Mapping[str, frozenset[str]]
    """Digests by the column that names the subject."""
    elsewhere: Mapping[tuple[str, str], str]
    """For feeds that call the column otherwise: (feed, its column) to the usual one."""

    def columns_of(self, feed: Feed) -> set[str]:
        """The columns of `feed` that may name an erased subject."""
        return {
            column.name
            for column in feed.columns
            if column.name in self.digests or (feed.name, column.name) in self.elsewhere
        }

    def erased_in(self, feed: Feed, column: str) -> frozenset[str]:
        """The digests to keep out of `column` of `feed`."""
        usual = self.elsewhere.get((feed.name, column), column)
        return self.digests.get(usual, frozenset())


def suppress_subject(settings: Settings, erasure: Erasure, subject: str) -> str:
    """Put `subject` on the list, once; returns its digest. From now on ingestion keeps it out."""
    digest = digest_of(subject, erasure_key(settings))
    feeds = {
        name.removeprefix(_RAW): column for name, column in erasure.tables.items() if name.startswith(_RAW)
    }
    line = json.dumps({"column": erasure.subject, "digest": digest, "feeds": feeds}, sort_keys=True) + "\n"
    path = erasure_dir(settings) / "suppressed.jsonl"
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        if line not in text.splitlines(keepends=True):
            # A killed writer may have left half a line.
            file.write(line if not text or text.endswith("\n") else "\n" + line)
            file.flush()
            os.fsync(file.fileno())
    return digest


def read_list(settings: Settings) -> SuppressionList:
    """The list as it is now; empty where nothing was ever erased."""
    path = erasure_dir(settings) / "suppressed.jsonl"
    if not path.exists():
        return SuppressionList(b"", {}, {})
    digests: dict[str, set[str]] = defaultdict(set)
    elsewhere: dict[tuple[str, str], str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # half a line of a killed writer; its erasure has not begun
        digests[entry["column"]].add(entry["digest"])
        elsewhere |= dict.fromkeys(entry["feeds"].items(), entry["column"])
    frozen = {column: frozenset(found) for column, found in digests.items()}
    return SuppressionList(erasure_key(settings), frozen, elsewhere)


def without_suppressed(table: pa.Table, feed: Feed, erased: SuppressionList) -> pa.Table:
    """`table` (records of `feed`, values in the clear) without the records of erased subjects."""
    for name in sorted(erased.columns_of(feed) & set(table.column_names)):
        digests = erased.erased_in(feed, name)
        if not digests:
            continue
        distinct = table[name].unique().to_pylist()
        gone = [v for v in distinct if v is not None and digest_of(v, erased.key) in digests]
        if gone:
            named = pc.is_in(table[name], value_set=pa.array(gone, table[name].type))
            table = table.filter(pc.invert(named))
    return table


def suppressed(table: pa.Table, feed: Feed, settings: Settings) -> pa.Table:
    """`without_suppressed` with the list as it is now."""
    return without_suppressed(table, feed, read_list(settings))


def allowed_text(text: str, erased: SuppressionList) -> str:
    """`text` (a record as received), or `SUPPRESSED_TEXT` in its place when it mentions an erased subject.

    Quoted texts and words (letters and digits, joined by `_ @ . + -`) are looked up, so a subject that is
    several words and not in quotes is missed.
    """
    if not erased.digests:
        return text
    everything = frozenset().union(*erased.digests.values())
    words = {match.group() for match in _IDENTIFIER.finditer(text)}
    words |= {match.group(1) for match in _QUOTED.finditer(text)}
    return SUPPRESSED_TEXT if any(digest_of(w, erased.key) in everything for w in words) else text
