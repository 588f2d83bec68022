"""Log lines as a search engine takes them, and the Filebeat configuration that brings them there."""

from __future__ import annotations

import fnmatch
import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from airloop.logs import copied_as_json, remove_job_logs_before
from airloop.prediction_request import example_body
from airloop.settings import PREFIX, REPOSITORY, Settings
from airloop.stack.programs import airflow_home, programs
from airloop.stack.supervision import log_file
from airloop.use_cases.flight_delay import USE_CASE
from serving.gateway.prediction_lines import PREDICTIONS
from tests.observability.conftest import BROKEN_TRACE, TRACE, Observed

FILEBEAT: dict[str, Any] = yaml.safe_load(
    (REPOSITORY / "serving" / "observability" / "filebeat.yml").read_text("utf-8")
)
TASK = {
    "AIRFLOW_CTX_DAG_ID": "d",
    "AIRFLOW_CTX_DAG_RUN_ID": "scheduled__2026-01-01",
    "AIRFLOW_CTX_TASK_ID": "small",
    "AIRFLOW_CTX_TRY_NUMBER": "2",
    "TRACEPARENT": f"00-{TRACE}-b7ad6b7169203331-00",
}
SERVER = """
import logging, threading, warnings
from airloop.logs import configure_server
configure_server("small", "json")
logging.getLogger("uvicorn.access").info('%s - "%s %s"', "client", "GET", "/healthz")
warnings.warn("a warning")
def fail():
    raise ZeroDivisionError("planted failure\\nof two lines")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


def _job(settings: Settings, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AIR", "TRACE"))}
    return subprocess.run(
        [sys.executable, "-m", "tests.observability.small_job", "--use-case", "flight_delay", *flags],
        env={
            **kept,
            f"{PREFIX}STATE_DIR": str(settings.state_dir),
            f"{PREFIX}LOG_FORMAT": settings.log_format,
            **variables,
        },
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def _lines(settings: Settings) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for file in settings.job_logs_dir.glob("*.jsonl")
        for line in file.read_text("utf-8").splitlines()
    ]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state", log_format="json")


def test_a_jobs_lines_are_text_for_people_and_json_with_its_ids_in_a_file(settings: Settings) -> None:
    done = _job(settings, "--start", "2026-01-01", "--end", "2026-01-02", **TASK)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "INFO small_job: begun with an argument\n"
    (line,) = _lines(settings)
    assert line.pop("@timestamp").startswith(f"{datetime.now(UTC):%Y-%m}")
    assert line.pop("process")["pid"] > 0
    assert line.pop("ecs.version")
    assert line == {
        "message": "begun with an argument",
        "log.level": "info",
        "log": {"logger": "small_job"},
        "service": {"name": "job"},
        "trace": {"id": TRACE},
        "span": {"id": "b7ad6b7169203331"},
        "airloop": {
            "job": "tests.observability.small_job",
            "use_case": "flight_delay",
            "interval_start": "2026-01-01",
            "interval_end": "2026-01-02",
        },
        "airflow": {
            "dag_id": "d",
            "run_id": "scheduled__2026-01-01",
            "task_id": "small",
            "try_number": 2,
        },
    }


def test_an_exception_that_ends_a_job_is_one_line_with_fields(settings: Settings) -> None:
    done = _job(settings, "--end-as", "broken", **TASK)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ZeroDivisionError: planted failure\nof two lines")
    assert done.stderr.count("Traceback") == 1
    _, line = _lines(settings)
    assert (line["log.level"], line["trace"]["id"]) == ("critical", TRACE)
    assert line["error"]["type"] == "ZeroDivisionError"
    assert line["error"]["message"] == "planted failure\nof two lines"
    assert "small_job.py" in line["error"]["stack_trace"]


def test_an_error_that_a_retry_cannot_mend_is_logged_as_well(settings: Settings) -> None:
    assert _job(settings, "--end-as", "refused").returncode == 65
    _, line = _lines(settings)
    assert line["message"].startswith("IntervalError: ")
    assert "airflow" not in line, "no run started it"


def test_text_is_the_default_and_makes_no_file(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state")
    assert _job(settings).returncode == 0
    assert not settings.job_logs_dir.exists()


def test_jobs_that_log_at_once_share_a_file_without_mixing_lines(settings: Settings) -> None:
    def write(number: int) -> None:
        code = (
            "import logging, sys\n"
            "from airloop.logs import copied_as_json\n"
            "from airloop.settings import Settings\n"
            f"settings = Settings(state_dir={str(settings.state_dir)!r}, log_format='json')\n"
            f"with copied_as_json(settings, {{'airloop.job': 'job{number}'}}):\n"
            "    for _ in range(50):\n"
            f"        logging.getLogger().warning('{number}' * 20_000)\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=REPOSITORY)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    lines = _lines(settings)
    assert len(lines) == 150
    assert all(set(line["message"]) == {line["airloop"]["job"][-1]} for line in lines)


def test_a_folder_that_cannot_be_written_costs_the_copy_and_not_the_job(settings: Settings) -> None:
    settings.job_logs_dir.parent.mkdir(parents=True)
    settings.job_logs_dir.write_text("in the way")
    done = _job(settings)
    assert done.returncode == 0
    assert "No JSON copy of this log" in done.stderr


def test_old_days_are_removed_and_the_days_since_are_kept(settings: Settings) -> None:
    with copied_as_json(settings, {}):
        logging.getLogger("airloop").error("today")
    old = settings.job_logs_dir / "2025-01-01.jsonl"
    old.touch()
    month_ago = datetime.now(UTC) - timedelta(days=30)
    os.utime(old, (month_ago.timestamp() - 1, month_ago.timestamp() - 1))
    assert remove_job_logs_before(settings, month_ago) == 1
    assert remove_job_logs_before(settings, month_ago) == 0
    assert len(_lines(settings)) == 1


def test_whatever_a_server_writes_is_json_uncaught_errors_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVER], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 1
    access, warning, in_thread, at_end = (json.loads(line) for line in done.stderr.splitlines())
    assert access["message"] == 'client - "GET /healthz"'
    assert (access["log.level"], access["log"]) == ("info", {"logger": "uvicorn.access"})
    assert "a warning" in warning["message"]
    for line in (in_thread, at_end):
        assert line["error"]["type"] == "ZeroDivisionError"
        assert line["error"]["message"] == "planted failure\nof two lines"
        assert line["service"] == {"name": "small"}


def test_the_gateways_line_of_a_prediction_has_the_ids_and_not_what_it_was_about(observed: Observed) -> None:
    (line,) = [line for line in observed.gateway_lines() if line["log"]["logger"] == PREDICTIONS]
    assert line["trace"]["id"] == TRACE
    assert line["http"]["request"]["id"] == observed.answer["request_id"]
    assert line["airloop"].pop("latency_seconds") > line["airloop"].pop("model_seconds") > 0
    assert line["airloop"] == {
        "use_case": "flight_delay",
        "model": USE_CASE.model_name,
        "version": 7,
        "variant": "champion",
        "instance": 0,
    }
    written = observed.gateway_log + observed.model_server_log
    body = example_body(USE_CASE)
    for field in USE_CASE.entities:
        assert str(body[field]) not in written, field


def test_the_gateways_exception_is_one_line_of_its_request(observed: Observed) -> None:
    (line,) = [
        line for line in observed.gateway_lines() if line.get("error") and line["log.level"] == "error"
    ]
    assert line["trace"]["id"] == BROKEN_TRACE
    assert line["error"]["message"] == "planted failure\nof two lines"
    assert "planted_store.py" in line["error"]["stack_trace"]


def test_the_model_servers_lines_are_json(observed: Observed) -> None:
    # TensorFlow's C++ writes lines of its own, which Filebeat takes as they are.
    lines = [line for line in observed.model_server_log.splitlines() if "tensorflow_model" not in line]
    parsed = [json.loads(line) for line in lines if line.startswith("{")]
    assert {line["service"]["name"] for line in parsed} == {"model-server"}
    assert any(line["message"].startswith("gRPC on ") for line in parsed)


def _paths(name: str, state: Path) -> list[str]:
    (found,) = [item for item in FILEBEAT["filebeat.inputs"] if item["id"] == name]
    return [path.replace("${AIRLOOP_STATE_DIR:.airloop}", str(state)) for path in found["paths"]]


def _matches(path: Path, patterns: list[str]) -> bool:
    # As in Filebeat, a star stays within one folder.
    return any(
        len(path.parts) == len(Path(pattern).parts)
        and all(map(fnmatch.fnmatchcase, path.parts, Path(pattern).parts))
        for pattern in patterns
    )


def test_filebeat_reads_the_files_that_the_programs_write(settings: Settings) -> None:
    state = settings.state_dir
    for program in programs(settings):
        file = log_file(settings, program.name)
        inputs = [name for name in ("servers", "airflow-programs") if _matches(file, _paths(name, state))]
        expected = {"gateway": ["servers"], "model-server": ["servers"], "mlflow": []}
        assert inputs == expected.get(program.name, ["airflow-programs"]), program.name


def test_filebeat_reads_the_files_of_jobs_and_of_airflows_tasks(settings: Settings) -> None:
    assert _job(settings).returncode == 0
    (file,) = settings.job_logs_dir.iterdir()
    assert _matches(file, _paths("jobs", settings.state_dir))
    from airflow.configuration import conf
    from jinja2 import Template

    template = Template(conf.get("logging", "log_filename_template"))
    for map_index in (-1, 3):
        instance = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": map_index, "try_number": 1}
        path = airflow_home(settings) / "logs" / template.render(ti=instance)
        assert _matches(path, _paths("airflow-tasks", settings.state_dir)), path


def test_filebeat_takes_each_line_as_json_and_loses_none_that_is_not() -> None:
    for item in FILEBEAT["filebeat.inputs"]:
        (parser,) = item["parsers"]
        options = parser["ndjson"]
        assert options["ignore_decoding_error"] is True
        # Airflow's `event` is a text, where the schema has an object.
        assert options["target"] == ("airflow" if item["id"].startswith("airflow") else "")
        assert item["type"] == "filestream"
    ids = [item["id"] for item in FILEBEAT["filebeat.inputs"]]
    assert len(set(ids)) == len(ids)
