"""A client of the model server, over TensorFlow Serving's gRPC API.

Belongs here: the calls, their time limits, what several servers say together, and tensors to and from plain
Python values. Does not belong here: where servers are and how calls are balanced (`model_server_channel`),
what to serve (`model_config`), or what an answer means to a client of the gateway.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc
from opentelemetry.trace import SpanKind

from airloop.errors import SettingsError
from airloop.prediction_request import InputValue
from airloop.settings import Settings
from airloop.traces import carried, span
from airloop.use_cases.spec import UseCase
from serving.model_server_channel import addresses, certified_name, open_channel, stands_for_several
from serving.tf_serving_api import (
    DT_FLOAT,
    DT_INT64,
    DT_STRING,
    GetModelMetadataRequest,
    GetModelStatusRequest,
    ModelServerConfig,
    ModelServiceStub,
    ModelVersionStatus,
    PredictionServiceStub,
    PredictRequest,
    ReloadConfigRequest,
    SignatureDefMap,
    TensorProto,
)

CHAMPION: Final = "champion"
"""Label of the version that takes the traffic."""
PREVIOUS: Final = "previous"
"""Label of the version that served before it, kept loaded so that a rollback is one label away."""
AVAILABLE: Final = "AVAILABLE"
END: Final = "END"
START: Final = "START"
SIGNATURE: Final = "serving_default"

_PREDICT: Final = "tensorflow.serving.PredictionService/Predict"
_RPC: Final = {"rpc.system": "grpc"}
# CANCELLED by the server: it stopped before it began, or before it was done.
_DOWN: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_LATE: Final = (grpc.StatusCode.DEADLINE_EXCEEDED,)
_FROM_GONE_TO_THERE: Final = (END, "UNLOADING", "UNKNOWN", START, "LOADING", AVAILABLE)
_PRESENCE_TIMEOUT_SECONDS: Final = 5.0

_T = TypeVar("_T")
log = logging.getLogger(__name__)


class ModelServerDown(Exception):
    """The model server does not answer; the same call may succeed later."""


class ModelServerLate(Exception):
    """The model server did not answer within the time limit; the same call may succeed later."""


class ModelServerRefused(Exception):
    """The model server refused the call; `code` is its gRPC status, `message` its reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Prediction:
    """An answer for each row, and the version that computed them."""

    version: int
    answers: tuple[tuple[float, ...], ...]
    """Of each row the numbers that `target.answers` of the use case's label names."""

    @property
    def is_finite(self) -> bool:
        """Whether all of them are numbers."""
        return all(math.isfinite(number) for answer in self.answers for number in answer)


@dataclass(frozen=True)
class VersionState:
    """What the model server says about one version of a model."""

    state: str
    """START, LOADING, AVAILABLE, UNLOADING or END."""
    error: str
    """Why it could not be loaded; empty when nothing went wrong."""


