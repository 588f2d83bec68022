"""The pure decisions: version policies, the order of transitions, settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.model_server.settings import parse_settings
from serving.model_server.transitions import Load, Standing, State, Unload, next_step
from serving.model_server.versions import All, Latest, Specific, VersionPolicy, aspired, version_folders


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (Latest(), {10}),
        (Latest(2), {9, 10}),
        (Latest(9), {2, 9, 10}),
        (All(), {2, 9, 10}),
        (Specific(frozenset({2, 10, 77})), {2, 10}),
        (Specific(frozenset()), set()),
    ],
)
def test_a_policy_picks_among_the_folders_by_number(
    tmp_path: Path, policy: VersionPolicy, wanted: set[int]
) -> None:
    for name in ("2", "9", "0010", "11.staging", "tmp", "-1", "99999999999999999999"):
        (tmp_path / name).mkdir()
    found = aspired(policy, version_folders(tmp_path))
    assert set(found) == wanted
    assert all(int(path.name) == version for version, path in found.items())


def test_a_base_path_that_is_away_is_not_an_empty_one(tmp_path: Path) -> None:
    assert version_folders(tmp_path) == {}
    with pytest.raises(FileNotFoundError):
        version_folders(tmp_path / "away")


_SERVING, _NEW, _FAILED = State.AVAILABLE, State.START, State.END


@pytest.mark.parametrize(
    ("standings", "step"),
    [
        ([], None),
        ([(1, _NEW, True), (2, _NEW, True)], Load(2)),
        ([(1, _SERVING, False), (2, _NEW, True)], Load(2)),
        ([(1, _SERVING, False), (2, _SERVING, True)], Unload(1)),
        ([(1, _SERVING, False), (2, _FAILED, True)], None),
        ([(1, _SERVING, False), (2, _SERVING, False), (3, _NEW, True)], Unload(1)),
        ([(1, _SERVING, False)], Unload(1)),
        ([(1, _SERVING, True), (2, _SERVING, True)], None),
    ],
)
def test_a_wanted_version_serves_before_an_unwanted_one_goes(
    standings: list[tuple[int, State, bool]], step: Load | Unload | None
) -> None:
    assert next_step(Standing(*standing) for standing in standings) == step


def test_flags_have_tensorflow_servings_names_and_forms() -> None:
    settings = parse_settings(
        [
            "--port=9000",
            "--rest_api_port=9001",
            "--model_config_file=/models.config",
            "--model_config_file_poll_wait_seconds=5",
            "--file_system_poll_wait_seconds=0",
            "--allow_version_labels_for_unavailable_models=true",
            "--load_retry_interval_micros=1500000",
            "--grpc_channel_arguments=grpc.max_connection_age_ms=30000,grpc.primary_user_agent=x",
        ]
    )
    assert (settings.grpc_port, settings.rest_port) == (9000, 9001)
    assert settings.model_config_file == Path("/models.config")
    assert settings.model_config_file_poll_wait_seconds == 5.0
    assert settings.file_system_poll_wait_seconds == 0.0
    assert settings.allow_version_labels_for_unavailable_models is True
    assert settings.load_retry_interval_seconds == 1.5
    assert settings.grpc_channel_arguments == (
        ("grpc.max_connection_age_ms", 30000),
        ("grpc.primary_user_agent", "x"),
    )
    assert parse_settings(["--model_base_path=/m"]).rest_port is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of --model_config_file and --model_base_path is required"),
        (["--model_base_path=/m", "--port=70000"], "expected a port from 0 to 65535, found 70000"),
        (["--model_base_path=/m", "--port=0"], "at least one of --port and --rest_api_port"),
        (["--model_base_path=/m", "--port=5", "--rest_api_port=5"], "must differ; both are 5"),
        (["--model_base_path=/m", "--unheard_of"], "unrecognized arguments: --unheard_of"),
        (["--model_base_path=/m", "--grpc_channel_arguments=age"], "expected name=value,..., found 'age'"),
        (["--model_base_path=/m", "--file_system_poll_wait_seconds=-1"], "expected seconds, 0 or more"),
    ],
)
def test_a_wrong_flag_ends_with_one_clear_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_settings(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
