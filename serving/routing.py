"""Routing: which versions beside the champion get traffic, and which share of it.

Belongs here: the document that rollouts and experiments write and gateways read, its file, and the draw that
gives a client its version. Does not belong here: deciding what it says (`serving.stage`), or asking a version
(`serving.gateway`).

One file for each model, beside the model server's config. Gateways look at it for every request, so that a
change counts from the next one on; where it is missing or unreadable the champion gets everything. The
champion is the label on the model server, not in here: there is one place that says it.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airloop.airflow_run import BY_HAND
from airloop.errors import RolloutError
from airloop.jobs import write_whole
from airloop.settings import Settings

log = logging.getLogger(__name__)

_KEPT: Final = 20
"""Runs whose giving up is remembered: more than are ever tried again at once."""
WATCH: Final = "watch"
SHADOW: Final = "shadow"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Split(_Part):
    """A share of the clients that another version answers."""

    version: int
    share: float = Field(gt=0, lt=1)
    salt: str
    """Another salt draws the clients anew."""
    experiment: str | None = None
    """The experiment's name; none for a canary."""


class Stage(_Part):
    """What a rollout is doing."""

    run: str
    """The Airflow run, which owns the rollout."""
    version: int
    name: str
    """`shadow`, `canary_<percent>` or `watch`."""
    since: datetime
    rollout_since: datetime
    """When the rollout's first stage began."""
    looked_at: datetime
    """When its run last looked: one that does not look any more has no claim."""


class Experiment(_Part):
    """Two versions side by side, until a time that was fixed before."""

    name: str
    run: str
    """The Airflow run, which owns it."""
    version: int
    """B; A is the champion."""
    champion: int
    since: datetime
    until: datetime


class GivenUp(_Part):
    """What a run took traffic from, for when it is tried again: the rest of it may not have been done."""

    candidate: int | None = None
    """A version beside the champion."""
    champion: int | None = None
    """One that was the champion."""
    target: int
    """The champion from then on."""
    reason: str = ""


class Routing(_Part):
    """What versions other than the champion get; nothing, by default."""

    shadow: int | None = None
    """A version that gets a copy of what the champion answers."""
    split: Split | None = None
    rollout: Stage | None = None
    experiment: Experiment | None = None
    """What the split is for, if it is not a canary's."""
    changed_by: str = ""
    """The Airflow run that wrote this."""
    given_up: dict[str, GivenUp] = {}
    """By Airflow run, the newest last."""

    def gave_up(self, run: str) -> GivenUp | None:
        """What `run` took traffic from before; nothing for jobs by hand, which have no name of their own."""
        return self.given_up.get(run) if run != BY_HAND else None


def routing_file(models_dir: Path, model: str) -> Path:
    """Where the routing of `model` is."""
    return models_dir / f"{model}.routing.json"


def read_routing(settings: Settings, model: str) -> Routing:
    """The routing of `model`; raises `RolloutError` when the file is not a rollout's work."""
    path = routing_file(settings.models_dir, model)
    try:
        return Routing.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Routing()
    except (ValidationError, OSError) as error:
        raise RolloutError(
            expected=f"{path} to be a routing document",
            found=str(error),
            next_step="remove the file: the champion has all traffic without it, and already has now",
        ) from None


def write_routing(settings: Settings, model: str, routing: Routing) -> None:
    """Replace the routing of `model`, whole; it holds from the next request on."""
    write_whole(routing_file(settings.models_dir, model), routing.model_dump_json())


@contextmanager
def changing_routing(settings: Settings, model: str) -> Iterator[Routing]:
    """Hold the routing of `model`: one process at a time reads and then writes it. Held for moments."""
    settings.models_dir.mkdir(parents=True, exist_ok=True)
    with (settings.models_dir / f".{model}.routing.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield read_routing(settings, model)


def withdraw(
    settings: Settings, model: str, version: int, *, run: str, giving_up: GivenUp | None = None
) -> None:
    """Take all traffic from `version` but what it has as the champion, from the next request on.

    A rollout or an experiment of it is over then; what other versions get stays. `giving_up` is kept with it.
    """
    with changing_routing(settings, model) as routing:
        ended = without(routing, version, run=run, giving_up=giving_up)
        if ended != routing:
            write_routing(settings, model, ended)


def without(routing: Routing, version: int, *, run: str, giving_up: GivenUp | None = None) -> Routing:
    """`routing` as `withdraw` leaves it."""
    ended: dict[str, object] = {}
    if routing.shadow == version or (routing.rollout and routing.rollout.version == version):
        ended |= {"shadow": None}
    if routing.split and routing.split.version == version:
        ended |= {"split": None, "experiment": None}
    if routing.rollout and routing.rollout.version == version:
        ended |= {"rollout": None}
    if giving_up is not None and run != BY_HAND:
        earlier = [(name, kept) for name, kept in routing.given_up.items() if name != run]
        ended |= {"given_up": dict([*earlier, (run, giving_up)][-_KEPT:])}
    return routing.model_copy(update={**ended, "changed_by": run}) if ended else routing


def forget_giving_up(settings: Settings, model: str, run: str) -> GivenUp | None:
    """Have `run` begin anew; what it had given up."""
    with changing_routing(settings, model) as routing:
        if run in routing.given_up:
            kept = {name: given_up for name, given_up in routing.given_up.items() if name != run}
            write_routing(settings, model, routing.model_copy(update={"given_up": kept}))
        return routing.given_up.get(run)


def draw(salt: str, unit: str) -> float:
    """Where `unit` falls between 0 and 1: the same place every time, and evenly spread over units.

    Of a SHA-256 over both, so that experiments with salts of their own are independent of one another.
    """
    digest = hashlib.sha256(f"{salt}\0{unit}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


class LiveRouting:
    """The routing of one model as a gateway follows it; threads may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._routing = Routing()

    def current(self) -> Routing:
        """What holds now. Never raises: what cannot be read sends everything to the champion."""
        try:
            found = self._path.stat()
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        except OSError:
            seen = None
        if seen != self._seen:
            with self._lock:
                self._routing, self._seen = self._read(), seen
        return self._routing

    def _read(self) -> Routing:
        try:
            return Routing.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return Routing()
        except (ValidationError, OSError) as error:
            log.error("the champion has all traffic, for %s cannot be read: %s", self._path, error)
            return Routing()