class ModelServer:
    """One channel to the model server; calls may come from several threads at once.

    Every call raises `ModelServerDown`, `ModelServerLate` or `ModelServerRefused`.
    """

    def __init__(self, address: str, authority: bytes | None = None, *, certified: str | None = None) -> None:
        """`authority` is the certificate (PEM) by which the server's is known; plain text without it.

        The server's is made out for `certified`, by default the name or the address in `address`.
        """
        self._channel = open_channel(address, authority, certified=certified)
        self._models = ModelServiceStub(self._channel)
        self._predictions = PredictionServiceStub(self._channel)
        self.address = address

    @staticmethod
    def of(settings: Settings) -> ModelServer:
        """The deployment's model server, or servers; raises `SettingsError` for an unreadable authority."""
        file = settings.model_server_authority
        try:
            authority = file.read_bytes() if file is not None else None
        except OSError as error:
            raise SettingsError(
                expected=f"a certificate in {file} (AIRLOOP_MODEL_SERVER_AUTHORITY)",
                found=str(error.strerror),
                next_step="name the PEM file of the authority that signed the model server's certificate",
            ) from None
        target = settings.model_server_address
        several = stands_for_several(target)
        return ModelServers(target, authority) if several else ModelServer(target, authority)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def members(self) -> Sequence[ModelServer]:
        """Each of the servers that answer, to be asked by itself."""
        return (self,)

    def change(self, make: Callable[[ModelServer], None]) -> None:
        """Have `make` change what each server serves; it can be repeated, and says all that is served.

        What it raises on a server that answers is raised once the others are changed.
        """
        make(self)

    def predict(
        self,
        use_case: UseCase,
        columns: Mapping[str, Sequence[InputValue]],
        *,
        version: int | str,
        timeout: float,
        inputs: Container[str] | None = None,
    ) -> Prediction:
        """Answers for `columns` (one value per row for every model input), in `timeout` seconds.

        `version` is a number, or a label; `inputs` are those that it takes, if not all of the spec's.
        """
        request = predict_request(use_case, columns, version=version, inputs=inputs)
        return self.answer(request, timeout=timeout)

    def answer(
        self, request: PredictRequest, *, timeout: float, metadata: Sequence[tuple[str, str]] = ()
    ) -> Prediction:
        """The answer to a message that `predict_request` made.

        `metadata` carries the trace on where the call has no span of its own.
        """
        with span(_PREDICT, kind=SpanKind.CLIENT, attributes=_RPC) as call:
            if call.is_recording():
                metadata = tuple(carried().items())
            found = _prediction(self._call(self._predictions.Predict, request, timeout, metadata))
            call.set_attribute("airloop.version", found.version)
            return found

    def answer_later(
        self, request: PredictRequest, done: Callable[[Prediction | Exception], None], *, timeout: float
    ) -> None:
        """Have `done` called, by a thread of gRPC's, with what `answer` would return or raise."""
        call = self._predictions.Predict.future(request, timeout=timeout)

        def finished(call: Any) -> None:
            try:
                found: Prediction | Exception = _prediction(call.result())
            except grpc.RpcError as error:
                found = self._failure(error, timeout)
            except grpc.FutureCancelledError:
                found = ModelServerLate(f"no answer from {self.address}: the call was cancelled")
            done(found)

        call.add_done_callback(finished)

    def inputs(self, name: str, version: int | str, *, timeout: float = 5.0) -> frozenset[str]:
        """The names of the inputs that `version` (a number or a label) of model `name` takes."""
        request = GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = name
        _set_version(request.model_spec, version)
        answer = self._call(self._predictions.GetModelMetadata, request, timeout)
        signatures = SignatureDefMap.FromString(answer.metadata["signature_def"].value)
        return frozenset(signatures.signature_def[SIGNATURE].inputs)

    def states(self, name: str, *, timeout: float = 5.0) -> dict[int, VersionState]:
        """The state of every version of model `name` that the server knows; empty when it knows none."""
        request = GetModelStatusRequest()
        request.model_spec.name = name
        try:
            answer = self._call(self._models.GetModelStatus, request, timeout)
        except ModelServerRefused as refusal:
            if refusal.code == grpc.StatusCode.NOT_FOUND.name:
                return {}
            raise
        return {
            item.version: VersionState(
                ModelVersionStatus.State.Name(item.state),
                item.status.error_message if item.status.error_code else "",
            )
            for item in answer.model_version_status
        }

    def labelled(self, name: str, label: str, *, timeout: float = 5.0) -> int | None:
        """The version of model `name` that answers requests for `label`; None when none does."""
        # The metadata call resolves labels and names the version; the status call does not look at labels.
        request = GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = name
        request.model_spec.version_label = label
        try:
            answer = self._call(self._predictions.GetModelMetadata, request, timeout)
        except ModelServerRefused:
            return None
        return int(answer.model_spec.version.value)

    def reload(self, config: ModelServerConfig, *, timeout: float) -> None:
        """Serve what `config` says, and nothing else; labels may name only versions that are available."""
        request = ReloadConfigRequest(config=config)
        status = self._call(self._models.HandleReloadConfigRequest, request, timeout).status
        if status.error_code:
            names = {code.value[0]: code.name for code in grpc.StatusCode}
            raise ModelServerRefused(names.get(status.error_code, "UNKNOWN"), status.error_message)

    def _call(
        self, method: Any, request: Any, timeout: float, metadata: Sequence[tuple[str, str]] = ()
    ) -> Any:
        try:
            return method(request, timeout=timeout, metadata=metadata or None)
        except grpc.RpcError as error:
            raise self._failure(error, timeout) from None

    def _failure(self, error: grpc.RpcError, timeout: float) -> Exception:
        code, details = error.code(), error.details() or ""
        if code in _DOWN:
            return ModelServerDown(f"no model server at {self.address}: {details}")
        if code in _LATE:
            return ModelServerLate(f"no answer from {self.address} in {timeout} s")
        return ModelServerRefused(code.name, details)


