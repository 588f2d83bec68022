"""One attempt of a task as it is written down while it runs: a small file each.

Belongs here: what such a file says, and where it lies. Does not belong here: measuring (`meter`), or the
table that the files go to (`usage_table`).

A file, and no row of a table: many tasks run at once, each for itself, and one that is killed has left what
it used until then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from airloop.settings import Settings
from airloop.whole_files import write_whole

WRITTEN_EVERY_SECONDS: Final = 10.0
"""How much of a killed attempt's use may be missing."""
SILENT_FOR: Final = timedelta(minutes=5)
"""An attempt that did not end and wrote nothing for so long was killed."""


class Attempt(BaseModel):
    """What one process tree of one try of a task used; a task that waits in between has several."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    use_case: str | None
    """None for the platform's own tasks."""
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    module: str
    started: datetime
    measured: datetime
    """When it was last looked at; its end, once it ended."""
    ended: bool = False
    cpu_seconds: float = 0.0
    """Of processors, all processes together."""
    peak_vcpus: float = 0.0
    """Most processors in use at once, over some ten seconds."""
    peak_memory_gib: float = 0.0
    """Most resident memory at once, all processes together; pages that they share count for each."""
    memory_gib_seconds: float = 0.0
    accelerators: int = 0
    """That the machine has."""
    accelerator_seconds: float = 0.0
    """Busy seconds, all accelerators together."""
    peak_accelerator_memory_gib: float = 0.0

    @property
    def key(self) -> str:
        """Tells it from every other."""
        task = self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"
        return f"{self.dag_id}/{self.run_id}/{task}/{self.try_number}/{self.started.isoformat()}"

    @property
    def wall_seconds(self) -> float:
        """From its start until it was last looked at."""
        return (self.measured - self.started).total_seconds()

    def is_over(self, now: datetime) -> bool:
        """Whether it ended, or was killed."""
        return self.ended or now - self.measured > SILENT_FOR


def write_attempt(settings: Settings, attempt: Attempt) -> None:
    """Write `attempt` down, in the place of what was written of it before."""
    name = hashlib.sha256(attempt.key.encode()).hexdigest()[:32]
    write_whole(settings.usage_dir / f"{name}.json", attempt.model_dump_json())


def written_attempts(settings: Settings) -> Iterator[tuple[Path, Attempt | None]]:
    """Every file with what it says; None for one that is no attempt."""
    for path in sorted(settings.usage_dir.glob("*.json")):
        try:
            yield path, Attempt.model_validate_json(path.read_bytes())
        except ValidationError:
            yield path, None
        except FileNotFoundError:
            continue
