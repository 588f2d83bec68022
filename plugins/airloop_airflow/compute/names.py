"""What a task's jobs elsewhere are called, and the tags that say whose cost they are.

Belongs here: names and tags that every service accepts. Does not belong here: who already bears a name.

A name says the same for the same try of the same task, so that whoever starts it again finds it. SageMaker is
the strictest: at most 63 letters, digits and single hyphens, and a name only once in an account.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

LONGEST: Final = 63
"""Characters of a name."""
LONGEST_TAG: Final = 256
_DIGEST: Final = 12
_READABLE: Final = 40


def stem_of(environment: str, instance: Any) -> str:
    """The beginning of the names of all tries of the task `instance`, with a hyphen at its end."""
    task = [environment, instance.dag_id, instance.run_id, instance.task_id, instance.map_index]
    digest = hashlib.sha256(json.dumps(task).encode()).hexdigest()[:_DIGEST]
    readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{instance.dag_id}-{instance.task_id}").strip("-").lower()
    return f"{readable[:_READABLE].rstrip('-') or 'task'}-{digest}-"


def names_of(stem: str, try_number: int) -> Iterator[str]:
    """The names of a try: the second is for where the first is taken, by a run of the same id that was
    deleted."""
    for number in range(1, 100):
        yield f"{stem}{try_number}" if number == 1 else f"{stem}{try_number}-{number}"


def tags_of(environment: str, use_case: str | None, instance: Any) -> Mapping[str, str]:
    """The tags by which cost is allocated."""
    given = {
        "airloop:use-case": use_case or "platform",
        "airloop:dag": instance.dag_id,
        "airloop:task": instance.task_id,
        "airloop:run": instance.run_id,
        "airloop:environment": environment,
    }
    return {name: re.sub(r"[^\w .:/=+@-]", "_", value)[:LONGEST_TAG] for name, value in given.items()}
