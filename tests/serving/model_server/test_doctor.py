"""`make doctor` and the model server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airloop.doctor import services
from airloop.doctor.examination import Failure
from airloop.settings import Settings
from tests.serving.model_server.clients import Client


def test_a_server_that_serves_nothing_answers_and_one_that_is_gone_does_not(
    start_server: Callable[..., Client], tmp_path: Path
) -> None:
    target = f"127.0.0.1:{start_server().grpc_port}"
    assert services.model_server(Settings(state_dir=tmp_path, model_server_target=target)) == target
    nowhere = Settings(state_dir=tmp_path, model_server_target="127.0.0.1:1")
    with pytest.raises(Failure, match="UNAVAILABLE"):
        services.model_server(nowhere)
