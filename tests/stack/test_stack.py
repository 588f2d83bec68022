"""The local stack: ports, windows, run ids, and a real supervisord that leaves nothing behind."""

from __future__ import annotations

import socket
import sys
import time
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from rich.console import Console

from airloop.errors import StackError
from airloop.settings import Settings
from airloop.stack import lifecycle, supervision
from airloop.stack.loop import Windows, features_interval, loop_run_id
from airloop.stack.memory import proportional_bytes
from airloop.stack.ports import require_free
from airloop.stack.programs import Program, environment, password, ports, programs
from airloop.use_cases.flight_delay import USE_CASE

AS_OF = datetime(2013, 6, 3, tzinfo=UTC)


def test_taken_ports_are_all_named_with_the_setting_that_changes_each():
    with socket.socket() as one, socket.socket() as other:
        for listener in (one, other):
            listener.bind(("127.0.0.1", 0))
            listener.listen()
        taken = {"airflow_port": one.getsockname()[1], "gateway_port": other.getsockname()[1]}
        with pytest.raises(StackError) as caught:
            require_free("127.0.0.1", taken)
    for setting, port in taken.items():
        assert f"{port} ({setting})" in str(caught.value)
        assert f"AIRLOOP_{setting.upper()}=" in str(caught.value)
    require_free("127.0.0.1", taken)


def test_up_with_a_taken_port_starts_nothing(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        settings = Settings(state_dir=tmp_path, mlflow_port=listener.getsockname()[1])
        with pytest.raises(StackError, match="mlflow_port"):
            lifecycle.up(settings, Console(quiet=True))
    assert not supervision.is_up(settings)


def test_history_reaches_over_windows_label_delay_and_the_oldest_feature_in_force():
    policy, span = USE_CASE.training, features_interval(USE_CASE, AS_OF, Windows())
    reach = USE_CASE.label.matures_after + max(table.time_to_live for table in USE_CASE.feature_tables)
    assert span.end == AS_OF
    assert span.start <= AS_OF - timedelta(days=policy.total_days) - reach
    shorter = features_interval(USE_CASE, AS_OF, Windows(train_days=7))
    assert shorter.start - span.start == timedelta(days=policy.train_days - 7)


def test_a_run_id_is_stable_and_changes_with_spec_date_and_windows():
    changed = USE_CASE.model_copy(update={"prediction_lead": timedelta(hours=3)})
    ids = {
        loop_run_id(USE_CASE, AS_OF, Windows()),
        loop_run_id(USE_CASE, AS_OF, Windows()),
        loop_run_id(USE_CASE, AS_OF + timedelta(days=1), Windows()),
        loop_run_id(USE_CASE, AS_OF, Windows(train_days=7)),
        loop_run_id(changed, AS_OF, Windows()),
    }
    assert len(ids) == 4


def test_everything_that_the_programs_write_lies_in_the_state_folder(tmp_path):
    variables = environment(Settings(state_dir=tmp_path))
    for name in ("HOME", "TMPDIR", "AIRFLOW_HOME", "AIRLOOP_STATE_DIR"):
        assert variables[name].startswith(str(tmp_path))
    assert str(tmp_path) in variables["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]


def test_secrets_are_made_once_and_private(tmp_path):
    settings = Settings(state_dir=tmp_path)
    first = password(settings), environment(settings)["AIRFLOW__CORE__FERNET_KEY"]
    assert first == (password(settings), environment(settings)["AIRFLOW__CORE__FERNET_KEY"])
    for name in ("passwords.json", "secrets.json"):
        assert (tmp_path / "airflow" / name).stat().st_mode & 0o077 == 0


def test_every_port_has_a_program_or_is_its_second(tmp_path):
    settings = Settings(state_dir=tmp_path)
    named = {program.port_setting for program in programs(settings)} - {None}
    assert set(ports(settings)) - named == {"model_server_grpc_port"}


def test_a_state_folder_too_deep_for_a_socket_is_refused_with_its_length(tmp_path):
    settings = Settings(state_dir=tmp_path / ("d" * 100))
    with pytest.raises(StackError, match="bytes"):
        supervision.socket_path(settings)


BREEDER = (
    "import subprocess, sys, time;"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
    "time.sleep(600)"
)


def test_down_ends_all_that_was_started_and_only_that(tmp_path):
    settings = Settings(state_dir=tmp_path / "s")
    bystander = psutil.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    # A script, because supervisord splits the command like a shell.
    script = tmp_path / "breeder with a space.py"
    script.write_text(BREEDER)
    try:
        supervision.start(
            settings, [Program("breeder", (sys.executable, str(script)))], environment(settings)
        )
        deadline = time.monotonic() + 20
        while len(started := supervision.descendants(settings)) < 3:
            assert time.monotonic() < deadline, supervision.states(settings)
            time.sleep(0.1)
        assert proportional_bytes(started) > 10 * 1024**2
        supervision.stop(settings)
        assert not any(process.is_running() for process in started)
        assert supervision.descendants(settings) == []
        assert bystander.is_running()
        assert bystander.status() != psutil.STATUS_ZOMBIE
    finally:
        bystander.kill()
        bystander.wait()


def test_clean_keeps_the_environment_and_removes_the_data(tmp_path):
    for name in ("venv", "jars", "warehouse", "mlflow"):
        (tmp_path / name).mkdir()
    (tmp_path / "catalog.db").touch()
    lifecycle.clean(Settings(state_dir=tmp_path), Console(quiet=True))
    assert {path.name for path in tmp_path.iterdir()} == {"venv", "jars"}