class ModelServers(ModelServer):
    """Several servers of the same models: each prediction is asked of one, the next one in turn.

    The other calls go to all of them. Who is down is left out: it starts from the config file, which changes
    are written to. `ModelServerDown` is raised where none answers.
    """

    def __init__(self, target: str, authority: bytes | None = None) -> None:
        """As `ModelServer`. The certificates are made out for the name in `target`, else for each address.

        (Those of listed addresses name the first one too: a channel knows one name.)
        """
        super().__init__(target, authority)
        self._authority = authority
        self._clients: dict[str, ModelServer] = {}
        self._lock = threading.Lock()
        self._last_change: Callable[[ModelServer], None] | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._change_who_came_since()
        finally:
            super().__exit__(kind, error, trace)

    def close(self) -> None:
        """Close the channels."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()
        super().close()

    def members(self) -> Sequence[ModelServer]:
        """Each of the servers that answer, to be asked by itself."""
        return [member for member, _ in self._each(_present)]

    def change(self, make: Callable[[ModelServer], None]) -> None:
        """Have `make` change what each server serves; it can be repeated, and says all that is served.

        What it raises on a server that answered is raised once the others are changed. A server that was down
        may have read the config file before the change is written there: as this closes without an error,
        all that answer then are changed once more.
        """
        self._last_change = make
        asked = self.members()
        for silent in set(self._clients) - {member.address for member in asked}:
            log.warning("%s does not answer: it is to read the change from the file as it starts", silent)
        failed = [found for _, found in _asked_at_once(asked, make) if isinstance(found, Exception)]
        # One that goes down in the middle may do so for what it was to load: tried again, it is left out.
        if failed:
            raise failed[0]

    def inputs(self, name: str, version: int | str, *, timeout: float = 5.0) -> frozenset[str]:
        """The names of the inputs that `version` takes, said by any that serves it."""

        def ask(member: ModelServer) -> frozenset[str] | None:
            try:
                return member.inputs(name, version, timeout=timeout)
            except ModelServerRefused as refusal:
                refused.append(refusal)
                return None

        refused: list[ModelServerRefused] = []
        for _, found in self._each(ask):
            if found is not None:
                return found
        raise refused[0]

    def states(self, name: str, *, timeout: float = 5.0) -> dict[int, VersionState]:
        """The state of every version that any server knows: that of the server where it is least far.

        So AVAILABLE is what all that answer have. One that a server does not know has yet to START there.
        """
        found = self._each(lambda member: member.states(name, timeout=timeout))
        said = {
            member.address: {
                version: VersionState(item.state, f"{member.address}: {item.error}" if item.error else "")
                for version, item in states.items()
            }
            for member, states in found
        }
        versions = sorted({version for states in said.values() for version in states}, reverse=True)
        not_known = VersionState(START, "")
        return {
            version: min(
                (states.get(version, not_known) for states in said.values()),
                key=lambda item: (_FROM_GONE_TO_THERE.index(item.state), not item.error),
            )
            for version in versions
        }

    def labelled(self, name: str, label: str, *, timeout: float = 5.0) -> int | None:
        """The version that answers requests for `label` on all that answer; None when they do not agree."""
        found = {version for _, version in self._each(lambda m: m.labelled(name, label, timeout=timeout))}
        return found.pop() if len(found) == 1 else None

    def reload(self, config: ModelServerConfig, *, timeout: float) -> None:
        """Serve what `config` says, and nothing else; labels may name only versions that are available."""
        self.change(lambda member: member.reload(config, timeout=timeout))

    def _each(self, call: Callable[[ModelServer], _T]) -> list[tuple[ModelServer, _T]]:
        """What `call` returns for each server that answers."""
        answers: list[tuple[ModelServer, _T]] = []
        silent: list[ModelServerDown | ModelServerLate] = []
        for member, found in _asked_at_once(self._all(), call):
            match found:
                case ModelServerDown() | ModelServerLate():
                    silent.append(found)
                case Exception():
                    raise found
                case _:
                    answers.append((member, found))
        if not answers:
            raise next((one for one in silent if isinstance(one, ModelServerLate)), silent[0])
        for one in silent:
            log.debug("left out: %s", one)
        return answers

    def _all(self) -> list[ModelServer]:
        """A client of each server that there is now."""
        try:
            there = addresses(self.address)
        except OSError as error:
            raise ModelServerDown(f"no model server at {self.address}: {error}") from None
        certified = certified_name(self.address)
        with self._lock:
            # Those of servers that are gone close as the last call that uses them ends.
            self._clients = {
                address: self._clients.get(address)
                or ModelServer(address, self._authority, certified=certified)
                for address in there
            }
            return list(self._clients.values())

    def _change_who_came_since(self) -> None:
        if self._last_change is None:
            return
        with self._lock:
            # On new channels: one that failed just now waits up to a second before it connects again.
            self._clients.clear()
        try:
            self.change(self._last_change)
        except (ModelServerDown, ModelServerLate, ModelServerRefused) as error:
            # What was asked for is done, and on file.
            log.warning("a model server may lack the last change: %s", error)


def _asked_at_once(
    members: Sequence[ModelServer], call: Callable[[ModelServer], _T]
) -> list[tuple[ModelServer, _T | Exception]]:
    """What `call` returns for each of `members`, or what it raises of this module's."""

    def ask(member: ModelServer) -> _T | Exception:
        try:
            return call(member)
        except (ModelServerDown, ModelServerLate, ModelServerRefused) as error:
            return error

    with ThreadPoolExecutor(len(members)) as threads:
        return list(zip(members, threads.map(ask, members), strict=True))


