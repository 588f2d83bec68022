"""The life of every model version: which are aspired, loading, available, unloading or ended.

Belongs here: the serving state, its changes, and the lookup of the version that answers a request. Does not
belong here: which versions are wanted (`versions`), the order of changes (`transitions`), the label rule
(`labels`), what a loaded version does (`servable`), or any protocol.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving.model_server.config import ModelConfig
from serving.model_server.errors import Code, ServingError
from serving.model_server.labels import LabelMap, assign_labels
from serving.model_server.model_choice import ModelChoice
from serving.model_server.servable import Servable
from serving.model_server.transitions import Load, Standing, State, Unload, next_step
from serving.model_server.versions import aspired, version_folders

_log = logging.getLogger(__name__)

LoadServable = Callable[[str, int, Path], Servable]


@dataclass(frozen=True)
class LoadRetries:
    """How often a load that failed is tried again, and how long to wait in between."""

    attempts: int = 0
    wait_seconds: float = 60.0


@dataclass(frozen=True)
class VersionStatus:
    """A version as `GetModelStatus` reports it; `error` says why a load failed."""

    version: int
    state: State
    error: ServingError | None


class _Record:
    """One version's standing. Guarded by the manager's `_state` lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = State.START
        self.aspired = True
        self.error: ServingError | None = None
        self.servable: Servable | None = None
        self.in_flight = 0


