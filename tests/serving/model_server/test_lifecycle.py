"""What is served changes: reloads, labels, polling, damaged models; and nothing is lost meanwhile."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import model_management_pb2

from serving.model_server.errors import Code, ServingError
from tests.serving.model_server.clients import Client, config, eventually
from tests.serving.model_server.models import publish, publish_corrupt

StartServer = Callable[..., Client]


@pytest.fixture
def base(saved: dict[str, Path], tmp_path: Path) -> Path:
    """The base path of a model with one version, 1."""
    publish(saved["bias1"], tmp_path / "delay", 1)
    return tmp_path / "delay"


def _failure(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


def test_a_server_starts_without_models_and_is_told_of_them_later(
    start_server: StartServer, base: Path, tmp_path: Path
) -> None:
    client = start_server(model_config_file=tmp_path / "not-written-yet.config")
    assert _failure(lambda: client.status("delay"))[0] == "NOT_FOUND"
    response = client.reload(config(("delay", base, {})))
    assert response.status.error_code == 0
    assert client.score("delay") == (1, 1.0)


def test_reloads_add_versions_move_labels_and_remove_models(
    start_server: StartServer, saved: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    client = start_server()
    client.reload(config(("delay", base, {"specific": [1]})))
    publish(saved["bias2"], base, 2)
    publish(saved["bias3"], tmp_path / "other", 1)
    other: tuple[str, Path, dict[str, Any]] = ("other", tmp_path / "other", {})
    client.reload(config(("delay", base, {"specific": [1, 2], "labels": {"stable": 1}}), other))
    assert client.states("delay") == {2: "AVAILABLE", 1: "AVAILABLE"}
    assert client.score("other") == (1, 3.0)
    client.reload(
        config(("delay", base, {"specific": [2, 1], "labels": {"stable": 2, "previous": 1}}), other)
    )
    assert client.score("delay", label="stable") == (2, 2.0)
    assert client.score("delay", label="previous") == (1, 1.0)
    client.reload(config(("delay", base, {"specific": [2], "labels": {"stable": 2}})))
    assert client.states("delay") == {2: "AVAILABLE", 1: "END"}
    assert client.states("other") == {1: "END"}
    assert _failure(lambda: client.score("delay", label="previous")) == (
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: previous",
    )
    assert _failure(lambda: client.score("other"))[0] == "NOT_FOUND"
    client.reload(config(("delay", base, {"specific": [1, 2]})))
    assert client.score("delay", version=1) == (1, 1.0)


def test_a_label_for_a_version_that_is_not_available_changes_nothing(
    start_server: StartServer, saved: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    client = start_server()
    client.reload(config(("delay", base, {"specific": [1]})))
    client.reload(config(("delay", base, {"specific": [1], "labels": {"stable": 1}})))
    publish(saved["bias2"], base, 2)
    publish(saved["bias3"], tmp_path / "other", 1)
    refused = config(
        ("delay", base, {"specific": [2], "labels": {"stable": 2}}), ("other", tmp_path / "other", {})
    )
    assert _failure(lambda: client.reload(refused)) == (
        "FAILED_PRECONDITION",
        "Request to assign label to version 2 of model delay, which is not currently available for inference",
    )
    assert client.score("delay", label="stable") == (1, 1.0)
    assert client.states("delay") == {1: "AVAILABLE"}
    assert _failure(lambda: client.status("other"))[0] == "NOT_FOUND"


def test_labels_in_a_start_up_configuration_need_the_flag(
    start_server: StartServer, base: Path, tmp_path: Path
) -> None:
    file = tmp_path / "models.config"
    labelled = config(("delay", base, {"specific": [1], "labels": {"stable": 1}}))
    file.write_text(text_format.MessageToString(labelled))
    with pytest.raises(ServingError, match="Request to assign label to version 1") as caught:
        start_server(model_config_file=file)
    assert caught.value.code is Code.FAILED_PRECONDITION
    client = start_server(model_config_file=file, allow_version_labels_for_unavailable_models=True)
    assert client.score("delay", label="stable") == (1, 1.0)
    moved = config(("delay", base, {"specific": [1], "labels": {"stable": 5}}))
    assert _failure(lambda: client.reload(moved))[0] == "FAILED_PRECONDITION"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "delay"}, "Illegal to list model delay multiple times in config list"),
        ({"base_path": "relative/path"}, "Expected model other to have an absolute path or URI"),
        ({"model_platform": "caffe"}, "Model other requests unsupported platform caffe"),
        ({"model_platform": ""}, "Illegal setting neither ModelServerConfig::model_type"),
    ],
)
def test_an_invalid_configuration_is_refused_whole(
    served: Client, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    request = config(("delay", tmp_path, {}), ("other", tmp_path, {}))
    for field, value in change.items():
        setattr(request.model_config_list.config[1], field, value)
    code, details = _failure(lambda: served.reload(request))
    assert code == "INVALID_ARGUMENT"
    assert message in details
    assert served.score("delay") == (2, 2.0)


def test_a_reload_without_a_model_list_is_refused(served: Client) -> None:
    request = model_management_pb2.ReloadConfigRequest()
    code, details = _failure(lambda: served.models.HandleReloadConfigRequest(request))
    assert code == "INVALID_ARGUMENT"
    assert "Only ModelConfigList is currently supported" in details


def test_a_damaged_version_ends_with_its_error_and_the_others_serve_on(
    start_server: StartServer, base: Path
) -> None:
    client = start_server()
    publish_corrupt(base, 2)
    client.reload(config(("delay", base, {"all": True})))
    assert client.states("delay") == {2: "END", 1: "AVAILABLE"}
    status, answer = client.get("/v1/models/delay/versions/2")
    assert status == 200
    (entry,) = answer["model_version_status"]
    assert entry["status"]["error_code"] == "DATA_LOSS"
    assert "Can't parse" in entry["status"]["error_message"]
    assert client.score("delay") == (1, 1.0)


def test_a_damaged_latest_version_leaves_the_one_before_serving(
    start_server: StartServer, base: Path
) -> None:
    client = start_server(model_name="delay", model_base_path=str(base), file_system_poll_wait_seconds=0.05)
    assert client.score("delay") == (1, 1.0)
    publish_corrupt(base, 2)
    assert eventually(lambda: client.states("delay").get(2) == "END")
    assert client.states("delay")[1] == "AVAILABLE"
    assert client.score("delay") == (1, 1.0)


def test_a_new_model_that_cannot_load_is_told_by_the_reload(
    start_server: StartServer, base: Path, tmp_path: Path
) -> None:
    publish_corrupt(tmp_path / "broken", 4)
    (tmp_path / "empty").mkdir()
    client = start_server()
    everything = config(
        ("delay", base, {}),
        ("broken", tmp_path / "broken", {}),
        ("empty", tmp_path / "empty", {}),
        ("gone", tmp_path / "gone", {}),
    )
    code, details = _failure(lambda: client.reload(everything))
    assert code == "UNKNOWN"
    assert "3 model(s) did not become available" in details
    assert "{{name: broken version: 4} due to error: DATA_LOSS" in details
    assert "Unable to find a numerical version path for servable empty" in details
    assert "Could not find base path" in details
    assert client.score("delay") == (1, 1.0)


def test_a_version_that_was_repaired_loads_once_it_was_away(
    start_server: StartServer, saved: dict[str, Path], base: Path
) -> None:
    client = start_server(model_name="delay", model_base_path=str(base), file_system_poll_wait_seconds=0.05)
    publish_corrupt(base, 2)
    assert eventually(lambda: client.states("delay").get(2) == "END")
    shutil.rmtree(base / "2")
    publish(saved["bias2"], base, 3)
    assert eventually(lambda: client.states("delay").get(3) == "AVAILABLE")
    publish(saved["bias3"], base, 4)
    assert eventually(lambda: client.score("delay") == (4, 3.0))
    publish(saved["bias2"], base, 2)
    shutil.rmtree(base / "4")
    shutil.rmtree(base / "3")
    assert eventually(lambda: client.score("delay") == (2, 2.0))


def test_a_new_version_takes_over_without_a_lost_request(
    start_server: StartServer, saved: dict[str, Path], base: Path
) -> None:
    client = start_server(model_name="delay", model_base_path=str(base), file_system_poll_wait_seconds=0.05)
    stop = threading.Event()
    answers: list[tuple[int, float]] = []
    failures: list[str] = []

    def hammer() -> None:
        while not stop.is_set():
            try:
                answers.append(client.score("delay"))
                status, answer = client.post("/v1/models/delay:predict", {"instances": [[0, 0, 0, 0]]})
                if status != 200:
                    failures.append(str(answer))
            except grpc.RpcError as error:
                failures.append(str(error))

    def took_over(version: int) -> bool:
        ended = client.states("delay").get(version - 1) == "END"
        return ended and any(answered == version for answered, _ in answers)

    threads = [threading.Thread(target=hammer) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for version in (2, 3):
            publish(saved[f"bias{version}"], base, version)
            assert eventually(partial(took_over, version))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert {version for version, _ in answers} == {1, 2, 3}
    assert all(bias == float(version) for version, bias in answers)


def test_a_request_under_way_finishes_on_the_version_it_began_on(
    start_server: StartServer, saved: dict[str, Path], tmp_path: Path
) -> None:
    base = tmp_path / "everything"
    publish(saved["everything"], base, 1)
    client = start_server()
    client.reload(config(("everything", base, {})))
    versions: list[int] = []
    request = threading.Thread(
        target=lambda: versions.append(
            client.predict(
                "everything", {"wait": np.ones(1, np.float32)}, signature="slow"
            ).model_spec.version.value
        )
    )
    publish(saved["everything"], base, 2)
    request.start()
    # The reload loads version 2 first, so that the slow request has long begun when version 1 goes.
    client.reload(config(("everything", base, {"specific": [2]})))
    while_running = client.states("everything")
    request.join()
    assert versions == [1]
    assert while_running == {2: "AVAILABLE", 1: "UNLOADING"}
    assert client.states("everything") == {2: "AVAILABLE", 1: "END"}


def test_staged_folders_and_files_are_not_versions(
    start_server: StartServer, saved: dict[str, Path], base: Path
) -> None:
    shutil.copytree(saved["bias2"], base / "2.staging")
    (base / "3").write_text("not a folder")
    client = start_server(model_name="delay", model_base_path=str(base))
    assert client.states("delay") == {1: "AVAILABLE"}


def test_the_configuration_file_is_followed_and_a_bad_one_changes_nothing(
    start_server: StartServer, saved: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    file = tmp_path / "models.config"
    file.write_text("")
    client = start_server(model_config_file=file, model_config_file_poll_wait_seconds=0.05)
    file.write_text(text_format.MessageToString(config(("delay", base, {}))))
    assert eventually(lambda: client.get("/v1/models/delay")[0] == 200)
    assert eventually(lambda: client.states("delay") == {1: "AVAILABLE"})
    file.write_text("model_config_list { nonsense")
    publish(saved["bias2"], base, 2)
    threading.Event().wait(0.2)
    assert client.score("delay") == (1, 1.0)
    file.write_text(text_format.MessageToString(config(("delay", base, {"all": True}))))
    assert eventually(lambda: client.states("delay") == {2: "AVAILABLE", 1: "AVAILABLE"})
