"""A Spark checkpoint as a convenience that the tables can overrule.

Belongs here: reading how far a checkpoint is, and throwing it away. Does not belong here: what Spark writes
into it, or where a stream begins without one.

Spark resumes from its checkpoint alone. That is right while the tables are at least as far; a checkpoint that
is further (a table was rolled back, or made anew) would skip messages, so it is not used.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)

Offsets = dict[str, int]
"""By place, the next offset to read."""


def committed_offsets(checkpoint: Path) -> Offsets | None:
    """What the last batch of a Kafka checkpoint read up to; None when that batch was not completed.

    A batch that was planned and not completed is as good as not planned, for the tables know what they have
    of it. To resume it would do no harm, but Spark 4.1's connector fails after it (SPARK-55271).
    """
    planned, completed = _last_batch(checkpoint / "offsets"), _last_batch(checkpoint / "commits")
    if completed is None or planned != completed:
        return None
    try:
        text = (checkpoint / "offsets" / str(completed)).read_text("utf-8")
        by_topic = json.loads(text.splitlines()[-1])
        return {
            f"{topic}/{partition}": int(offset)
            for topic, partitions in by_topic.items()
            for partition, offset in partitions.items()
        }
    except (OSError, ValueError, AttributeError, IndexError):
        return None


def _last_batch(log_folder: Path) -> int | None:
    return max((int(path.name) for path in log_folder.glob("*") if path.name.isdigit()), default=None)


def discard_unless_usable(checkpoint: Path, first: Mapping[str, int], following: Mapping[str, int]) -> bool:
    """Keep `checkpoint` if resuming from it skips nothing, else remove it; returns whether it was kept.

    By place, `first` is what the broker still holds and `following` where the tables want to be continued. A
    checkpoint that lacks some of the places, or has others, belongs to other topics and is removed too.
    """
    if not checkpoint.exists():
        return False
    found = committed_offsets(checkpoint)
    if (
        found is not None
        and found.keys() == following.keys()
        and all(first[place] <= found[place] <= following[place] for place in found)
    ):
        return True
    log.info("the checkpoint %s does not agree with the tables, which count; it is made anew", checkpoint)
    aside = checkpoint.with_name(f".{checkpoint.name}.discarded")
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
    return False
