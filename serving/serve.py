"""Having the model server serve what the rollout's config says.

Belongs here: changes of what is loaded and labelled, each safe to repeat. Does not belong here: where a
version comes from (`serving.rollout`). Importing this imports no MLflow: going back must be quick.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Final

from airloop.errors import RolloutError
from airloop.prediction_request import assemble_inputs, example_request
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from serving.model_config import (
    ServedModel,
    config_message,
    exclusive,
    read_models,
    served_model,
    write_models,
)
from serving.model_server_channel import stands_for_several
from serving.model_server_client import (
    AVAILABLE,
    CHAMPION,
    END,
    ModelServer,
    ModelServerDown,
    ModelServerLate,
    ModelServerRefused,
)

log = logging.getLogger(__name__)

RELOAD_TIMEOUT_SECONDS: Final = 60.0
PROBE_TIMEOUT_SECONDS: Final = 10.0
_SETTLE_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.1


def serve(server: ModelServer, models: Mapping[str, ServedModel], *, timeout: float) -> None:
    """Make the model server serve `models`: their versions first, then the labels of what is available.

    A label keeps answering throughout, on each of several servers: where its version is not available yet, as
    on a server that has just started, the one that it has there keeps it until then. Raises what
    `ModelServer.change` raises.
    """
    server.change(lambda member: _serve(member, models, timeout))


def _serve(member: ModelServer, models: Mapping[str, ServedModel], timeout: float) -> None:
    ready = {name: _labelled_where_available(member, model) for name, model in models.items()}
    member.reload(config_message(ready), timeout=timeout)
    if any(ready[name].labels != models[name].labels for name in models):
        final = {name: _labelled_where_available(member, model) for name, model in models.items()}
        for name, model in final.items():
            for label in models[name].labels:
                if models[name].labels[label] != model.labels.get(label):
                    log.warning("label %s of model %s is not set: its version is not available", label, name)
        member.reload(config_message(final), timeout=timeout)


def answer_as_champion(settings: Settings, spec: UseCase, version: int) -> bool:
    """Have `version` answer in place of a champion that is given up; whether it is loaded, so that it can.

    The config file says so too, so that a model server that starts now comes up with it. The record and the
    registry are left to `promote`. Raises `RolloutError` when it does not answer; the champion before it then
    still does.
    """
    with exclusive(settings), ModelServer.of(settings) as server:
        found = server.states(spec.model_name).get(version)
        if found is None or found.state != AVAILABLE:
            return False
        models = read_models(settings)
        back = {**models, spec.model_name: served_model(settings, models, spec.model_name).back_to(version)}
        serve(server, back, timeout=RELOAD_TIMEOUT_SECONDS)
        require_champion_answers(server, spec, version, otherwise=models)
        write_models(settings, back)
    return True


def bring_into_line(settings: Settings) -> None:
    """Have those of several model servers serve what the config file says that came up without a change.

    One that read the file just before it was replaced, and answered only after the job was over, has missed
    that. Without effect where there is one server, and while another job changes what is served; what does
    not work is logged, and left to the next call.
    """
    if not stands_for_several(settings.model_server_address):
        return
    try:
        with exclusive(settings, wait=False), ModelServer.of(settings) as server:
            models = read_models(settings)
            for member in server.members():
                if not all(_serves(member, model) for model in models.values()):
                    log.warning("%s does not serve what is on file; it is told to", member.address)
                    serve(member, models, timeout=RELOAD_TIMEOUT_SECONDS)
    except BlockingIOError:
        log.info("another job changes what is served")
    except (ModelServerDown, ModelServerLate, ModelServerRefused) as error:
        log.warning("not every model server serves what is on file: %s", error)


def _serves(member: ModelServer, model: ServedModel) -> bool:
    states = member.states(model.name)
    available = {version for version, found in states.items() if found.state == AVAILABLE}
    return available == model.versions and all(
        member.labelled(model.name, label) == version for label, version in model.labels.items()
    )


def require_champion_answers(
    server: ModelServer, spec: UseCase, version: int, *, otherwise: Mapping[str, ServedModel]
) -> None:
    """Raises `RolloutError`, with `otherwise` served again, unless `version` answers as the champion."""
    request = example_request(spec)
    row = {name: [value] for name, value in assemble_inputs(spec, request, {}).items()}
    for member in server.members():
        answer = member.predict(spec, row, version=CHAMPION, timeout=PROBE_TIMEOUT_SECONDS)
        if answer.version == version and answer.is_finite:
            continue
        serve(server, otherwise, timeout=RELOAD_TIMEOUT_SECONDS)
        raise RolloutError(
            expected=f"the label {CHAMPION} to be answered by version {version}, with finite numbers",
            found=f"version {answer.version} answering {answer.answers} at {member.address}",
            next_step="the champion before it serves again; read the model server's log",
        )


def load_version(
    server: ModelServer, models: Mapping[str, ServedModel], name: str, version: int, *, timeout: float
) -> None:
    """Serve `models` and wait until `version` of model `name` is available, for `timeout` seconds at most.

    Raises `RolloutError` when it cannot be loaded, or not in time.
    """
    deadline = time.monotonic() + timeout
    refusal = ""
    try:
        serve(server, models, timeout=timeout)
    except (ModelServerRefused, ModelServerLate) as error:
        # The version's state tells whether it is about this one: a new model that does not load is refused.
        refusal = str(error)
    settled = time.monotonic() + _SETTLE_SECONDS
    while True:
        found = server.states(name).get(version)
        if found is not None and found.state == AVAILABLE:
            return
        # Just after a reload, an END may be that of an earlier attempt.
        failed = found is not None and found.state == END and time.monotonic() > settled
        if failed or time.monotonic() > deadline:
            reason = (found.error if found is not None else "") or refusal
            state = found.state if found is not None else "unknown to the model server"
            raise RolloutError(
                expected=f"version {version} of model {name} AVAILABLE within {timeout:g} s",
                found=f"{state}{': ' + reason if reason else ''}",
                next_step="read the model server's log; the champion keeps serving. Train a new candidate",
            )
        time.sleep(_POLL_SECONDS)


def _labelled_where_available(member: ModelServer, model: ServedModel) -> ServedModel:
    """`model` with the labels that `member` can give now, and the versions that have them there."""
    states = member.states(model.name) if model.labels else {}
    available = {version for version, found in states.items() if found.state == AVAILABLE}
    labels = {}
    for label, version in model.labels.items():
        there = version if version in available else member.labelled(model.name, label)
        if there is not None:
            labels[label] = there
    return ServedModel(model.name, model.base_path, model.versions | set(labels.values()), labels)