def _present(member: ModelServer) -> None:
    """Raises `ModelServerDown` or `ModelServerLate` unless the server answers, whatever it is."""
    member.states("none", timeout=_PRESENCE_TIMEOUT_SECONDS)


def predict_request(
    use_case: UseCase,
    columns: Mapping[str, Sequence[InputValue]],
    *,
    version: int | str,
    inputs: Container[str] | None = None,
) -> PredictRequest:
    """The message that asks `version` (a number or a label) about every row.

    `inputs` are the names of those that the version takes, where it is not all of the spec's.
    """
    request = PredictRequest(output_filter=[use_case.label.target.output])
    request.model_spec.name = use_case.model_name
    request.model_spec.signature_name = SIGNATURE
    _set_version(request.model_spec, version)
    for item in use_case.inputs:
        if inputs is None or item.name in inputs:
            request.inputs[item.name].CopyFrom(_tensor(item.type, columns[item.name]))
    return request


def _set_version(spec: Any, version: int | str) -> None:
    if isinstance(version, str):
        spec.version_label = version
    else:
        spec.version.value = version


def _prediction(answer: Any) -> Prediction:
    # The one that was asked for.
    (output,) = answer.outputs.values()
    return Prediction(answer.model_spec.version.value, _rows(output))


def _tensor(kind: str, values: Sequence[InputValue]) -> TensorProto:
    match kind:
        case "string":
            tensor = TensorProto(dtype=DT_STRING, string_val=[str(value).encode() for value in values])
        case "double":
            tensor = TensorProto(dtype=DT_FLOAT, float_val=[float(value) for value in values])
        case _:
            tensor = TensorProto(dtype=DT_INT64, int64_val=[int(value) for value in values])
    tensor.tensor_shape.dim.add(size=len(values))
    return tensor


def _rows(tensor: TensorProto) -> tuple[tuple[float, ...], ...]:
    """The rows of a float tensor [rows], or [rows, numbers], in either of the forms that a message has."""
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    rows, width = shape[0], math.prod(shape[1:])
    if tensor.tensor_content:
        values = tuple(memoryview(tensor.tensor_content).cast("f"))
    else:
        values = tuple(tensor.float_val)
        # A tensor message may leave out the repetitions of its last value.
        values += values[-1:] * (rows * width - len(values))
    return tuple(values[start : start + width] for start in range(0, rows * width, width))
