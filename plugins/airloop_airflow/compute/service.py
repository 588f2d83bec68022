"""What a service that runs jobs must be able to do, so that `elsewhere` need not know which it is.

Belongs here: the interface. Does not belong here: any service.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.triggers.base import BaseTrigger

    from airloop.job_folder import JobFolder

CONNECTION: Final = "aws_default"
"""The Airflow connection of all calls; without it, boto3 finds credentials by itself."""
POLL_SECONDS = 30
"""Between two looks at a job."""


class Live(NamedTuple):
    """A job that waits or runs."""

    name: str
    job_id: str


class Asked(NamedTuple):
    """A job that is to be started."""

    name: str
    tags: Mapping[str, str]
    folder: JobFolder
    several_hosts: bool
    """Whether it is one that several hosts can share."""
    checkpoints_uri: str
    """The same for every try of a task."""


class Used(NamedTuple):
    """What a job is charged for."""

    began: datetime
    billed_seconds: float
    cpu_seconds: float = 0.0
    """Of processors, as billed; 0 where machines are."""
    memory_gib_seconds: float = 0.0


class Service(ABC):
    """A service of AWS that runs jobs."""

    title: str
    """For people."""
    needs_checkpoint_copies: bool = False
    """Whether trainings run there, and their checkpoints are lost with the machine unless the job copies
    them."""

    @abstractmethod
    def live(self, stem: str) -> list[Live]:
        """The jobs whose names begin with `stem` and that wait or run, the newest first."""

    def has_had(self, name: str) -> bool:
        """Whether the service refuses `name` because a job that is over bore it."""
        return False

    @abstractmethod
    def operator(self, task_id: str, asked: Asked) -> BaseOperator:
        """The provider's operator that starts the job, deferrable."""

    @abstractmethod
    def job_id(self, operator: Any) -> str | None:
        """The id of the job that `operator` started, None before it has."""

    @abstractmethod
    def trigger(self, job_id: str) -> BaseTrigger:
        """Waits for the job to end, and stops it when a person stops the task meanwhile."""

    @abstractmethod
    def event(self, job_id: str) -> Mapping[str, Any]:
        """What the trigger says of a job that ended well."""

    @abstractmethod
    def stop(self, job_id: str) -> None:
        """Have the job end; nothing happens to one that has."""

    @abstractmethod
    def used(self, job_id: str) -> Used | None:
        """What the job is charged for; None for one that never began, or is not known any more."""