class ModelManager:
    """Serves the configured models and changes what is served without losing a request.

    Two locks: `_transition` is held for the whole of a reload or a poll, so that changes come one at a time;
    `_state` only while the tables are read or written, so that requests never wait for a load.
    """

    def __init__(
        self,
        load: LoadServable,
        *,
        allow_labels_for_unavailable: bool = False,
        retries: LoadRetries | None = None,
    ) -> None:
        self._load_servable = load
        self._allow_labels_for_unavailable = allow_labels_for_unavailable
        self._retries = retries or LoadRetries()
        self._transition = threading.Lock()
        self._state = threading.Lock()
        self._closing = threading.Event()
        self._models: dict[str, ModelConfig] = {}
        self._labels: LabelMap = {}
        self._records: dict[str, dict[int, _Record]] = {}

    def reload(self, models: Sequence[ModelConfig]) -> None:
        """Serve exactly `models`; returns when every newly aspired version is AVAILABLE or has failed.

        Raises ServingError: FAILED_PRECONDITION when a label may not be assigned (nothing has changed then);
        UNKNOWN when a model that was not configured before has no version that became available (the
        configuration has taken effect, and polling goes on for that model).
        """
        with self._transition:
            labels = assign_labels(
                models,
                self._labels,
                self._is_available,
                allow_unused_for_unavailable=self._allow_labels_for_unavailable,
            )
            added = [model for model in models if model.name not in self._models]
            removed = set(self._models) - {model.name for model in models}
            with self._state:
                self._labels = labels
                self._models = {model.name: model for model in models}
            for name in sorted(removed):
                self._aspire(name, {})
            problems = self._follow_file_system(models)
            self._check_available(added, problems)

    def poll(self) -> None:
        """Look for version folders that came or went, and serve accordingly.

        A base path that cannot be read leaves its model as it is. Raises ServingError (UNKNOWN) naming each
        of those, once every other model has been looked at.
        """
        with self._transition:
            problems = self._follow_file_system(tuple(self._models.values()))
        if problems:
            raise ServingError(Code.UNKNOWN, "; ".join(problems.values()))

    @contextmanager
    def lease(self, choice: ModelChoice) -> Iterator[Servable]:
        """The version that `choice` asks for, kept loaded until the block ends.

        Raises ServingError: INVALID_ARGUMENT for an empty name or an unknown label, NOT_FOUND for a model or
        a version that is not available.
        """
        with self._state:
            record, servable = self._find(choice)
            record.in_flight += 1
        try:
            yield servable
        finally:
            del servable
            with self._state:
                record.in_flight -= 1
                unloaded = self._end_if_idle(record)
            # The last request of a version that left frees it, here, outside the lock.
            del unloaded

    def statuses(self, choice: ModelChoice) -> list[VersionStatus]:
        """Every version of a model that was ever known, highest first; or the one that `choice` numbers.

        A label in `choice` is not looked at: TensorFlow Serving does not either, and answers every version.

        Raises ServingError (NOT_FOUND) when there is no such model or version.
        """
        with self._state:
            found = [
                VersionStatus(version, record.state, record.error)
                for version, record in sorted(self._records.get(choice.name, {}).items(), reverse=True)
                if choice.version is None or choice.version == version
            ]
        if found:
            return found
        if choice.version is None:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {choice.name}")
        raise ServingError(Code.NOT_FOUND, f"Could not find version {choice.version} of model {choice.name}")

    def close(self) -> None:
        """Give up waiting to load what has not been loaded yet."""
        self._closing.set()

    def _find(self, choice: ModelChoice) -> tuple[_Record, Servable]:
        if not choice.name:
            raise ServingError(Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        version = choice.version
        if choice.label is not None:
            version = self._labels.get(choice.name, {}).get(choice.label)
            if version is None:
                raise ServingError(
                    Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {choice.label}"
                )
        records = self._records.get(choice.name, {})
        if version is None:
            available = [number for number, record in records.items() if record.state is State.AVAILABLE]
            record = records[max(available)] if available else None
            described = f"Latest({choice.name})"
        else:
            record = records.get(version)
            described = f"Specific({choice.name}, {version})"
        if record is None or record.state is not State.AVAILABLE or record.servable is None:
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {described}")
        return record, record.servable

    def _is_available(self, name: str, version: int) -> bool:
        with self._state:
            record = self._records.get(name, {}).get(version)
            return record is not None and record.state is State.AVAILABLE

    def _follow_file_system(self, models: Iterable[ModelConfig]) -> Mapping[str, str]:
        """Serve what the version folders of `models` ask for; what went wrong, by model name."""
        problems: dict[str, str] = {}
        for model in models:
            if self._closing.is_set():
                break
            try:
                folders = version_folders(model.base_path)
            except OSError as error:
                problems[model.name] = (
                    f"Could not find base path {model.base_path} for servable {model.name}: {error.strerror}"
                )
                continue
            self._aspire(model.name, aspired(model.policy, folders))
        return problems

    def _aspire(self, name: str, wanted: Mapping[int, Path]) -> None:
        with self._state:
            records = self._records.setdefault(name, {})
            for version, path in wanted.items():
                record = records.get(version)
                # A version wanted again after it was let go starts afresh, even while the requests that
                # began on its former self still finish. One that failed is not tried again while it stays.
                gone = record is not None and record.state in (State.UNLOADING, State.END)
                if record is None or (gone and not record.aspired):
                    records[version] = _Record(path)
                else:
                    record.aspired = True
            for version, record in records.items():
                if version not in wanted:
                    record.aspired = False
        while not self._closing.is_set():
            with self._state:
                step = next_step(
                    Standing(version, record.state, record.aspired) for version, record in records.items()
                )
            match step:
                case Load(version):
                    self._load(name, version, records[version])
                case Unload(version):
                    self._unload(name, version, records[version])
                case None:
                    return

    def _load(self, name: str, version: int, record: _Record) -> None:
        with self._state:
            record.state = State.LOADING
        servable, error = self._try_to_load(name, version, record.path)
        with self._state:
            record.servable, record.error = servable, error
            record.state = State.END if servable is None else State.AVAILABLE

    def _try_to_load(
        self, name: str, version: int, path: Path
    ) -> tuple[Servable | None, ServingError | None]:
        error: ServingError | None = None
        for attempt in range(self._retries.attempts + 1):
            if attempt and self._closing.wait(self._retries.wait_seconds):
                break
            try:
                servable = self._load_servable(name, version, path)
            except ServingError as failure:
                _log.error("Loading version %d of model %s failed: %s", version, name, failure)
                error = failure
            else:
                _log.info("Loaded version %d of model %s from %s", version, name, path)
                return servable, None
        return None, error

    def _unload(self, name: str, version: int, record: _Record) -> None:
        with self._state:
            record.state = State.UNLOADING
            unloaded = self._end_if_idle(record)
        del unloaded
        _log.info("Unloading version %d of model %s", version, name)

    @staticmethod
    def _end_if_idle(record: _Record) -> Servable | None:
        if record.state is not State.UNLOADING or record.in_flight:
            return None
        servable, record.servable = record.servable, None
        record.state = State.END
        return servable

    def _check_available(self, added: Iterable[ModelConfig], problems: Mapping[str, str]) -> None:
        missing: list[str] = []
        with self._state:
            for model in added:
                records = self._records.get(model.name, {})
                if any(record.state is State.AVAILABLE for record in records.values()):
                    continue
                failed = {number: record.error for number, record in records.items() if record.error}
                missing += [
                    f"{{{{name: {model.name} version: {number}}} due to error: {error}}}"
                    for number, error in sorted(failed.items())
                ]
                if not failed:
                    problem = problems.get(
                        model.name,
                        "Unable to find a numerical version path for servable "
                        f"{model.name} at: {model.base_path}",
                    )
                    missing.append(f"{{{{name: {model.name}}} due to error: {problem}}}")
        if missing:
            raise ServingError(
                Code.UNKNOWN, f"{len(missing)} model(s) did not become available: {{{', '.join(missing)}}}"
            )
