"""Routing: which versions beside the champion get traffic, and which share of it.

Belongs here: writing and following the document (`airloop.routing_document`), and the draw that gives a
client its version. Does not belong here: deciding what it says (`serving.stage`), or asking a version
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
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from airloop.airflow_run import BY_HAND
from airloop.errors import RolloutError
from airloop.routing_document import GivenUp, Routing, routing_file
from airloop.settings import Settings
from airloop.whole_files import write_whole

log = logging.getLogger(__name__)

_KEPT: Final = 20
"""Runs whose giving up is remembered: more than are ever tried again at once."""
WATCH: Final = "watch"
SHADOW: Final = "shadow"


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
