"""The smoke test: it passes where all is well, and names what is not. Airflow and the gateway are played by a
server on loopback, whose documents have their real form; `tests/end_to_end` asks the real ones."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from airloop.delivery import smoke
from airloop.errors import EXIT_PERMANENT
from tests.delivery.conftest import COMMIT, HEALTHY, Answers

VERSIONS = "/api/v2/dags/flight_delay_training/dagVersions"


def ask(answers: Answers, folder: Path, *flags: str, within_seconds: float = 0) -> int:
    """The exit status of the command line."""
    (folder / "password").write_text("secret\n")
    (folder / "key").write_text("k1\n")
    return smoke.main(
        [
            *("--use-case", "flight_delay", "--airflow-url", answers.url),
            *("--gateway-url", answers.gateway_url or answers.url),
            *("--airflow-password-file", str(folder / "password"), "--gateway-key-file", str(folder / "key")),
            *("--within-seconds", str(within_seconds), *flags),
        ]
    )


def test_a_deployment_that_is_well_passes(
    answers: Answers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(answers, tmp_path, "--dag-version", COMMIT, "--model-version", "7") == 0
    assert "version 7 of flight_delay answers" in capsys.readouterr().out
    asked = {path: (who, body) for path, who, body in answers.asked}
    assert asked["/auth/token"][1] == {"username": "admin", "password": "secret"}
    assert asked["/api/v2/importErrors"][0] == "Bearer t"
    assert asked["/v1/flight_delay/predict"][0] == "Bearer k1"
    assert "carrier" in asked["/v1/flight_delay/predict"][1]


@pytest.mark.parametrize(
    ("path", "answer", "found"),
    [
        (
            "/api/v2/monitor/health",
            (200, HEALTHY | {"scheduler": {"status": "unhealthy"}}),
            "scheduler unhealthy",
        ),
        ("/api/v2/monitor/health", (200, HEALTHY | {"dag_processor": None}), "dag_processor None"),
        (
            "/api/v2/importErrors",
            (200, {"import_errors": [{"filename": "cost.py", "stack_trace": "a\nImportError: b"}]}),
            "cost.py: ImportError: b",
        ),
        ("/api/v2/dags/flight_delay_training", (404, {}), "expected the DAG flight_delay_training"),
        (VERSIONS, (200, {"dag_versions": [{"bundle_version": "6" * 40}]}), "found commit 666"),
        (VERSIONS, (200, {"dag_versions": []}), "found commit None"),
        ("/auth/token", (401, {"detail": "no"}), "found status 401"),
        ("/readyz", (503, {"lacking": {"flight_delay": "no champion"}}), "no champion"),
        ("/v1/flight_delay/predict", (503, {"found": "no features"}), "no features"),
        ("/v1/flight_delay/predict", (200, {"model": {}}), "expected a prediction of flight_delay"),
        (
            "/v1/flight_delay/predict",
            (200, {"model": {"version": 6}}),
            "expected version 7 to answer; found version 6",
        ),
    ],
)
def test_what_is_not_well_is_named(
    answers: Answers,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    path: str,
    answer: tuple[int, Any],
    found: str,
) -> None:
    answers[path] = answer
    assert ask(answers, tmp_path, "--dag-version", COMMIT, "--model-version", "7") == EXIT_PERMANENT
    assert found in capsys.readouterr().err


def test_nobody_there_is_a_failure_too(
    answers: Answers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers.gateway_url = "http://127.0.0.1:9"
    assert ask(answers, tmp_path) == EXIT_PERMANENT
    assert "ConnectError" in capsys.readouterr().err


def test_what_takes_a_moment_is_waited_for(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smoke, "_BETWEEN_TRIES_SECONDS", 0.05)
    answers["/readyz"] = (503, {})

    def become_ready() -> None:
        answers["/readyz"] = (200, {})

    timer = threading.Timer(0.5, become_ready)
    timer.start()
    assert ask(answers, tmp_path, within_seconds=30) == 0
    timer.join()
