"""The model server's config file as the rollout keeps it: which versions of each model, and their labels.

Belongs here: the pure changes (add, promote, remove) and the file's text form. Does not belong here: calls
to the model server, or the rule of what may be promoted (`promote`).

The file names only versions that have loaded, so that a server started from it comes up whole.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format

from airloop.errors import RolloutError
from airloop.serving_history import recorded_champion
from airloop.settings import Settings
from airloop.use_cases.catalogue import all_use_cases
from airloop.whole_files import write_whole
from serving.model_server_client import CHAMPION, PREVIOUS
from serving.tf_serving_api import ModelServerConfig


@dataclass(frozen=True)
class ServedModel:
    """One model on the model server."""

    name: str
    base_path: Path
    versions: frozenset[int] = frozenset()
    labels: Mapping[str, int] = field(default_factory=dict)

    @property
    def champion(self) -> int | None:
        """The version that takes the traffic."""
        return self.labels.get(CHAMPION)

    @property
    def previous(self) -> int | None:
        """The version that took it before."""
        return self.labels.get(PREVIOUS)

    def with_version(self, version: int) -> ServedModel:
        """With `version` too."""
        return ServedModel(self.name, self.base_path, self.versions | {version}, self.labels)

    def with_champion(self, version: int) -> ServedModel:
        """With `version` as champion, and the champion before it as previous; unchanged if it is already."""
        if self.champion == version:
            return self
        labels = {CHAMPION: version}
        if self.champion is not None:
            labels[PREVIOUS] = self.champion
        return ServedModel(self.name, self.base_path, self.versions | {version}, labels)

    def back_to(self, version: int) -> ServedModel:
        """With `version` as champion in place of one that is given up, and no way back to that one."""
        labels = {CHAMPION: version}
        if self.previous not in (None, version):
            labels[PREVIOUS] = self.labels[PREVIOUS]
        return ServedModel(self.name, self.base_path, self.versions | {version}, labels)

    def without(self, version: int) -> ServedModel:
        """Without `version` and its labels; the champion stays whatever is asked."""
        if version == self.champion:
            return self
        labels = {label: labelled for label, labelled in self.labels.items() if labelled != version}
        return ServedModel(self.name, self.base_path, self.versions - {version}, labels)

    def without_superseded(self) -> ServedModel:
        """Without the versions older than the champion, but for the previous one."""
        if self.champion is None:
            return self
        kept = {v for v in self.versions if v >= self.champion or v == self.previous}
        return ServedModel(self.name, self.base_path, frozenset(kept), self.labels)


@contextmanager
def exclusive(settings: Settings, *, wait: bool = True) -> Iterator[None]:
    """Hold the models folder: one job at a time changes what is served, whatever its use case.

    Raises `BlockingIOError` where another job holds it and there is to be no `wait`.
    """
    settings.models_dir.mkdir(parents=True, exist_ok=True)
    with (settings.models_dir / ".rollout.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def read_models(settings: Settings) -> dict[str, ServedModel]:
    """Every model in the config file, by name.

    Where there is no file, or nothing in it (a stack that is started without one has that), the champions on
    record whose folders are there; none where nothing ever served.
    Raises `RolloutError` when the file is not the rollout's work, or without it `AuditLogError`.
    """
    path = settings.model_config_file
    try:
        message = text_format.Parse(path.read_text(encoding="utf-8"), ModelServerConfig())
    except FileNotFoundError:
        return _on_record(settings)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise RolloutError(
            expected=f"{path} to be a text protobuf ModelServerConfig",
            found=str(error),
            next_step="move the file away and run the rollout again: it begins with the champions on record",
        ) from None
    if not message.model_config_list.config:
        return _on_record(settings)
    return {
        entry.name: ServedModel(
            name=entry.name,
            base_path=Path(entry.base_path),
            versions=frozenset(entry.model_version_policy.specific.versions),
            labels=dict(entry.version_labels),
        )
        for entry in message.model_config_list.config
    }


def _on_record(settings: Settings) -> dict[str, ServedModel]:
    found = {}
    for spec in all_use_cases():
        model = ServedModel(spec.model_name, settings.models_dir / spec.model_name)
        champion = recorded_champion(settings, spec.name)
        if champion is not None and (model.base_path / str(champion)).is_dir():
            found[model.name] = model.with_champion(champion)
    return found


def served_model(settings: Settings, models: Mapping[str, ServedModel], name: str) -> ServedModel:
    """The model called `name`, without versions where it is new."""
    return models.get(name) or ServedModel(name, settings.models_dir / name)


def write_models(settings: Settings, models: Mapping[str, ServedModel]) -> None:
    """Replace the config file by `models`, whole; leaves an equal file alone."""
    text = text_format.MessageToString(config_message(models))
    path = settings.model_config_file
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_whole(path, text)


def config_message(models: Mapping[str, ServedModel]) -> ModelServerConfig:
    """`models` as the message that the model server takes; a model without versions is left out.

    (A model with no specific version listed would be served at its latest, whichever that is.)
    """
    message = ModelServerConfig()
    message.model_config_list.SetInParent()
    for name in sorted(models):
        model = models[name]
        if not model.versions:
            continue
        entry = message.model_config_list.config.add(
            name=name, base_path=str(model.base_path), model_platform="tensorflow"
        )
        entry.model_version_policy.specific.versions.extend(sorted(model.versions))
        for label in sorted(model.labels):
            entry.version_labels[label] = model.labels[label]
    return message
